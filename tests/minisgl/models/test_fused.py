"""The GPU's flow through the layers, with the kernels' twins in their place, computes what the plain one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from minisgl.args import LaunchArgs
from minisgl.kernels.gate import gate_twin
from minisgl.kernels.norm import add_norm_twin
from minisgl.messages import SamplingParams
from minisgl.models import fused
from minisgl.models.fused import FusedLayers
from minisgl.scheduler.driver import Driver, build_engine

pytestmark = pytest.mark.cpu

TWINS = {"add_norm": add_norm_twin, "gate": gate_twin}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


@pytest.mark.parametrize("family", ["llama", "llama+biased+llama3", "qwen2+tied", "qwen3+yarn", "qwen3_moe"])
def test_fused_layers_answer_as_plain_ones(
    family: str, checkpoint: Callable[[str], tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
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
    assert ours.generate(PROMPTS, greedy) == plain.generate(PROMPTS, greedy)
