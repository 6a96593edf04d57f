"""Which parser reads a model's tool calls: the one that was asked for, or what its chat template tells."""

from __future__ import annotations

from minisgl.server.answer.hermes import HermesParser
from minisgl.server.answer.llama3 import Llama3Parser
from minisgl.server.answer.parser import ToolParser
from minisgl.server.answer.pythonic import PythonicParser

PARSERS: dict[str, type[ToolParser]] = {
    "hermes": HermesParser,
    "qwen25": HermesParser,  # Qwen 2.5's and 3's calls are Hermes'
    "llama3": Llama3Parser,
    "pythonic": PythonicParser,
}
