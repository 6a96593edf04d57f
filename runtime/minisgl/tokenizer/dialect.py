"""What a model's chat template tells of the way it answers: which tool calls, which reasoning. Pure looking."""

from __future__ import annotations

import re
from typing import Literal

from minisgl.process import Dialect


def dialect_of(template: str | None) -> Dialect:
    if template is None:
        return Dialect()
    return Dialect(_tools(template), _reasoning(template))


def _tools(template: str) -> Literal["hermes", "llama3", "pythonic"] | None:
    if not re.search(r"\btools\b", template):
        return None
    if "<tool_call>" in template:
        # Qwen3-Coder and GLM write the same mark around XML.
        return None if "<function=" in template or "<arg_key>" in template else "hermes"
    if re.search(r"\[func_name1\(params_name1=|<\|python_start\|>", template):
        return "pythonic"
    if "<|python_tag|>" in template or ("<|start_header_id|>" in template and '"parameters"' in template):
        return "llama3"
    return None


def _reasoning(template: str) -> Literal["qwen3", "deepseek-r1"] | None:
    if "</think>" not in template:
        return None
    return "deepseek-r1" if "<\uff5cAssistant\uff5c>" in template else "qwen3"
