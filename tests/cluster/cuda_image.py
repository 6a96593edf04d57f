"""The runtime's image for GPUs: built from its Dockerfile, and looked into as far as a machine without a GPU can.

It is no part of a cluster here: gigabytes, of which containerd would keep another copy, for a node that has no driver.
What a first pod would meet beyond the driver is tried instead: that everything imports, that nothing on its file system
compiles, that what would have been compiled is there and loads, and that Triton compiles a kernel with what it brings
itself. The driver's library for that is made here and mounted: it has the functions that are asked for, and no GPU.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from cluster import buildah
from cluster.paths import ROOT
from cluster.say import ClusterError, phase

NAME = "localhost/minisgl-runtime:cuda"
FREE_GIB = 35  # its packages are stored four times on the way: their layer, its copy, and each while it is written
COMPILE_SECONDS = 3 * 3600  # FlashInfer's modules, where other work has the cores
BUILD_SCRIPT = """
set -eu
nice -n 10 $BUILDAH build --isolation chroot --network host --pull-never --layers $SECRETS --volume "$1" \\
    --target=cuda --build-arg BUILD_BASE="$2" --build-arg BASE="$3" --build-arg MAX_JOBS="$4" --tag "$5" --file "$6" \\
    --secret id=pip,src="$7" "$8"
"""
# A folder, and libraries: a libcuda with the functions that they ask of it.
DRIVER_SCRIPT = """
set -eu
folder=$1; shift
nm --dynamic --undefined-only "$@" | awk '$2 ~ /^cu[A-Z]/ && !seen[$2]++ {print "int " $2 "(void) {return 100;}"}' |
    cc -shared -fPIC -x c - -Wl,-soname,libcuda.so.1 -o "$folder/libcuda.so.1"
"""
LOOK_SCRIPT = """
set -eu
container=$($BUILDAH from --pull-never "$1")
$BUILDAH run --isolation chroot "$container" -- python3 -m minisgl --help
image=$($BUILDAH mount "$container")
sh -c "$2" sh "$3" $(find "$image/app" "$image/opt/venv/lib" -path '*/built/cuda_utils*.so' -o -path '*/aot/*.so')
$BUILDAH run --isolation chroot --volume "$3:/driver:ro" --env LD_LIBRARY_PATH=/driver \\
    --env TRITON_LIBCUDA_PATH=/driver --env FLASHINFER_CUDA_ARCH_LIST=9.0a "$container" -- python3 -c "$4" >&2
$BUILDAH rm "$container"
"""
LOOK = r"""
import os, re
import flash_attn.cute, flashinfer, quack.gemm_interface, torch, triton
from minisgl.attention import modules, prebuilt
from minisgl.kernels import launcher

assert os.getuid() == 10001
assert torch.version.cuda and not torch.cuda.is_available()
name = re.compile(r"(.*-)?(cc|gcc|[gc]\+\+|clang(\+\+)?|cc1(plus)?|tcc|nvcc|cicc|cudafe\+\+|ninja)(-[0-9.]+)?")
files = [os.path.join(at, each) for at, _, names in os.walk("/") for each in names if name.fullmatch(each)]
files = [each for each in files if not each.startswith(("/proc/", "/sys/")) and os.access(each, os.X_OK)]
assert not files, files

assert prebuilt.missing_tools() == ("nvcc", "a C++ compiler", "ninja"), prebuilt.missing_tools()
assert prebuilt.built_for() == ("9.0a",) and prebuilt.runs(prebuilt.built_for(), (9, 0))
for module in modules.carried(prebuilt.built_for()):
    spec = module.spec()
    assert prebuilt.has(module), spec.name
    assert spec.try_load() is not None, spec.name
print("loaded", len(modules.carried(prebuilt.built_for())), "modules of FlashInfer's")

launcher.offer()
from triton.backends.nvidia.driver import CudaUtils
print("loaded Triton's launcher:", CudaUtils().launch)

from minisgl.kernels.gate import _gate
from triton.backends.compiler import GPUTarget
shape = {"width": 3072, "block": 1024, "chained": True}
source = triton.compiler.ASTSource(_gate, {"both": "*bf16", "out": "*bf16", **dict.fromkeys(shape, "constexpr")}, shape)
print("compiled a kernel of ours:", len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]), "bytes")
"""


def build() -> str:
    """Build it, look into it, and return the name it has in buildah's store."""
    buildah.WHERE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(buildah.WHERE).free / 2**30
    if free < FREE_GIB:
        raise ClusterError(f"{free:.0f} GiB are free, and the build needs {FREE_GIB}", "make room, or make clean-cache")
    buildah.build_bases()
    sources = next((path for path in buildah.SOURCES if path.exists()), Path("/etc/apt/sources.list"))
    # Our base names no package sources, and a stage asks for a C++ compiler.
    volume = f"{sources}:/etc/apt/sources.list.d/host{sources.suffix}:ro"
    with phase("build the runtime's image for GPUs"), tempfile.NamedTemporaryFile("w", prefix="pip-") as settings:
        settings.write("[global]\ntimeout = 300\n")
        settings.flush()
        bases = (buildah.base_image("build"), buildah.base_image("pod"))
        given = (volume, *bases, os.cpu_count(), NAME, ROOT / "runtime" / "Dockerfile", settings.name, ROOT)
        buildah.isolated("cuda-image", BUILD_SCRIPT, *given, timeout=COMPILE_SECONDS)
    with phase("look into it"), tempfile.TemporaryDirectory(prefix="driver-") as driver:
        Path(driver).chmod(0o755)  # for the image's user
        buildah.isolated(
            "cuda-image-look", LOOK_SCRIPT, NAME, DRIVER_SCRIPT, driver, LOOK, timeout=buildah.BUILD_SECONDS
        )
    return NAME
