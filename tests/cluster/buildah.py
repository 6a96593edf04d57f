"""Images that need a distribution: the Debian base from mmdebstrap, and what a Dockerfile makes of it with buildah.
No registry and no daemon is needed; each build has its own mounts and processes, which end with it."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

from cluster.digest import digest
from cluster.paths import CACHE, ROOT
from cluster.process import ISOLATED, run
from cluster.say import ClusterError, phase

BASE_PACKAGES = "python3-minimal,python3-pip,python3-venv,ca-certificates"
BASE_SECONDS, BUILD_SECONDS = 1200, 900
WHERE = CACHE / "buildah"
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
# CA bundles a build may need to reach a package index; a machine with its own names it in one of these.
BUNDLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

# The tar would carry this machine's name, name servers and package sources into every image.
BASE_SCRIPT = """
set -eu
mmdebstrap --quiet --mode=root --variant=minbase --include="$1" \\
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \\
    --dpkgopt='path-exclude=/usr/share/locale/*' \\
    --customize-hook='rm -rf "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/apt/sources.list*' \\
    "$2" "$3" "$4"
"""
COMMIT_SCRIPT = """
set -eu
container=$($BUILDAH from scratch)
$BUILDAH add --quiet "$container" "$1" /
$BUILDAH config --env PATH=/usr/local/bin:/usr/bin:/bin "$container"
$BUILDAH commit --quiet --rm "$container" "$2"
"""
BUILD_SCRIPT = """
set -eu
$BUILDAH build --isolation chroot --network host --pull-never --layers --build-arg BASE="$1" $SECRETS \\
    --tag "$2" --file "$3" "$4"
$BUILDAH push --quiet "$2" "docker-archive:$5:$2"
"""


def base_key() -> str:
    """What the base is made from."""
    return digest(BASE_SCRIPT, COMMIT_SCRIPT, BASE_PACKAGES, codename())


def base_image() -> str:
    """The name the base has in buildah's store."""
    return f"localhost/base:{base_key()}"


def codename() -> str:
    """The Debian release of this machine, which the base shares."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise ClusterError("/etc/os-release names no VERSION_CODENAME", "build images on Debian")


def build_base() -> None:
    """Make the base image unless the store has it."""
    WHERE.mkdir(parents=True, exist_ok=True)
    marker = WHERE / f"{base_image().replace('/', '_')}.done"
    if marker.exists():
        return
    sources = next((path for path in SOURCES if path.exists() and path.read_text().strip()), None)
    if sources is None:
        raise ClusterError(f"no package sources in {' or '.join(map(str, SOURCES))}", "build images on Debian")
    tar = CACHE / "base" / f"{base_key()}.tar"
    if not tar.exists():
        fresh = tar.with_name(f"new-{tar.name}")
        tar.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with phase("build the base image (mmdebstrap)"):
            _isolated("base", BASE_SCRIPT, BASE_PACKAGES, codename(), fresh, sources, timeout=BASE_SECONDS)
        fresh.replace(tar)
    with phase("commit the base image"):
        _isolated("base", COMMIT_SCRIPT, tar, base_image(), timeout=BUILD_SECONDS)
    marker.touch()


def build_dockerfile(dockerfile: Path, name: str, target: Path) -> None:
    """Build `dockerfile` with the repository as its context; write the image `name` to the archive `target`."""
    build_base()
    target.unlink(missing_ok=True)
    _isolated(target.stem, BUILD_SCRIPT, base_image(), name, dockerfile, ROOT, target, timeout=BUILD_SECONDS)


def _isolated(log: str, script: str, *arguments: object, timeout: float) -> None:
    """Run a shell script with mounts, processes and temporary files of its own."""
    temporary, runroot = WHERE / "tmp", WHERE / "run"
    for folder in (temporary, runroot):
        # `run` counts mounts that a killed build took with it; only an empty one tells the truth.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    bundle = next((Path(os.environ[name]) for name in BUNDLES if os.environ.get(name)), BUNDLE)
    env = {
        **os.environ,
        "TMPDIR": str(temporary),
        "BUILDAH": f"buildah --root {WHERE / 'store'} --runroot {runroot} --storage-driver overlay",
        "SECRETS": f"--secret id=ca,src={bundle}" if bundle.is_file() else "",
    }
    run([*ISOLATED, "sh", "-c", textwrap.dedent(script), "sh", *map(str, arguments)], log=log, env=env, timeout=timeout,
        next_step="check that the package index can be reached; then: python -m cluster image")  # fmt: skip
