"""Which library of C kernels a machine takes: its compiler's, or one that the image carries."""

import ctypes
from pathlib import Path

import pytest

from minisgl.kernels import compiled, native

pytestmark = pytest.mark.cpu
NAMES = [name for name, _, _ in compiled.LEVELS]


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for each level, on a machine whose CPU a test describes."""
    for name in NAMES:
        (tmp_path / f"{name}.so").touch()
    monkeypatch.setattr(compiled, "CPU_INFO", tmp_path / "cpuinfo")
    return tmp_path


@pytest.mark.parametrize(("name", "needs"), [(name, needs) for name, _, needs in compiled.LEVELS])
def test_a_cpu_gets_the_best_library_that_it_can_run(carried: Path, name: str, needs: frozenset[str]) -> None:
    compiled.CPU_INFO.write_text(f"processor\t: 0\nflags\t\t: fpu {' '.join(sorted(needs))}\n")
    assert compiled.built(carried) == carried / f"{name}.so"
    compiled.CPU_INFO.write_text(f"flags : {' '.join(sorted(needs)[1:])}\n")
    assert compiled.built(carried) != carried / f"{name}.so"


def test_a_machine_without_libraries_or_with_an_old_cpu_gets_none(carried: Path) -> None:
    compiled.CPU_INFO.write_text("flags : fpu sse2\n")
    assert compiled.built(carried) is None
    assert compiled.built(carried / "none") is None


@pytest.mark.skipif(compiled.compiler() is None, reason="this machine has no C compiler")
def test_what_an_image_carries_has_every_function_and_runs_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled.main(tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.so")) == sorted(NAMES)
    found = compiled.built(tmp_path)
    if found is None:
        pytest.skip("this CPU has no AVX2")
    monkeypatch.setattr(native, "compiler", lambda: None)
    monkeypatch.setattr(native, "built", lambda: found)
    native.library.cache_clear()
    library = native.library()
    assert library._name == str(found)
    x, out = (ctypes.c_float * 2)(0.0, 3.0), (ctypes.c_float * 1)()
    library.gate_f32(ctypes.addressof(x), 1, 1, ctypes.addressof(out))
    assert out[0] == 0.0
    native.library.cache_clear()
