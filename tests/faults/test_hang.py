"""A3: a process that stands still, in a signal or in a collective, is found by its heartbeat; all stacks are logged."""

import os
import signal
import time
from pathlib import Path

import pytest

from support.server import SLACK, TINY, Server, Stream, running, wait_gone

pytestmark = pytest.mark.cpu

IMPATIENT = "--watchdog-timeout-seconds=2"
CHILDREN = ("frontend", "scheduler-0", "scheduler-1", "tokenizer-0", "detokenizer")


def stacks(log: str) -> dict[str, str]:
    """Process -> its dumped stacks."""
    parts = log.split("ERROR main stacks process=")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


@pytest.mark.parametrize("process", ["scheduler-1", pytest.param("tokenizer-0", marks=pytest.mark.faults)])
def test_a_stopped_process_ends_the_server(model: Path, process: str) -> None:
    with running(model, "--tp=2", "--num-tokenizer=1", IMPATIENT, fake="step=0.02") as server:
        stream, pids = Stream(server), server.pids()
        assert server.client.get("/livez").status_code == 200
        # The probe needs no main process. One that runs may find the hang first, and then nobody answers any more.
        os.kill(pids["main"], signal.SIGSTOP)
        os.kill(pids[process], signal.SIGSTOP)
        assert process in server.wait_for(lambda: hanging(server), 10)
        os.kill(pids["main"], signal.SIGCONT)
        assert server.wait_end(10 * SLACK) == 70
        assert f"{process} hangs: no heartbeat for" in server.log
        assert '"error"' in stream.last()
        told = stacks(server.log)
        assert set(told) == {"main", *CHILDREN}
        assert all("File" in told[name] for name in ("main", *CHILDREN)), told
        wait_gone(list(pids.values()), 5)


def hanging(server: Server) -> list[str]:
    """Whom a failing /livez names."""
    answer = server.client.get("/livez")
    assert answer.status_code in (200, 503)
    names: list[str] = answer.json().get("hanging", [])
    assert bool(names) == (answer.status_code == 503)
    return names


def test_a_hung_collective_ends_the_server_and_the_log_has_the_line_that_hangs(model: Path) -> None:
    with running(model, "--tp=2", "--num-tokenizer=1", *TINY, IMPATIENT, scheduler="faulty", fake="hang=7") as server:
        pids = server.pids()
        stream = Stream(server, [7, 8, 9], wait_lines=0)
        assert server.wait_end(10 * SLACK) == 70
        assert '"error"' in stream.last()
        told = stacks(server.log)
        assert "hang_for_ever" in told["scheduler-1"]
        assert "all_reduce" in told["scheduler-0"]
        wait_gone(list(pids.values()), 5)


def test_a_working_server_is_never_taken_for_hung(model: Path) -> None:
    with running(model, "--watchdog-timeout-seconds=1", fake="step=0.5") as server:
        stream = Stream(server, max_tokens=4)
        assert stream.last(20) == "data: [DONE]"
        time.sleep(1.5)  # idle, longer than the watchdog's time
        assert server.client.get("/livez").status_code == 200
        assert server.complete("abc", max_tokens=1).status_code == 200


def test_a_server_that_was_frozen_whole_goes_on(model: Path) -> None:
    with running(model, "--tp=2", "--num-tokenizer=1", IMPATIENT, fake="step=0.05") as server:
        stream, (main, *others) = Stream(server, max_tokens=100), list(server.pids().values())
        for pid in (main, *others):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        os.kill(main, signal.SIGCONT)  # whoever is woken first sees the others' silence
        time.sleep(1)
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        assert stream.last(60) == "data: [DONE]"
        assert server.complete("abc", max_tokens=1).status_code == 200
