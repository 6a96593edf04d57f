"""A torch without CUDA, as a wheel in an index of its own, for the runtime's image where PyTorch's index of CPU wheels
cannot be reached. PyPI's torch (in .venv) carries CUDA and does not load without NVIDIA's 3 GB of libraries: here empty
ones, which only export the names that torch looks up, stand in for them. For tests; users take PyTorch's own wheel.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import shutil
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cluster.paths import CACHE, VENV
from cluster.process import run
from cluster.say import ClusterError, phase

LOCAL = "nocuda"  # 2.15.0+nocuda: newer to pip than 2.15.0, and equal to it in a constraint
LEFT_OUT = ("torch/include/", "torch/bin/protoc", "torch/lib/libtorch_cuda_linalg.so")
MAKING = threading.Lock()
NO_DEVICE = 100  # cudaErrorNoDevice: what a stand-in returns


def site_packages() -> Path:
    """Where the venv keeps its packages."""
    found = next(VENV.glob("lib/python3.*/site-packages/torch"), None)
    if found is None:
        raise ClusterError(f"no torch in {VENV}", "make venv")
    return found.parent


@contextlib.contextmanager
def index() -> Iterator[str]:
    """The address of an index with that wheel, on the loopback interface while the block runs. The wheel is made when
    it is first asked for, and gone with the block: who has its layer in a cache needs a gigabyte less."""
    for left in CACHE.glob("torch-*"):  # of a build that was killed
        shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(prefix="torch-", dir=CACHE) as folder,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Index, directory=folder)) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


class _Index(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        folder = Path(self.directory) / "torch"
        with MAKING:
            if self.path == "/torch/" and not folder.exists():
                fresh = folder.with_name("new")
                fresh.mkdir()
                with phase("make a torch without CUDA"):
                    write_wheel(site_packages(), fresh)
                fresh.rename(folder)
        super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name there)
        """Say nothing: pip asks for every package, and one is there."""


def write_wheel(packages: Path, folder: Path) -> None:
    """Make the wheel of the torch in `packages`."""
    info = next(packages.glob("torch-*.dist-info"))
    version = info.name.removesuffix(".dist-info").partition("-")[2].partition("+")[0] + f"+{LOCAL}"
    tag = re.search(r"^Tag: (\S+)", (info / "WHEEL").read_text(), re.MULTILINE)
    assert tag is not None, f"{info}/WHEEL names no tag"
    _write(packages, info, folder / f"torch-{version}-{tag[1]}.whl", version)


def _write(packages: Path, info: Path, target: Path, version: str) -> None:
    """A wheel is a zip of files and a list of them; stored, not compressed: it goes to a disk and back."""
    record = f"{info.name.partition('-')[0]}-{version}.dist-info"
    lines = []
    with zipfile.ZipFile(target, "w") as archive:

        def add(name: str, content: bytes, mode: int = 0o644) -> None:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16  # torch/bin has a program, which pip leaves one
            archive.writestr(entry, content)
            sum256 = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={sum256},{len(content)}")

        for root in ("torch", "torchgen", "functorch"):
            for path in sorted((packages / root).rglob("*")):
                name = path.relative_to(packages).as_posix()
                if path.is_file() and not name.startswith(LEFT_OUT) and path.suffix != ".pyc":
                    add(name, path.read_bytes(), path.stat().st_mode)
        for name, content in stand_ins(packages, target.parent).items():
            add(f"torch/lib/{name}", content)
        for name in ("WHEEL", "entry_points.txt"):
            if (info / name).exists():
                add(f"{record}/{name}", (info / name).read_bytes())
        add(f"{record}/METADATA", metadata((info / "METADATA").read_text(), version).encode())
        lines.append(f"{record}/RECORD,,")
        archive.writestr(f"{record}/RECORD", "\n".join(lines) + "\n")


def metadata(text: str, version: str) -> str:
    """The same, under another version, without what CUDA needs."""
    kept = [line for line in text.splitlines() if not re.match(r"Requires-Dist: (nvidia|triton|cuda)", line)]
    return re.sub(r"(?m)^Version: .*$", f"Version: {version}", "\n".join(kept), count=1) + "\n"


def stand_ins(packages: Path, scratch: Path) -> dict[str, bytes]:
    """File name → a library that exports what torch's libraries take from NVIDIA's of that name, and does nothing."""
    files = (packages / "torch" / "lib").glob("*.so*")
    ours = [path for path in files if f"torch/lib/{path.name}" not in LEFT_OUT]
    wanted = {name for path in ours for name, index, _ in _symbols(path) if index == "UND"}
    names = {name for path in ours for name in re.findall(r"\(NEEDED\).*\[(.*)\]", _readelf("--dynamic", path))}
    return {
        path.name: _stand_in(path, wanted, scratch)
        for name in sorted(names)
        for path in packages.glob(f"nvidia/*/lib/{name}")
    }


def _stand_in(real: Path, wanted: set[str], scratch: Path) -> bytes:
    exported = {name: version for name, index, version in _symbols(real) if index.isdigit() and name in wanted}
    body = "".join(
        f'.globl "{name}"\n.type "{name}", @function\n"{name}": movl ${NO_DEVICE}, %eax\nret\n' for name in exported
    )
    versions = {version: [name for name in exported if exported[name] == version] for version in exported.values()}
    script = "".join(f"{tag} {{ global: {'; '.join(each)}; }};\n" for tag, each in versions.items() if tag)
    source, names, library = (scratch / f"{real.name}.{kind}" for kind in ("s", "map", "out"))
    source.write_text(f'.text\n{body}.section .note.GNU-stack,"",@progbits\n')
    names.write_text(script)
    with_versions = [f"-Wl,--version-script={names}"] if script else []
    command: list[str | Path] = [
        "gcc",
        "-shared",
        "-nostdlib",
        "-o",
        library,
        source,
        f"-Wl,-soname,{real.name}",
        *with_versions,
    ]
    run(command, log="torch-cpu", timeout=60, next_step="install gcc")
    content = library.read_bytes()
    for path in (source, names, library):
        path.unlink()
    return content


def _symbols(library: Path) -> Iterator[tuple[str, str, str]]:
    """Name, section index and version of each dynamic symbol."""
    for line in _readelf("--dyn-syms", library).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].rstrip(":").isdigit():
            name, _, version = fields[7].partition("@")
            yield name, fields[6], version.lstrip("@")


def _readelf(what: str, library: Path) -> str:
    command = ["readelf", "--wide", what, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
