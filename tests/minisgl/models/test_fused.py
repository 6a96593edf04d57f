"""The GPU's flow through the layers, with the kernels' twins in their place, computes what the plain one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("triton")

from minisgl.args import LaunchArgs
from minisgl.attention import geometry
from minisgl.attention.torch import TorchAttention
from minisgl.kernels.gate import gate_twin
from minisgl.kernels.heads import place_heads_twin
from minisgl.kernels.norm import add_norm_twin
from minisgl.messages import SamplingParams
from minisgl.models import fused
from minisgl.models.fused import FusedLayers
from minisgl.scheduler.driver import Driver, build_engine

pytestmark = pytest.mark.cpu

TWINS = {"add_norm": add_norm_twin, "gate": gate_twin, "place_heads": place_heads_twin}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


class StoredAttention(TorchAttention):
    """Reads keys and values from the cache that others have stored: a prefill as its tokens one by one."""

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        positions = geometry.positions(starts, counts).astype(np.int32)
        owner = np.repeat(np.arange(len(counts)), counts)
        super().begin(positions, np.ones_like(positions), pages[owner])
        self.slots = self._slots

    def attend_stored(self, layer: int, q: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        return self._decode(layer, q)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("family", ["llama", "llama+biased+llama3", "qwen2+tied", "qwen3+yarn", "qwen3_moe"])
def test_fused_layers_answer_as_plain_ones(
    family: str, stored: bool, checkpoint: Callable[[str], tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = checkpoint(family)
    for name, twin in TWINS.items():
        monkeypatch.setattr(fused, name, twin)

    def driver() -> Driver:
        return Driver(build_engine(LaunchArgs(model_path=str(folder), page_size=4, num_pages=64, device="cpu")))

    greedy = SamplingParams(12, temperature=0, ignore_eos=True)
    plain, ours = driver(), driver()
    model = ours.engine.model
    model.fused = FusedLayers(model.layers, model.norm, model.rotary)
    calls = []
    monkeypatch.setattr(fused, "place_heads", lambda *args: calls.append(1) or place_heads_twin(*args))
    if stored:
        ours.engine.attention = StoredAttention(ours.engine.pool, model.num_heads)
    assert ours.generate(PROMPTS, greedy) == plain.generate(PROMPTS, greedy)
    assert bool(calls) == stored
