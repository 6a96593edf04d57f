"""What our Dockerfiles promise, and the torch without CUDA that the test cluster builds the runtime's image from."""

import ctypes
import re
import shutil
from pathlib import Path

import pytest

from cluster import store, torch_cpu
from cluster.paths import ROOT

DOCKERFILES = [ROOT / "runtime" / "Dockerfile", ROOT / "operator" / "Dockerfile"]


def stages(dockerfile: Path) -> dict[str, tuple[str, str]]:
    """A stage's name ("" for a last one without) → what it stands on, and its lines."""
    text = dockerfile.read_text().replace("\\\n", " ")
    parts = re.split(r"^FROM (\S+)(?: AS (\S+))?$", text, flags=re.MULTILINE)[1:]
    return {name or "": (base, lines) for base, name, lines in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def whole(dockerfile: Path, name: str) -> str:
    """A stage's lines, with those of the stages it stands on before them."""
    base, lines = stages(dockerfile)[name]
    return (whole(dockerfile, base) if base in stages(dockerfile) else f"FROM {base}\n") + lines


@pytest.mark.parametrize(
    ("dockerfile", "stage"), [(DOCKERFILES[0], "cpu"), (DOCKERFILES[0], "cuda"), (DOCKERFILES[1], "")]
)
def test_what_runs_in_a_pod_stands_on_the_small_base_and_runs_as_no_root(dockerfile: Path, stage: str) -> None:
    lines = whole(dockerfile, stage)
    assert lines.startswith("FROM ${BASE}\n")
    assert re.findall(r"^USER (\S+)$", lines, re.MULTILINE)[-1] == "10001:10001"
    assert re.findall(r"^ENTRYPOINT (.+)$", lines, re.MULTILINE)
    assert "pip install" not in lines


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_package_of_an_image_is_pinned(dockerfile: Path) -> None:
    installs = [line for line in dockerfile.read_text().replace("\\\n", " ").splitlines() if "pip install" in line]
    assert installs
    assert all("-c /src/.ci/constraints.txt" in line for line in installs)
    assert all("-c /src/.ci/constraints-torch.txt" in line for line in installs if "[" in line and "runtime" in line)
    assert all(re.search(r"^ARG \w+=\S+:\d+\.\d+\.\d+", dockerfile.read_text(), re.MULTILINE) for _ in installs)


def test_one_whole_image_of_the_runtime_is_kept_and_not_four() -> None:
    rows = [f"{store.LARGE}:{number} type sha256:{number} 1 linux -" for number in range(2)]
    table = "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows])
    assert store.surplus(table, wanted={f"{store.LARGE}:1"}) == [f"{store.LARGE}:0"]


def test_a_torch_without_cuda_asks_for_none_of_its_packages() -> None:
    told = "Name: torch\nVersion: 2.15.0\nRequires-Dist: triton~=3.9.0\nRequires-Dist: cuda-toolkit[cublas]==13\n"
    told += "Requires-Dist: nvidia-nccl-cu13==2\nRequires-Dist: sympy>=1.13\n\nVersion: in the text\n"
    assert torch_cpu.metadata(told, "2.15.0+x") == (
        "Name: torch\nVersion: 2.15.0+x\nRequires-Dist: sympy>=1.13\n\nVersion: in the text\n"
    )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="this machine has no C compiler")
def test_a_stand_in_exports_what_is_looked_up_and_says_that_there_is_no_device(tmp_path: Path) -> None:
    real = next(torch_cpu.site_packages().glob("nvidia/*/lib/libcudart.so.*"), None)
    if real is None:
        pytest.skip("the torch of this venv has no CUDA")
    (tmp_path / real.name).write_bytes(torch_cpu._stand_in(real, {"cudaGetDeviceCount", "memcpy"}, tmp_path))
    library = ctypes.CDLL(str(tmp_path / real.name))
    assert library.cudaGetDeviceCount() == torch_cpu.NO_DEVICE
    with pytest.raises(AttributeError):
        library.cudaFree  # noqa: B018
