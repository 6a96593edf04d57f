"""Real scheduler processes: one rank, two ranks that share a model, and their ends."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from minisgl.args import LaunchArgs
from minisgl.info import EngineFacts
from minisgl.messages import TO_DETOKENIZER, Abort, DecodeParams, Finish, Generate, SamplingParams, Step
from minisgl.process import ChildConfig, Failed, Heartbeats, Ready, Status
from minisgl.scheduler.driver import unpack
from minisgl.sockets import Inbox, Outbox
from support.checkpoints import oracle_greedy, save_tiny

pytestmark = pytest.mark.cpu

PROMPTS = [np.random.default_rng(size).integers(0, 96, size).tolist() for size in (1, 30, 5, 12)]


class Ranks:
    """The scheduler processes of one server; this test is their supervisor, front end and detokenizer."""

    def __init__(self, ipc: Path, **args: Any) -> None:
        launch = LaunchArgs(device="cpu", page_size=4, num_pages=32, **args)
        names = tuple(f"scheduler-{rank}" for rank in range(launch.tensor_parallel_size))
        self.heartbeats = Heartbeats(ipc, len(names))
        self.inbox: Inbox[Step] = Inbox(ipc, "detokenizer", TO_DETOKENIZER)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pipes: list[int] = []
        for rank in range(len(names)):
            reading, writing = os.pipe()
            config = ChildConfig("scheduler", rank, str(ipc), launch.model_dump(mode="json"), writing, rank, names)
            process = subprocess.Popen(
                [sys.executable, "-m", "minisgl.scheduler.process"],
                stdin=subprocess.PIPE,
                pass_fds=[writing],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            os.close(writing)
            assert process.stdin
            process.stdin.write(msgspec.json.encode(config) + b"\n")
            process.stdin.flush()
            self.processes.append(process)
            self.pipes.append(reading)
        self.outbox = Outbox(ipc, "scheduler")

    def last_status(self, rank: int = 0) -> Status:
        """Read to readiness or failure."""
        with os.fdopen(self.pipes[rank], "rb", closefd=False) as lines:
            for line in lines:
                status = msgspec.json.decode(line, type=Status)
                if isinstance(status, Ready | Failed):
                    return status
        raise AssertionError("the child ended without a word")

    def ask(self, uid: int, prompt: list[int], max_tokens: int = 10) -> None:
        sampling = SamplingParams(max_tokens, temperature=0, ignore_eos=True)
        self.outbox.put(Generate(uid, np.array(prompt, np.int32).tobytes(), sampling, DecodeParams()))

    def hear(self, count: int) -> tuple[dict[int, list[int]], dict[int, Finish]]:
        """Read results until `count` requests have ended."""
        tokens: dict[int, list[int]] = {}
        ends: dict[int, Finish] = {}
        deadline = time.monotonic() + 60
        while len(ends) < count:
            assert time.monotonic() < deadline
            step = self.inbox.get(1.0)
            assert step is not None, "stats come at least once a second"
            for uid, token, finish in unpack(step):
                tokens.setdefault(uid, []).extend([token] if token >= 0 else [])
                if finish != Finish.RUNNING:
                    ends[uid] = finish
        return tokens, ends

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate(timeout=20)
        for pipe in self.pipes:
            os.close(pipe)
        self.inbox.close()
        self.outbox.close()


@pytest.fixture
def ranks() -> Iterator[Callable[..., Ranks]]:
    with tempfile.TemporaryDirectory() as folder:
        started: list[Ranks] = []

        def start(**args: Any) -> Ranks:
            started.append(Ranks(Path(folder), **args))
            return started[-1]

        yield start
        for server in started:
            server.close()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_two_ranks_answer_as_one_model_does(family: str, ranks: Callable[..., Ranks], tmp_path: Path) -> None:
    oracle = save_tiny(tmp_path, family)
    server = ranks(model_path=str(tmp_path), tensor_parallel_size=2)
    ready = server.last_status()
    assert isinstance(ready, Ready)
    assert EngineFacts.model_validate(ready.facts).tensor_parallel_size == 2
    for uid, prompt in enumerate(PROMPTS):
        server.ask(uid, prompt)
    tokens, _ = server.hear(len(PROMPTS))
    assert [tokens[uid] for uid in range(len(PROMPTS))] == [oracle_greedy(oracle, prompt, 10) for prompt in PROMPTS]


def test_four_ranks_share_two_kv_heads(ranks: Callable[..., Ranks], tmp_path: Path) -> None:
    oracle = save_tiny(tmp_path, "llama")
    server = ranks(model_path=str(tmp_path), tensor_parallel_size=4)
    server.ask(0, PROMPTS[1])
    assert isinstance(server.last_status(), Ready)
    assert server.hear(1)[0][0] == oracle_greedy(oracle, PROMPTS[1], 10)


def test_one_rank_serves_aborts_and_beats(ranks: Callable[..., Ranks], tmp_path: Path) -> None:
    save_tiny(tmp_path)
    server = ranks(model_path=str(tmp_path))
    assert isinstance(server.last_status(), Ready)
    server.ask(0, PROMPTS[0], max_tokens=120)
    server.ask(1, PROMPTS[2], max_tokens=3)
    server.ask(2, PROMPTS[3], max_tokens=500)  # can never fit
    server.outbox.put(Abort(0))
    tokens, ends = server.hear(3)
    assert (ends[1], ends[2], len(tokens[1])) == (Finish.LENGTH, Finish.ERROR, 3)
    assert ends[0] == Finish.ABORT
    time.sleep(0.5)
    assert server.heartbeats.age_seconds(0) < 0.5


def test_a_process_ends_with_its_supervisor(ranks: Callable[..., Ranks], tmp_path: Path) -> None:
    save_tiny(tmp_path)
    server = ranks(model_path=str(tmp_path))
    assert isinstance(server.last_status(), Ready)
    pipe = server.processes[0].stdin
    assert pipe
    pipe.close()
    assert server.processes[0].wait(timeout=10) == 0
    server.processes[0].stdin = None


def test_a_size_that_does_not_divide_the_heads_is_one_clear_line(ranks: Callable[..., Ranks], tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # refused before weights are read
    server = ranks(model_path=str(tmp_path), tensor_parallel_size=3)
    failed = server.last_status()
    assert isinstance(failed, Failed)
    assert "sizes that work: 1, 2, 4" in failed.message
    assert server.processes[0].wait(timeout=10) == 1
