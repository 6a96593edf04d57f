"""An outlook as a page for people, and as JSON for programs."""

from __future__ import annotations

import json
from typing import Any

from minisgl.argv import spelling
from minisgl.plan.outlook import Change, Outlook, explain, size


def as_json(outlook: Outlook, change: Change | None) -> str:
    """One object; bytes are those of one rank, except `memoryBytes`, which on a CPU all ranks share."""
    config, cache = outlook.config, outlook.cache
    shown: dict[str, Any] = {
        "architecture": config.model.architecture,
        "device": config.device,
        "dtype": config.dtype,
        "tensorParallelSize": config.tensor_parallel_size,
        "contextLength": config.context_length,
        "memoryBytes": outlook.memory,
        "freeBytes": outlook.free,
        "weightBytes": outlook.need.weights,
        "kvBytesPerToken": config.token_bytes,
        "activationBytes": outlook.need.activations,
        "graphBytes": outlook.need.graphs,
        "otherBytes": outlook.need.other,
        "cacheTokens": outlook.tokens,
        "limitedBy": None if cache is None else cache.limited_by,
        "fits": outlook.fits,
        "leastMemoryBytes": outlook.least_memory,
        "change": None if change is None else {spelling(change.field): change.value},
    }
    return json.dumps(shown, indent=2) + "\n"


def as_page(outlook: Outlook, change: Change | None, device: str) -> str:
    """What a person reads; `device` is what it is called."""
    config = outlook.config
    ranks = config.tensor_parallel_size
    lines = [
        f"{config.model.architecture}, {config.dtype}, {config.model.num_layers} layers, up to "
        f"{config.context_length:,} tokens of context, on {ranks} {'rank' if ranks == 1 else 'ranks'} ({device})",
        "",
        f"on {'the' if ranks == 1 else 'each'} rank",
        _line("weights", size(outlook.need.weights), f"{config.dtype}, as they are kept"),
        _line("activations", size(outlook.need.activations), f"a step of {config.max_step_tokens:,} tokens"),
        _line("graphs", size(outlook.need.graphs), f"{len(config.graph_shapes)} captured steps"),
        _line("other", size(outlook.need.other), "tables of positions, the allocator's slack"),
    ]
    cache = outlook.cache
    if cache is None:
        lines += [_line("KV cache", "?", f"{size(config.token_bytes)} a token; the memory of the device is not known")]
        lines += ["", f"at least {size(outlook.least_memory)} of memory are needed; --gpu or --memory gives a verdict"]
        return "\n".join(lines) + "\n"
    tokens = outlook.tokens or 0
    what = f"{tokens:,} tokens of {size(config.token_bytes)}, limited by {spelling(cache.limited_by)}"
    lines.append(_line("KV cache", size(cache.pages * config.page_bytes), what))
    lines.append("")
    if outlook.fits:
        longest = min(config.context_length, tokens)
        count = tokens // longest
        note = f"fits: {count} {'request' if count == 1 else 'requests'} of {longest:,} tokens at the same time"
        short = " (the context is shortened to the cache)" if longest < config.context_length else ""
        lines.append(note + short)
    else:
        lines += [f"does not fit: {explain(outlook)}", f"smallest change that fits: {mend(outlook, change)}"]
    return "\n".join(lines) + "\n"


def mend(outlook: Outlook, change: Change | None) -> str:
    """The smallest change, in the words of the command line."""
    whose = "for the server" if outlook.config.device == "cpu" else "per GPU"
    memory = f"at least {size(outlook.least_memory)} of memory {whose}"
    return memory if change is None else f"{spelling(change.field)} {change.value}; or {memory}"


def _line(name: str, amount: str, what: str) -> str:
    return f"  {name:<12}{amount:>10}  {what}"
