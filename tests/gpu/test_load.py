"""Weights on a GPU: the bytes of the files, whole, converted or in part; no pinned memory stays; the start's phases."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minisgl.args import LaunchArgs
from minisgl.layers.weight import Slot
from minisgl.models import pieces
from minisgl.models.weights import load
from minisgl.scheduler.driver import build_engine
from support.checkpoints import save_tiny


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("piece_bytes", [3 * 96 * 4, pieces.PIECE_BYTES])
def test_a_gpu_gets_what_a_cpu_gets(
    stored: torch.dtype, kept: torch.dtype, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
    tensors = {f"a{i}": torch.randn(257, 96).to(stored) for i in range(12)}
    save_file(tensors, tmp_path / "model.safetensors")
    wanted = [Slot(name, torch.zeros(257, 96, dtype=kept, device="cuda")) for name in tensors]
    wanted += [Slot(name, torch.zeros(257, 32, dtype=kept, device="cuda"), 1, 64) for name in tensors]
    wanted += [Slot(name, torch.zeros(100, 96, dtype=kept, device="cuda"), 0, 100) for name in tensors]
    load(wanted, tmp_path)
    for slot in wanted:
        expected = tensors[slot.name].to(kept).narrow(slot.dim, slot.start, slot.target.shape[slot.dim])
        assert torch.equal(slot.target.cpu(), expected), slot.name


def test_no_pinned_memory_stays(tmp_path: Path) -> None:
    weight = torch.randn(4096, 4096).bfloat16()
    save_file({"a": weight}, tmp_path / "model.safetensors")
    before = torch.cuda.host_memory_stats()["allocated_bytes.current"]
    target = torch.empty(4096, 4096, dtype=torch.bfloat16, device="cuda")
    load([Slot("a", target)], tmp_path)
    assert torch.cuda.host_memory_stats()["allocated_bytes.current"] == before
    assert torch.equal(target.cpu(), weight)


def test_the_phases_of_a_start_come_in_order(tmp_path: Path) -> None:
    save_tiny(tmp_path, "qwen3", head_dim=64)
    phases: dict[str, None] = {}
    args = LaunchArgs(model_path=str(tmp_path), device="cuda", dtype="bfloat16", num_pages=64, memory_ratio=0.3)
    build_engine(args, phase=lambda name, done, total: phases.setdefault(name))
    assert list(phases) == ["weights", "trial", "kv-cache", "graphs"]
