"""The runtime's image for GPUs: built from its Dockerfile, and looked into as far as a machine without a GPU can.

It is no part of a cluster here: 7.5 GB, of which containerd would keep another copy, for a node that has no driver.
What a first pod would meet beyond the driver is tried instead: that everything imports, and that the image's own nvcc
and linker make a kernel of FlashInfer's.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cluster import buildah
from cluster.paths import ROOT
from cluster.say import ClusterError, phase

NAME = "localhost/minisgl-runtime:cuda"
FREE_GIB = 35  # its packages are stored four times on the way: their layer, its copy, and each while it is written
BUILD_SCRIPT = """
set -eu
$BUILDAH build --isolation chroot --network host --pull-never --layers $SECRETS --volume "$1" --target=cuda \\
    --build-arg BUILD_BASE="$2" --build-arg BASE="$2" --tag "$3" --file "$4" --secret id=pip,src="$5" "$6"
"""
LOOK_SCRIPT = """
set -eu
container=$($BUILDAH from --pull-never "$1")
$BUILDAH run --isolation chroot "$container" -- python3 -m minisgl --help
$BUILDAH run --isolation chroot "$container" -- python3 -c "$2"
$BUILDAH rm "$container"
"""
LOOK = """
import os
os.environ |= {"FLASHINFER_CUDA_ARCH_LIST": "9.0a", "FLASHINFER_WORKSPACE_BASE": "/tmp"}
import flash_attn.cute, flashinfer, torch, triton
from flashinfer.page import gen_page_module
assert os.getuid() == 10001
assert torch.version.cuda and not torch.cuda.is_available()
gen_page_module().build(verbose=False)
"""


def build() -> str:
    """Build it, look into it, and return the name it has in buildah's store."""
    buildah.WHERE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(buildah.WHERE).free / 2**30
    if free < FREE_GIB:
        raise ClusterError(f"{free:.0f} GiB are free, and the build needs {FREE_GIB}", "make room, or make clean-cache")
    buildah.build_bases()
    sources = next((path for path in buildah.SOURCES if path.exists()), Path("/etc/apt/sources.list"))
    volume = f"{sources}:/etc/apt/sources.list.d/host{sources.suffix}:ro"
    with phase("build the runtime's image for GPUs"), tempfile.NamedTemporaryFile("w", prefix="pip-") as settings:
        settings.write("[global]\ntimeout = 300\n")
        settings.flush()
        base = buildah.base_image("build")  # that for pods has no apt, which the Dockerfile asks for a compiler
        given = (volume, base, NAME, ROOT / "runtime" / "Dockerfile", settings.name, ROOT)
        buildah.isolated("cuda-image", BUILD_SCRIPT, *given, timeout=2 * buildah.BUILD_SECONDS)
    with phase("look into it"):
        buildah.isolated("cuda-image-look", LOOK_SCRIPT, NAME, LOOK, timeout=buildah.BUILD_SECONDS)
    return NAME
