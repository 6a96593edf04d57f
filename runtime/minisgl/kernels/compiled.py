"""The C kernels as a library: compiled for this very CPU where there is a compiler, else taken from those that an image
carries, one for each level of CPU (`python -m minisgl.kernels.compiled FOLDER` makes them). Knows no torch.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from minisgl.errors import StartError
from minisgl.termination import Reason

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("native.c", "product.c")]
BUILT = HERE / "built"
CPU_INFO = Path("/proc/cpuinfo")
# Sums may be reordered, which vectors need; NaN keeps its meaning, which a failed request needs.
FLAGS = (
    "-O3",
    "-funroll-loops",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
)
COMPILE_SECONDS = 60.0

AVX2 = frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# The best first: a library's name, its compiler flags, what Linux must say of the CPU.
LEVELS = (
    ("x86-64-v4-bf16", ("-march=x86-64-v4", "-mavx512bf16"), AVX512 | {"avx512_bf16"}),
    ("x86-64-v4", ("-march=x86-64-v4",), AVX512),
    ("x86-64-v3", ("-march=x86-64-v3",), AVX2),
)


def compiler() -> str | None:
    """The machine's C compiler, if it has one."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def built(folder: Path = BUILT) -> Path | None:
    """The best of the libraries in `folder` that this CPU can run, if there is one."""
    if platform.machine() != "x86_64" or not folder.is_dir():
        return None
    has = next((set(line.split()) for line in CPU_INFO.read_text().splitlines() if line.startswith("flags")), set())
    names = (name for name, _, needs in LEVELS if needs <= has)
    return next((path for name in names if (path := folder / f"{name}.so").exists()), None)


def compile_into(target: Path, for_cpu: tuple[str, ...] = ("-march=native",)) -> None:
    """Raises StartError: there is no compiler, or it does not like our kernels."""
    if (found := compiler()) is None:
        raise StartError(
            Reason.DEVICE_UNAVAILABLE,
            "--attention-backend native needs a C compiler (cc, gcc or clang) on the PATH; "
            "install one, or use --attention-backend torch",
        )
    command = [found, *FLAGS, *for_cpu, "-shared", "-fPIC", "-o", str(target), *map(str, SOURCES), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise StartError(
            Reason.START_FAILED,
            f"--attention-backend native: {found} could not compile our kernels ({lines[0]}); "
            "use --attention-backend torch",
        )


def main(folder: Path) -> None:
    """Compile for all levels; for no other machine than x86-64."""
    folder.mkdir(parents=True, exist_ok=True)
    if platform.machine() == "x86_64":
        for name, flags, _ in LEVELS:
            compile_into(folder / f"{name}.so", flags)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
