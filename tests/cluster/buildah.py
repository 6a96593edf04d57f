"""Images that need a distribution: Debian bases from mmdebstrap, and what a Dockerfile makes of them with buildah.
No registry and no daemon is needed; each build has its own mounts and processes, which end with it."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from pathlib import Path

from cluster.digest import digest
from cluster.paths import CACHE, ROOT
from cluster.process import ISOLATED, run
from cluster.say import ClusterError, phase

# Of a merged /usr only the tool that once merged it needs Perl, 60 MB.
WITHOUT_PERL = """chroot "$1" sh -c 'dpkg-query --show --showformat="\\${Package}\\n" |
    grep -E "^(usrmerge|perl|perl-modules-.*|libperl.*|lib.*-perl)$" | xargs dpkg --purge --force-depends'"""
# A Dockerfile's two bases (mmdebstrap's variant, packages, last step): one to build on, one for pods.
BASES = {
    "build": ("minbase", "python3-pip,python3-venv,gcc,libc6-dev,ca-certificates", "true"),
    "pod": ("essential", "python3,libstdc++6,ca-certificates", WITHOUT_PERL),
}
BASE_SECONDS, BUILD_SECONDS = 1200, 1800
WHERE = CACHE / "buildah"
KEPT = "buildah-cache"  # among temporary files: what a Dockerfile keeps from one build for the next
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
# CA bundles a build may need to reach a package index; a machine with its own names it in one of these.
BUNDLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

# The tar would carry this machine's name, name servers and package sources into every image.
BASE_SCRIPT = """
set -eu
mmdebstrap --quiet --mode=root --variant="$5" --include="$1" \\
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \\
    --dpkgopt='path-exclude=/usr/share/locale/*' \\
    --customize-hook="$6" \\
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
$BUILDAH build --isolation chroot --network host --pull-never --layers $SECRETS \\
    --build-arg BUILD_BASE="$1" --build-arg BASE="$2" --tag "$3" --file "$4" $6 \\
    --secret id=pip,src="$7" "$8"
$BUILDAH push --quiet "$3" "docker-archive:$5:$3"
"""


def bases_key() -> str:
    """What both bases are made from."""
    return digest(*map(base_key, BASES))


def base_key(kind: str) -> str:
    """What one base is made from."""
    return digest(BASE_SCRIPT, COMMIT_SCRIPT, *BASES[kind], codename())


def base_image(kind: str) -> str:
    """The name a base has in buildah's store."""
    return f"localhost/base:{base_key(kind)}"


def codename() -> str:
    """The Debian release of this machine, which the base shares."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise ClusterError("/etc/os-release names no VERSION_CODENAME", "build images on Debian")


def build_bases() -> None:
    """Make the base images that the store lacks."""
    for kind in BASES:
        _build_base(kind)


def _build_base(kind: str) -> None:
    WHERE.mkdir(parents=True, exist_ok=True)
    marker = WHERE / f"{base_image(kind).replace('/', '_')}.done"
    if marker.exists():
        return
    sources = next((path for path in SOURCES if path.exists() and path.read_text().strip()), None)
    if sources is None:
        raise ClusterError(f"no package sources in {' or '.join(map(str, SOURCES))}", "build images on Debian")
    variant, packages, last = BASES[kind]
    tar = CACHE / "base" / f"{base_key(kind)}.tar"
    if not tar.exists():
        fresh = tar.with_name(f"new-{tar.name}")
        tar.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with phase(f"build the base image for {kind}s (mmdebstrap)"):
            given = (packages, codename(), fresh, sources, variant, last)
            isolated("base", BASE_SCRIPT, *given, timeout=BASE_SECONDS)
        fresh.replace(tar)
    with phase(f"commit the base image for {kind}s"):
        isolated("base", COMMIT_SCRIPT, tar, base_image(kind), timeout=BUILD_SECONDS)
    marker.touch()


def build_dockerfile(dockerfile: Path, name: str, target: Path, stage: str = "", index: str = "") -> None:
    """Build `dockerfile` to its end or to `stage`, with the repository as its context; write the image `name` to the
    archive `target`. `index` is one more package index: told by a secret, for an argument would be part of the key
    that layers are cached under."""
    build_bases()
    target.unlink(missing_ok=True)
    bases = (base_image("build"), base_image("pod"))
    with tempfile.NamedTemporaryFile("w", prefix="pip-") as settings:
        settings.write(f"[global]\nextra-index-url = {index}\ntimeout = 300\n" if index else "")
        settings.flush()
        until = f"--target={stage}" if stage else ""
        given = (*bases, name, dockerfile, target, until, settings.name, ROOT)
        isolated(target.stem, BUILD_SCRIPT, *given, timeout=BUILD_SECONDS)


def isolated(log: str, script: str, *arguments: object, timeout: float) -> None:
    """Run a shell script with mounts, processes and temporary files of its own."""
    temporary, runroot = WHERE / "tmp", WHERE / "run"
    for folder in (temporary, runroot):
        # `run` counts mounts that a killed build took with it; only an empty one tells the truth.
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.name != KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    bundle = next((Path(os.environ[name]) for name in BUNDLES if os.environ.get(name)), BUNDLE)
    env = {
        **os.environ,
        "TMPDIR": str(temporary),
        "BUILDAH": f"buildah --root {WHERE / 'store'} --runroot {runroot} --storage-driver overlay",
        "SECRETS": f"--secret id=ca,src={bundle}" if bundle.is_file() else "",
    }
    run([*ISOLATED, "sh", "-c", textwrap.dedent(script), "sh", *map(str, arguments)], log=log, env=env, timeout=timeout,
        next_step="check that the package index can be reached; then: python -m cluster image")  # fmt: skip
