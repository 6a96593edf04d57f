"""What one rank takes of its device's memory, and how many pages that leaves to the KV cache. Pure arithmetic.

share of the free memory
[ weights | activations | graphs | tables, slack | KV cache pages .... ]   at most what all requests together can use,
                                                                          at most --num-pages or --num-tokens
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from minisgl.errors import StartError
from minisgl.plan.config import EngineConfig
from minisgl.plan.weights import table_bytes, weight_bytes
from minisgl.termination import Memory, Reason

# A cache for less than this is not worth starting: a question and a short answer.
USEFUL_TOKENS = 256
# Allocator slack and libraries' own buffers, which no formula knows.
SLACK_BYTES = 128 * 2**20


class Need(NamedTuple):
    """Bytes of one rank beside its KV cache."""

    weights: int
    activations: int
    graphs: int
    other: int

    @property
    def total(self) -> int:
        return sum(self)


class CacheSize(NamedTuple):
    """The decision. `limited_by` is the argument that a user would change to get more."""

    pages: int
    limited_by: Literal["memoryRatio", "numPages", "numTokens"]


def need(config: EngineConfig, weights: int | None = None, activations: int | None = None) -> Need:
    """What the configuration predicts; `weights` and `activations` where they are known better."""
    return Need(
        weight_bytes(config) if weights is None else weights,
        config.working_bytes if activations is None else activations,
        config.graph_bytes,
        table_bytes(config) + SLACK_BYTES,
    )


def least_pages(config: EngineConfig) -> int:
    """Pages without which starting is not worth it."""
    return -(-min(USEFUL_TOKENS, config.context_length) // config.page_size)


def divide(config: EngineConfig, free: int, taken: Need) -> CacheSize:
    """Pages of one rank, of whose `free` bytes the rest is `taken`. Less than `least_pages` by memory: does not fit."""
    affordable = (int(free * config.memory_ratio) - taken.total) // config.page_bytes
    # More than every request at its longest is never used.
    useful = config.max_running_requests * -(-config.context_length // config.page_size)
    size = CacheSize(min(affordable, useful), "memoryRatio")
    if config.num_pages is not None and config.num_pages <= size.pages:
        size = CacheSize(config.num_pages, "numPages")
    if config.num_tokens is not None and config.num_tokens // config.page_size <= size.pages:
        size = CacheSize(config.num_tokens // config.page_size, "numTokens")
    return size


def check_tokens(config: EngineConfig) -> None:
    """Refuse a limit below one page."""
    if config.num_tokens is not None and config.num_tokens < config.page_size:
        raise StartError(
            Reason.INVALID_ARGUMENTS,
            f"--num-tokens {config.num_tokens} is less than one page of {config.page_size} tokens; "
            "raise it, or lower --page-size",
        )


def size_cache(config: EngineConfig, free: int, taken: Need) -> CacheSize:
    """Decide for one rank, which found `free` bytes before it loaded anything; StartError where they are too few."""
    check_tokens(config)
    size = divide(config, free, taken)
    least = least_pages(config)
    if size.limited_by == "memoryRatio" and size.pages < least:
        left = max(0, int(free * config.memory_ratio) - taken.total)
        raise StartError(
            Reason.OUT_OF_MEMORY,
            f"--memory-ratio {config.memory_ratio} of {_mib(free)} free memory leaves {_mib(left)} for the KV cache: "
            f"weights take {_mib(taken.weights)}, a step {_mib(taken.total - taken.weights)}, and "
            f"{least * config.page_size} tokens of cache {_mib(least * config.page_bytes)}. Give it more memory, raise "
            "--memory-ratio, or lower --max-prefill-length or --max-running-requests (--num-pages cannot help: it only "
            "lowers the limit)",
            memory=Memory.CACHE,
        )
    return size


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"
