"""How many pages the KV cache gets, and what limited it. Pure arithmetic; the engine measures and allocates.

share of the free memory
[ weights | working memory of a step | graphs | KV cache pages ........ ]   at most what all requests together can use,
                                                                           at most --num-pages or --num-tokens
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from minisgl.engine.config import EngineConfig
from minisgl.errors import StartError
from minisgl.termination import Memory, Reason

# A cache for less than this is not worth starting: a question and a short answer.
USEFUL_TOKENS = 256
# Allocator slack and libraries' own buffers, which no formula knows.
SLACK_BYTES = 128 * 2**20


class CacheSize(NamedTuple):
    """The decision. `limited_by` is the argument that a user would change to get more."""

    pages: int
    limited_by: Literal["memoryRatio", "numPages", "numTokens"]


def size_cache(config: EngineConfig, free_before: int, weight_bytes: int, working_bytes: int) -> CacheSize:
    """Decide for one rank: `free_before` bytes were its own before it loaded `weight_bytes`; a step takes
    `working_bytes` (measured, or the configuration's estimate).
    """
    taken = weight_bytes + working_bytes + config.graph_bytes + SLACK_BYTES
    affordable = (int(free_before * config.memory_ratio) - taken) // config.page_bytes
    # More than every request at its longest is never used.
    useful = config.max_running_requests * -(-config.context_length // config.page_size)
    size = CacheSize(min(affordable, useful), "memoryRatio")
    if config.num_pages is not None and config.num_pages <= size.pages:
        size = CacheSize(config.num_pages, "numPages")
    if config.num_tokens is not None and config.num_tokens // config.page_size <= size.pages:
        size = CacheSize(config.num_tokens // config.page_size, "numTokens")
    if size.pages < 1 and size.limited_by == "numTokens":
        raise StartError(
            Reason.INVALID_ARGUMENTS,
            f"--num-tokens {config.num_tokens} is less than one page of {config.page_size} tokens; "
            "raise it, or lower --page-size",
        )
    least = min(USEFUL_TOKENS, config.context_length)
    if size.limited_by == "memoryRatio" and size.pages * config.page_size < least:
        raise StartError(
            Reason.OUT_OF_MEMORY,
            f"--memory-ratio {config.memory_ratio} of {_mib(free_before)} free memory leaves "
            f"{_mib(max(0, affordable) * config.page_bytes)} for the KV cache: weights take {_mib(weight_bytes)}, "
            f"a step {_mib(taken - weight_bytes)}, and {least} tokens of cache "
            f"{_mib(-(-least // config.page_size) * config.page_bytes)}. Give it more memory, raise --memory-ratio, or "
            "lower --max-prefill-length or --max-running-requests (--num-pages cannot help: it only lowers the limit)",
            memory=Memory.CACHE,
        )
    return size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left; torch has a class of its own for GPUs alone."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def which_memory(error: BaseException, device: str) -> Memory:
    """The memory that `error` is about, on a rank of this device: a MemoryError is always the host's."""
    return Memory.HOST if device == "cpu" or isinstance(error, MemoryError) else Memory.DEVICE


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "bad allocation")

NO_ROOM_FOR_WEIGHTS = (
    "out of memory while loading the weights; give it more memory, a smaller --dtype, or share the model over more "
    "devices with --tensor-parallel-size"
)
NO_ROOM_FOR_CACHE = (
    "out of memory while making the KV cache: others took memory that was free a moment ago; lower --memory-ratio, or "
    "limit the cache with --num-pages"
)
NO_ROOM_FOR_STEP = (
    "out of memory while computing a step; lower --memory-ratio or --max-prefill-length (or --max-running-requests), "
    "so that more is left for the work beside the cache"
)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"
