"""An engine that raises: every request gets its end, and the process tells why it ends."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch

from minisgl.messages import DecodeParams, Finish, Generate, SamplingParams, Step
from minisgl.scheduler import process
from minisgl.scheduler.driver import Driver, unpack
from minisgl.termination import Memory, Reason

pytestmark = pytest.mark.cpu


class EndedError(Exception):
    """Stands for the end of the process."""


class Supervisor:
    """Keeps the reason that a child gives."""

    def fail(self, reason: Reason, message: str, memory: Memory) -> NoReturn:
        raise EndedError(reason, message, memory)


class Pipe(list[Step]):
    """Keeps what the detokenizer would get."""

    put = list.append


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")], ids=["host", "GPU"])
def test_a_prefill_without_memory_names_the_arguments_that_give_room(
    error: Exception, driver: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LAST_WORDS_SECONDS", 0)
    failing = driver()
    supervisor: Any = Supervisor()
    told: Any = Pipe()
    prompt = torch.arange(8, dtype=torch.int32).numpy().tobytes()
    failing.scheduler.add(Generate(7, prompt, SamplingParams(4), DecodeParams()))
    with pytest.raises(EndedError) as ended:
        process.fail(failing, told, supervisor, error)
    reason, sentence, memory = ended.value.args
    assert (reason, memory) == (Reason.OUT_OF_MEMORY, Memory.HOST)
    for flag in ("--memory-ratio", "--max-prefill-length", "--max-running-requests"):
        assert flag in sentence
    assert [(uid, finish) for step in told for uid, _, finish in unpack(step)] == [(7, Finish.ERROR)]
