"""A1 and A2: whoever is killed, whenever: open requests end, the server ends, nothing stays, and the log says who.

Eight of the 24 cases of A1 run with the fake scheduler each time, so that each process and each phase is met; and one
with real ranks, by the command line that users type. `make faults` runs all, with both.
"""

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import SLACK, TINY, Server, Stream, running, wait_gone

pytestmark = pytest.mark.cpu

PROCESSES = ("scheduler-0", "scheduler-1", "tokenizer-0", "detokenizer")
PHASES = ("loading", "warm-up", "idle", "prefill", "decode", "drain")
EVERY_RUN = {
    ("fake", "scheduler-0", "warm-up"),
    ("fake", "scheduler-0", "prefill"),
    ("fake", "scheduler-1", "loading"),
    ("fake", "scheduler-1", "decode"),
    ("fake", "tokenizer-0", "idle"),
    ("fake", "tokenizer-0", "drain"),
    ("fake", "detokenizer", "loading"),
    ("fake", "detokenizer", "decode"),
}
TREE = ("--tp=2", "--num-tokenizer=1")
STEP = {"fake": "step=0.02", "faulty": "step=0.05"}
STAYS = 670  # the fake scheduler's seed for a request that never gets a first token


def cases() -> list[Any]:
    every = [(engine, process, phase) for engine in STEP for process in PROCESSES for phase in PHASES]
    marks = {True: (), False: (pytest.mark.faults,)}
    return [pytest.param(*case, marks=marks[case in EVERY_RUN], id="-".join(case)) for case in every]


def bring_to(phase: str, server: Server, engine: str) -> Stream | None:
    """Let the server come to this phase; with a request in it where there can be one."""
    if phase in ("loading", "warm-up"):
        server.wait_phase("scheduler-0", {"loading": "weights", "warm-up": "warm-up"}[phase])
        server.wait_for(lambda: len(server.pids()) >= 4, 10)
        return None
    server.wait_ready()
    if phase == "idle":
        return None
    if phase == "prefill":
        # Real ranks: 2000 tokens in chunks of 16, each 0.05 s.
        prompt, fields = ("abc", {"seed": STAYS}) if engine == "fake" else ([65] * 2000, {"max_tokens": 2000})
        stream = Stream(server, prompt, wait_lines=0, **fields)
        server.wait_for(lambda: server.metric("minisgl_requests_running") == 1, 10)
        return stream
    stream = Stream(server)
    if phase == "drain":
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: not is_ready(server), 5)
    return stream


def is_ready(server: Server) -> bool:
    try:
        return server.client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def assert_error_event(line: str) -> None:
    error = json.loads(line.removeprefix("data: "))["error"]
    assert error["message"]
    assert error["type"] == "server_error"


def smallest_tree(process: str) -> tuple[str, ...]:
    """Flags of a server that has this process: each process costs a second of its start."""
    ranks = ("--tp=2",) if process == "scheduler-1" else ()
    return (*ranks, "--num-tokenizer=1") if process == "tokenizer-0" else ranks


def faults_of(phase: str, engine: str) -> str:
    hold = {"loading": "hold=weights:60,", "warm-up": "hold=warm-up:60,"}.get(phase, "")
    return hold + STEP[engine]


@pytest.mark.parametrize(("engine", "process", "phase"), cases())
def test_a_killed_child_ends_the_server(model: Path, engine: Any, process: str, phase: str) -> None:
    flags = (*TREE, *TINY, "--max-prefill-length=16") if engine == "faulty" else smallest_tree(process)
    with Server(model, *flags, scheduler=engine, fake=faults_of(phase, engine)) as server:
        stream = bring_to(phase, server, engine)
        pids = server.pids()
        killed = time.monotonic()
        os.kill(pids[process], signal.SIGKILL)
        assert is_unready_within(server, 1 * SLACK)
        assert server.wait_end(5 * SLACK) == 70
        if stream:
            assert_error_event(stream.last(2 * SLACK))
        wait_gone(list(pids.values()), 5 * SLACK - (time.monotonic() - killed))
        where = {"loading": "start phase", "warm-up": "start phase"}.get(phase, "while serving")
        [died] = [line for line in server.log.splitlines() if " died " in line]
        assert f"{process} was killed by SIGKILL" in died
        assert where in died
        left = json.loads(server.termination_path.read_text())
        assert (left["reason"], left["process"]) == ("ChildDied", process)


def is_unready_within(server: Server, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while is_ready(server):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("phase", ["decode", pytest.param("idle", marks=pytest.mark.faults)])
def test_a_killed_front_end_ends_the_server(model: Path, phase: str) -> None:
    with Server(model, fake=STEP["fake"]) as server:
        stream = bring_to(phase, server, "fake")
        pids = server.pids()
        os.kill(pids["frontend"], signal.SIGKILL)
        assert server.wait_end(5 * SLACK) == 70
        wait_gone(list(pids.values()), 5)
        assert "frontend was killed by SIGKILL while serving" in server.log
        if stream:
            assert stream.last().startswith("broken")


def test_a_child_that_ends_without_a_word_is_named_with_its_phase(model: Path) -> None:
    with Server(model, fake="die") as server:
        assert server.wait_end(20) == 70
        last = server.log.splitlines()[-1]
        assert last.startswith("minisgl: scheduler-0 ended with code 9 in start phase weights (for ")
        assert "since" in last


MAIN_EVERY_RUN = ("loading", "decode")


@pytest.mark.parametrize(
    "phase", [pytest.param(phase, marks=() if phase in MAIN_EVERY_RUN else pytest.mark.faults) for phase in PHASES]
)
def test_a_killed_main_process_leaves_nobody_and_a_free_port(model: Path, phase: str) -> None:
    with Server(model, fake=faults_of(phase, "fake")) as server:
        bring_to(phase, server, "fake")
        pids = list(server.pids().values())
        server.process.kill()
        wait_gone(pids, 2 * SLACK)
        port = int(server.url.rpartition(":")[2])
    assert is_free_within(port, 2 * SLACK)


def is_free_within(port: int, seconds: float) -> bool:
    """Whether the next server could listen there; a process's sockets close a moment after it counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.socket() as successor:
            successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            successor.bind(("127.0.0.1", port))
            return True
        time.sleep(0.05)
    return False


@pytest.mark.faults
def test_a_server_that_starts_on_the_port_of_a_killed_one_serves(model: Path) -> None:
    with running(model, fake=STEP["fake"]) as server:
        streams = [Stream(server) for _ in range(4)]
        server.process.kill()
        assert all(stream.last().startswith("broken") for stream in streams)
        port = server.url.rpartition(":")[2]
    with running(model, f"--port={port}") as again:
        assert {again.complete("abc", max_tokens=1).status_code for _ in range(1000)} == {200}


@pytest.mark.faults
def test_a_killed_main_process_leaves_no_real_rank(model: Path) -> None:
    with Server(model, *TREE, *TINY, scheduler="faulty", fake=STEP["faulty"]) as server:
        bring_to("decode", server, "faulty")
        pids = list(server.pids().values())
        server.process.kill()
        wait_gone(pids, 2 * SLACK)


def test_the_command_line_that_users_type_dies_as_one_too(model: Path) -> None:
    with running(model, *TREE, *TINY, module="minisgl") as server:
        stream = Stream(server)
        pids = server.pids()
        assert len(pids) == 6
        os.kill(pids["scheduler-1"], signal.SIGKILL)
        assert server.wait_end(5 * SLACK) == 70
        assert_error_event(stream.last(2 * SLACK))
        assert "scheduler-1 was killed by SIGKILL while serving" in server.log
        wait_gone(list(pids.values()), 5)
