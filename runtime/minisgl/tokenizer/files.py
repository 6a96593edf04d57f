"""Where the model's words are: tokenizer.json, tokenizer_config.json and the chat template of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from minisgl.errors import StartError
from minisgl.termination import Reason


def load_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{folder} has no tokenizer.json; save the model's fast tokenizer")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{path} is not a tokenizer: {error}") from error


def load_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, or nothing."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    return config if isinstance(config, dict) else {}


def load_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template: its own file, else the configuration's (one text, or several by name); None without one."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(path, error) from error
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {item["name"]: item["template"] for item in template}.get("default")
    return template if isinstance(template, str) else None


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token` and its siblings, as a template reads them."""
    found = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found[name] = token
    return found


def unreadable(path: Path, error: Exception) -> StartError:
    """A file that is there and cannot be read."""
    why = error.strerror if isinstance(error, OSError) else error
    return StartError(Reason.MODEL_LOAD_FAILED, f"{path} cannot be read: {why}; check its owner and mode")
