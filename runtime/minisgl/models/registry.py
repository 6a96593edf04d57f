"""Which class computes which architecture.

To add a model:
1. In `plan/families.py`, add its line, with a function that reads its own settings if it has some.
2. Write `models/<family>.py` with a class named as in config.json's `architectures`, a `Decoder` with what differs:
   `feed_forward` builds another second half of a layer. `llama.py` is the smallest, `qwen3_moe.py` the largest example.
3. Add its line below.
4. Add its line to `tests/support/checkpoints.py`: every test of numbers then runs on it too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minisgl.models.decoder import Decoder

MODELS = {
    "LlamaForCausalLM": "minisgl.models.llama",
    "MistralForCausalLM": "minisgl.models.mistral",
    "Qwen2ForCausalLM": "minisgl.models.qwen2",
    "Qwen3ForCausalLM": "minisgl.models.qwen3",
    "Qwen3MoeForCausalLM": "minisgl.models.qwen3_moe",
}


def find(architecture: str) -> type[Decoder]:
    """The class of an architecture that `plan.families` knows, imported now."""
    model: type[Decoder] = getattr(import_module(MODELS[architecture]), architecture)
    return model
