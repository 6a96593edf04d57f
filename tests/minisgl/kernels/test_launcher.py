"""Triton's launcher without a C compiler: what an image carries is handed out, and loads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cuda_image import DRIVER_SCRIPT
from minisgl.errors import StartError
from minisgl.kernels import launcher

pytest.importorskip("triton")
pytestmark = pytest.mark.cpu
NEEDED = [name for name in ("gcc", "nm", "awk") if shutil.which(name) is None]


def python(code: str, **environ: str) -> str:
    """What it prints, in a process of its own: Triton keeps what it has once looked up."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": os.environ.get("HOME", "/"), **environ}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.skipif(bool(NEEDED), reason=f"{', '.join(NEEDED)} are missing")
def test_without_a_compiler_triton_loads_the_launcher_that_was_built(tmp_path: Path) -> None:
    driver, built, empty = tmp_path / "driver", tmp_path / "built", tmp_path / "empty"
    for folder in (driver, built, empty):
        folder.mkdir()
    path = {"PATH": os.environ["PATH"], "TRITON_CACHE_DIR": str(tmp_path / "first")}
    link = ["gcc", "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", str(driver / "libcuda.so.1")]
    subprocess.run(link, check=True)
    make = f"from pathlib import Path; from minisgl.kernels import launcher; launcher.main(Path({str(built)!r}))"
    python(make, **path, TRITON_LIBCUDA_PATH=str(driver))
    (library,) = built.iterdir()

    subprocess.run(["sh", "-c", DRIVER_SCRIPT, "sh", str(driver), str(library)], check=True)
    take = f"""
from pathlib import Path
from minisgl.kernels import launcher
assert not launcher.has_compiler()
launcher.offer(Path({str(built)!r}))
from triton.backends.nvidia.driver import CudaUtils
print(callable(CudaUtils().launch))
"""
    apart = {"PATH": str(empty), "LD_LIBRARY_PATH": str(driver), "TRITON_LIBCUDA_PATH": str(driver)}
    assert python(take, **apart, TRITON_CACHE_DIR=str(tmp_path / "second")) == "True"


@pytest.fixture
def nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "has_compiler", lambda: False)


@pytest.mark.usefixtures("nothing_compiles")
def test_a_launcher_of_another_triton_is_none(tmp_path: Path) -> None:
    (tmp_path / "cuda_utils-0123456789abcdef.so").touch()
    with pytest.raises(StartError, match=r"Triton needs a C compiler .* cuda_utils-\w{16}\."):
        launcher.offer(tmp_path)


def test_where_there_is_a_compiler_triton_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton import knobs

    monkeypatch.setenv("CC", "any")
    launcher.offer(tmp_path)
    assert knobs.build.impl is None


def test_only_the_launcher_is_handed_out(tmp_path: Path) -> None:
    hand_out = launcher.instead_of_compiling(tmp_path / "x.so")
    assert hand_out("cuda_utils", "driver.c", "", [], [], []) == str(tmp_path / "x.so")
    with pytest.raises(StartError, match="Triton wants to compile gsan"):
        hand_out("gsan", "gsan.c", "", [], [], [])
