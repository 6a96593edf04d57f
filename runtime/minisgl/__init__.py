"""MiniSGL's runtime: serves one large language model over an OpenAI-compatible HTTP endpoint.

`from minisgl import LLM, SamplingParams` is the offline API; nothing of it is imported before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisgl.llm import LLM, Output, SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "Output", "SamplingParams", "__version__"]


def __getattr__(name: str) -> Any:
    """The offline API, at its first use: servers and the operator's image know only `__version__`."""
    if name in ("LLM", "Output", "SamplingParams"):
        return getattr(importlib.import_module("minisgl.llm"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
