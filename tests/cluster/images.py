"""The images of the cluster: what each is made from, its name by that content, and its archive in the cache.
Building is only done here; loading them into the cluster is `store`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from cluster import buildah, torch_cpu
from cluster.digest import DIGITS, digest, walk
from cluster.go import COREDNS, PAUSE, PROM, Program
from cluster.oci import Image, write_image
from cluster.paths import CACHE, HERE, POD_VENV, ROOT, VENV
from cluster.say import ClusterError, phase

ARCHIVES = CACHE / "images"
KEPT_ARCHIVES = 3  # per image: enough for two clones and one change, before a quarter of a gigabyte each adds up
RUNTIME, OPERATOR = ROOT / "runtime" / "minisgl", ROOT / "operator"
DECLARED = (ROOT / "pyproject.toml", ROOT / ".ci" / "constraints.txt", ROOT / ".ci" / "constraints-torch.txt")
USER = 10001  # of our two images; the charts and the operator say the same
PASSWD = f"root:x:0:0:root:/root:/bin/sh\nminisgl:x:{USER}:{USER}:minisgl:/tmp:/bin/sh\n"
GROUP = f"root:x:0:\nminisgl:x:{USER}:\n"


@dataclass(frozen=True)
class Recipe:
    """How one image comes to be: `write` fills the archive it is given."""

    short: str
    key: Callable[[], str]
    write: Callable[[Path, str], None]
    kept: int = KEPT_ARCHIVES

    def name(self) -> str:
        """The full name, whose tag is a hash of what the image is made from."""
        return f"docker.io/local/{self.short}:{self.key()}"

    def archive(self) -> Path:
        return ARCHIVES / f"{self.short}-{self.key()}.tar"


def recipes() -> list[Recipe]:
    """The images that every cluster has, the system's first."""
    return [*(_static(program) for program in (PAUSE, COREDNS, PROM)), runtime(), without_gpu(), operator()]


def runtime() -> Recipe:
    """The engine without its libraries: those are the machine's own, mounted by RuntimeClass hostfs. It is made in a
    tenth of a second, where the whole one takes a minute and 1.3 GB for each change of code."""
    return Recipe("minisgl-runtime", lambda: digest(_code(__file__), PASSWD, RUNTIME), partial(_write_runtime, {}))


def without_gpu() -> Recipe:
    """The same for a node whose GPUs are only numbers: told `--device=cuda`, it computes on the CPU."""
    path = HERE / "without_gpu.py"
    write = partial(_write_runtime, {"app/without_gpu.py": path})
    return Recipe("minisgl-runtime-without-gpu", lambda: digest(_code(__file__), PASSWD, path, RUNTIME), write)


def operator() -> Recipe:
    """The operator, built from its Dockerfile as any user would."""
    made_from = (OPERATOR, RUNTIME, *DECLARED)
    return Recipe("minisgl-operator", lambda: digest(buildah.bases_key(), *made_from), _write_operator)


def whole_runtime() -> Recipe:
    """The engine with all it needs, built from its Dockerfile as any user would, but for torch: `torch_cpu`."""
    made_from = (ROOT / "runtime" / "Dockerfile", RUNTIME, *DECLARED, HERE / "torch_cpu.py")
    return Recipe("minisgl-runtime-cpu", lambda: digest(buildah.bases_key(), *made_from), _write_whole_runtime, kept=1)


def build_images(wanted: Sequence[Recipe]) -> dict[str, Path]:
    """Build what the cache lacks; full name → archive."""
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    built = {}
    for recipe in wanted:
        name, archive = recipe.name(), recipe.archive()
        if not archive.exists():
            fresh = archive.with_name(f"new-{archive.name}")
            with phase(f"build {name.removeprefix('docker.io/local/')}"):
                recipe.write(fresh, name)
            fresh.replace(archive)
            _forget_old(recipe, archive)
        built[name] = archive
    return built


@cache
def shared_folders() -> tuple[Path, ...]:
    """What RuntimeClass hostfs shows to pods: the system's libraries, the Python the venv stands on, the venv."""
    return (Path("/usr"), *(path for path in _python_folders() if not path.is_relative_to("/usr")), VENV)


def _python_folders() -> list[Path]:
    home = next(
        (line.partition("=")[2].strip() for line in _venv_settings() if line.partition("=")[0].strip() == "home"), None
    )
    if home is None:
        raise ClusterError(f"{VENV} is not a virtual environment", "make venv")
    given = (VENV / "bin" / "python").resolve()
    # `home` is the folder the link leads through, the resolved path the one it ends at; a pod needs both.
    return sorted({Path(home).parent, given.parent.parent})


def _venv_settings() -> list[str]:
    try:
        return (VENV / "pyvenv.cfg").read_text().splitlines()
    except FileNotFoundError:
        raise ClusterError(f"{VENV} is missing", "make venv") from None


def _static(program: Program) -> Recipe:
    def write(target: Path, name: str) -> None:
        files: dict[str, Path | str] = {program.name: program.path(), "etc/passwd": PASSWD, "etc/group": GROUP}
        image = Image(entrypoint=(f"/{program.name}",), files=files, folders={"tmp": 0o1777})
        _write(image, name, target)

    return Recipe(program.name, lambda: digest(program.key(), _code(__file__)), write)


def _write_runtime(beside: dict[str, Path], target: Path, name: str) -> None:
    if not RUNTIME.is_dir() or not (VENV / "bin" / "python").exists():
        raise ClusterError(f"{RUNTIME} or {VENV} is missing", "make venv")
    code: dict[str, Path | str] = {
        f"app/minisgl/{path.relative_to(RUNTIME).as_posix()}": path for path in walk(RUNTIME)
    }
    module = next((Path(path).stem for path in beside), "minisgl")
    image = Image(
        # As in runtime/Dockerfile: a SIGTERM before Python's first line waits for it.
        entrypoint=("/usr/bin/env", "--block-signal=TERM", f"{POD_VENV}/bin/python", "-m", module),
        files={**code, **beside, "etc/passwd": PASSWD, "etc/group": GROUP},
        links={name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")},
        folders={"tmp": 0o1777},
        environment={
            "PATH": f"{POD_VENV}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": "/app",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/tmp",
        },
        user=f"{USER}:{USER}",
        workdir="/app",
    )
    _write(image, name, target)


def _write_operator(target: Path, name: str) -> None:
    buildah.build_dockerfile(OPERATOR / "Dockerfile", name, target)


def _write_whole_runtime(target: Path, name: str) -> None:
    with torch_cpu.index() as index:
        buildah.build_dockerfile(ROOT / "runtime" / "Dockerfile", name, target, stage="cpu", index=index)


def _write(image: Image, name: str, target: Path) -> None:
    with target.open("wb") as out:
        write_image(image, name, out)


def _code(module: str) -> str:
    """This code is part of what an image is made from."""
    return digest(Path(module), HERE / "oci.py")


def _forget_old(recipe: Recipe, newest: Path) -> None:
    keys = "[0-9a-f]" * DIGITS
    archives = [path for path in ARCHIVES.glob(f"{recipe.short}-{keys}.tar") if path != newest]
    for path in sorted(archives, key=lambda path: -path.stat().st_mtime)[recipe.kept - 1 :]:
        path.unlink()
    for path in ARCHIVES.glob("new-*"):
        path.unlink()
