"""Does a model fit its devices? The prediction for one rank, the verdict with numbers, and the smallest change.

What is not known is not judged: without the device's memory there are figures and no verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisgl.args import LaunchArgs
from minisgl.errors import StartError, UsageError
from minisgl.plan.config import EVERYTHING, EngineConfig
from minisgl.plan.device import free_at_start, memory_for
from minisgl.plan.memory import CacheSize, Need, check_tokens, divide, least_pages, need
from minisgl.plan.model import ModelConfig

LARGEST_SERVER = 8  # GPUs of one machine: a change to more ranks is not proposed
# What may be changed, the mildest first: steps, streams and graphs cost speed, 16 bits accuracy, ranks money.
STEPS, STREAMS, GRAPHS, RATIO = (4096, 2048, 1024, 512, 256), (128, 64, 32, 16, 8), (64, 8, 0), 0.95


@dataclass(frozen=True)
class Outlook:
    """One rank's figures. `memory`: bytes of its GPU, or what all ranks on a CPU share; None: not known."""

    config: EngineConfig
    memory: int | None
    need: Need

    @property
    def free(self) -> int | None:
        """Bytes that the rank will find free at its start."""
        if self.memory is None:
            return None
        return free_at_start(self.config.device, self.memory, self.config.tensor_parallel_size)

    @property
    def cache(self) -> CacheSize | None:
        """The KV cache's size, of at least no page; None: not known."""
        if self.free is None:
            return None
        size = divide(self.config, self.free, self.need)
        return size._replace(pages=max(0, size.pages))

    @property
    def tokens(self) -> int | None:
        """Tokens that the KV cache will hold."""
        return None if self.cache is None else self.cache.pages * self.config.page_size

    @property
    def fits(self) -> bool | None:
        """The verdict; None: not known."""
        size = self.cache
        return None if size is None else size.limited_by != "memoryRatio" or size.pages >= least_pages(self.config)

    @property
    def least_memory(self) -> int:
        """Memory that is just enough, in the sense of `memory`."""
        config = self.config
        pages = least_pages(config)
        if config.num_pages is not None:
            pages = min(pages, config.num_pages)
        if config.num_tokens is not None:
            pages = min(pages, config.num_tokens // config.page_size)
        used = self.need.total + pages * config.page_bytes
        return memory_for(config.device, int(used / config.memory_ratio) + 1, config.tensor_parallel_size)


@dataclass(frozen=True)
class Change:
    """One launch argument with the value that makes the model fit."""

    field: str
    value: int | float | str


def predict(args: LaunchArgs, model: ModelConfig, device: str, memory: int | None) -> Outlook:
    """The prediction for "cpu" or "cuda". UsageError or StartError where the arguments cannot work with this model."""
    config = EngineConfig.resolve(args, model, device, EVERYTHING)
    check_tokens(config)
    return Outlook(config, memory, need(config))


def smallest_change(args: LaunchArgs, model: ModelConfig, device: str, memory: int) -> Change | None:
    """The mildest change of one argument that fits; None: only more memory helps."""
    config = EngineConfig.resolve(args, model, device, EVERYTHING)
    changes = [Change("max_prefill_length", n) for n in STEPS if n < config.max_step_tokens]
    changes += [Change("max_running_requests", n) for n in STREAMS if n < config.max_running_requests]
    changes += [Change("cuda_graph_max_bs", n) for n in GRAPHS if n < config.graph_max_batch]
    if device == "cuda" and config.memory_ratio < RATIO:
        changes.append(Change("memory_ratio", RATIO))
    if config.dtype == "float32":
        changes.append(Change("dtype", "bfloat16"))
    if device == "cuda":  # ranks on a CPU share its memory
        changes += [
            Change("tensor_parallel_size", n) for n in range(config.tensor_parallel_size + 1, LARGEST_SERVER + 1)
        ]
    for change in changes:
        try:
            if predict(args.model_copy(update={change.field: change.value}), model, device, memory).fits:
                return change
        except (StartError, UsageError):
            continue  # such as ranks that do not divide the heads
    return None


def explain(outlook: Outlook) -> str:
    """The verdict's numbers as one sentence; the memory must be known."""
    config, taken = outlook.config, outlook.need
    assert outlook.free is not None, "nothing is judged without the memory"
    assert outlook.memory is not None
    least = least_pages(config)
    share = int(outlook.free * config.memory_ratio)
    whose = "rank" if config.device == "cpu" else "GPU"
    return (
        f"{config.model.architecture} needs {size(taken.total + least * config.page_bytes)} per {whose} "
        f"(weights {size(taken.weights)}, activations {size(taken.activations)}, graphs {size(taken.graphs)}, other "
        f"{size(taken.other)}, KV cache of {least * config.page_size} tokens {size(least * config.page_bytes)}), but "
        f"memoryRatio {config.memory_ratio} of what is free of {size(outlook.memory)} is {size(share)}"
    )


def size(num_bytes: int) -> str:
    """Bytes as people read them: three digits, binary units."""
    if not num_bytes:
        return "0"
    for power, unit in ((3, "GiB"), (2, "MiB")):
        if num_bytes >= 1024**power:
            return f"{num_bytes / 1024**power:.{1 if num_bytes < 100 * 1024**power else 0}f} {unit}"
    return f"{num_bytes / 1024:.1f} KiB"
