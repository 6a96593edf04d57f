"""Two ranks, one of them this process: the same answers, and no way to hang or to leave a process behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from minisgl import LLM, SamplingParams
from minisgl.errors import BackendDied, StartError
from support.server import descendants, is_alive, wait_gone

pytestmark = pytest.mark.cpu

GREEDY = SamplingParams(temperature=0, max_tokens=16)
PROMPTS = ["Once upon a time", "1, 2, 3", "The sea", "x"]


def test_two_ranks_answer_as_one_does_and_end_with_the_block(talker: tuple[Path, Any]) -> None:
    with LLM(str(talker[0]), device="cpu", num_tokens=512) as llm:
        alone = llm.generate(PROMPTS, GREEDY)
    before, pipes = set(descendants(os.getpid())), open_pipes()
    with LLM(str(talker[0]), device="cpu", num_tokens=512, tensor_parallel_size=2) as llm:
        (rank,) = set(descendants(os.getpid())) - before
        assert llm.facts.tensor_parallel_size == 2
        assert llm.generate(PROMPTS, GREEDY) == alone
    assert not is_alive(rank)
    assert open_pipes() == pipes


def open_pipes() -> set[str]:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if link.is_symlink() and os.readlink(link).startswith("pipe:")}


def test_a_killed_rank_is_an_error_within_seconds(talker: tuple[Path, Any]) -> None:
    before = set(descendants(os.getpid()))
    with LLM(str(talker[0]), device="cpu", num_tokens=2048, tensor_parallel_size=2) as llm:
        (rank,) = set(descendants(os.getpid())) - before
        killed_at: list[float] = []

        def kill(indices: object) -> None:
            if not killed_at:
                killed_at.append(time.monotonic())
                os.kill(rank, signal.SIGKILL)

        with pytest.raises(BackendDied, match="scheduler-1 was killed by SIGKILL"):
            llm.generate(PROMPTS * 100, SamplingParams(max_tokens=200, ignore_eos=True), progress=kill)
        assert time.monotonic() - killed_at[0] < 5
        with pytest.raises(BackendDied, match="make another"):
            llm.generate("x", GREEDY)


def test_a_rank_that_cannot_start_says_why(talker: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match="sizes that work: 1, 2, 4"):
        LLM(str(talker[0]), device="cpu", tensor_parallel_size=3)
    monkeypatch.setattr("minisgl.llm.ranks.MODULES", {"scheduler": "minisgl.no_such_module"})
    began = time.monotonic()
    with pytest.raises(BackendDied, match="scheduler-1 ended with code 1"):
        LLM(str(talker[0]), device="cpu", tensor_parallel_size=2)
    assert time.monotonic() - began < 20


CALLER = """
import sys
from minisgl import LLM, SamplingParams
llm = LLM(sys.argv[1], device="cpu", num_tokens=512, tensor_parallel_size=2)
print("ready", flush=True)
while True:
    llm.generate([[1, 2, 3]], SamplingParams(max_tokens=100, ignore_eos=True))
"""


def test_a_killed_caller_leaves_no_process_behind(talker: tuple[Path, Any]) -> None:
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(talker[0])], stdout=subprocess.PIPE)
    watchdog = threading.Timer(60, caller.kill)
    watchdog.start()
    try:
        assert caller.stdout
        assert caller.stdout.readline() == b"ready\n"
        ranks = descendants(caller.pid)
        assert len(ranks) == 1
    finally:
        caller.kill()
        caller.communicate()
        watchdog.cancel()
    wait_gone(ranks, 5)
