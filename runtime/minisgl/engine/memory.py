"""What running out of memory looks like, and the sentence for each moment at which it happens."""

from __future__ import annotations

from minisgl.termination import Memory


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
