"""Which class computes which architecture.

To add a model:
1. Write `models/<family>.py` with a class named as in config.json's `architectures`, a `Decoder` with what differs:
   `adapt` reads the family's own settings, `feed_forward` builds another second half of a layer. `qwen2.py` is the
   smallest, `qwen3_moe.py` the largest example.
2. Add its line below.
3. Add its line to `tests/support/checkpoints.py`: every test of numbers then runs on it too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from minisgl.errors import StartError
from minisgl.termination import Reason

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
    """The class of an architecture, imported now; StartError names those that there are."""
    if architecture not in MODELS:
        raise StartError(
            Reason.UNSUPPORTED_MODEL,
            f"the model has architecture {architecture}, which cannot be served; this version serves "
            f"{', '.join(MODELS)}",
        )
    model: type[Decoder] = getattr(import_module(MODELS[architecture]), architecture)
    return model
