"""Triton's launcher: the one module that Triton compiles with a C compiler, when a process first meets a GPU.

An image, which has no compiler, carries it (`python -m minisgl.kernels.launcher FOLDER` makes it). For the kernels
themselves Triton brings all it needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from minisgl.errors import StartError
from minisgl.termination import Reason

BUILT = Path(__file__).parent / "built"
MODULE = "cuda_utils"  # Triton's name for it


def offer(folder: Path = BUILT) -> None:
    """Where Triton would find no C compiler, have it take the launcher from `folder`."""
    if has_compiler():
        return
    path = folder / file_name(_source())
    if not path.exists():
        raise StartError(
            Reason.DEVICE_UNAVAILABLE,
            "Triton needs a C compiler (gcc or clang) on the PATH to launch kernels on a GPU, and there is none, nor "
            f"{path.name} of an image; install one, or use the image with the Triton that it was built with",
        )
    from triton import knobs

    knobs.build.impl = instead_of_compiling(path)


def has_compiler() -> bool:
    """Whether Triton finds one: it looks no further."""
    return bool(os.environ.get("CC")) or any(shutil.which(name) for name in ("gcc", "clang"))


def instead_of_compiling(path: Path) -> Callable[..., str]:
    """A `triton.knobs.build.impl`: it is given a module's name and sources, and answers with a library's path."""

    def hand_out(name: str, *_: object) -> str:
        if name != MODULE:
            raise StartError(
                Reason.START_FAILED,
                f"Triton wants to compile {name}, and there is no C compiler; install gcc or clang",
            )
        return str(path)

    return hand_out


def file_name(source: Path) -> str:
    """It belongs to one Triton and to one Python."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    return f"{MODULE}-{digest}{sysconfig.get_config_var('EXT_SUFFIX')}"


def _source() -> Path:
    package = find_spec("triton")
    assert package is not None, "torch for GPUs brings Triton"
    assert package.origin is not None
    return Path(package.origin).parent / "backends" / "nvidia" / "driver.c"


def main(folder: Path) -> None:
    """Compile it as Triton would; TRITON_LIBCUDA_PATH names a folder with a libcuda.so.1 to link against."""
    from triton.backends.nvidia import driver
    from triton.runtime.build import compile_so_from_file

    folder.mkdir(parents=True, exist_ok=True)
    made = compile_so_from_file(
        src_path=str(_source()),
        name=MODULE,
        library_dirs=driver.library_dirs(),
        include_dirs=driver.include_dirs,
        libraries=driver.libraries,
        # Linked against an empty one, the driver's library would not be named as needed.
        ccflags=["-Wl,--no-as-needed", *(f"-l:{name}" for name in driver.libraries)],
    )
    shutil.copyfile(made, folder / file_name(_source()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
