"""A child's line to its supervisor, over real pipes and a real child."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from minisgl.process import Break, ChildConfig, Failed, Heartbeats, Phase, Ready, Status
from minisgl.termination import Reason

CHILD = """
import sys, time
from minisgl.process import run_child
from minisgl.errors import StartError
from minisgl.termination import Reason

def main(supervisor):
    supervisor.phase("weights", 5, 10)
    {body}

run_child(main)
"""


class Started:
    """One real child with its three lines."""

    def __init__(self, ipc: Path, body: str) -> None:
        self.reading, writing = os.pipe()
        self.heartbeats = Heartbeats(ipc, 2)
        config = ChildConfig("scheduler", 1, str(ipc), {"model_path": "m"}, writing, 1, ("scheduler-0", "scheduler-1"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(body=body)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[writing],
            process_group=0,
        )
        os.close(writing)
        assert self.process.stdin
        self.process.stdin.write(msgspec.json.encode(config) + b"\n")
        self.process.stdin.flush()

    def statuses(self) -> list[Status]:
        with os.fdopen(self.reading, "rb", closefd=False) as pipe:
            return [msgspec.json.decode(line, type=Status) for line in pipe]

    def status(self) -> Status:
        return msgspec.json.decode(os.read(self.reading, 4096).splitlines()[-1], type=Status)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)
        os.close(self.reading)


@pytest.fixture
def start() -> Iterator[Callable[[str], Started]]:
    children: list[Started] = []
    with tempfile.TemporaryDirectory() as folder:

        def start(body: str) -> Started:
            children.append(Started(Path(folder), body))
            return children[-1]

        yield start
        for child in children:
            child.close()


def test_a_child_reports_its_phases_and_beats(start: Callable[[str], Started]) -> None:
    child = start("supervisor.ready()")
    assert child.statuses() == [Phase("weights", 5, 10), Ready()]
    assert child.process.wait(10) == 0
    assert child.heartbeats.age_seconds(1) < 10
    assert child.heartbeats.age_seconds(0) > 10  # nobody beats there


def test_a_reason_is_passed_on_and_ends_with_1(start: Callable[[str], Started]) -> None:
    child = start("raise StartError(Reason.MODEL_NOT_FOUND, 'no such folder')")
    assert child.statuses()[-1] == Failed(Reason.MODEL_NOT_FOUND, "no such folder")
    assert child.process.wait(10) == 1


def test_a_file_without_permission_is_one_line(start: Callable[[str], Started]) -> None:
    child = start("raise PermissionError(13, 'Permission denied', '/models/m/config.json')")
    sentence = "/models/m/config.json cannot be read: Permission denied; check its owner and mode"
    assert child.statuses()[-1] == Failed(Reason.MODEL_LOAD_FAILED, sentence)


def test_an_unexpected_error_leaves_a_stack_and_ends_with_70(start: Callable[[str], Started]) -> None:
    child = start("1 / 0")
    assert child.process.stderr
    errors = child.process.stderr.read()
    assert child.process.wait(10) == 70
    assert b"scheduler-1 unexpected error" in errors
    assert b"ZeroDivisionError" in errors


def test_a_child_ends_with_its_supervisor(start: Callable[[str], Started]) -> None:
    child = start("time.sleep(60)")
    child.status()
    assert child.process.stdin
    child.process.stdin.close()
    child.process.stdin = None
    started = time.monotonic()
    assert child.process.wait(10) == 0
    assert time.monotonic() - started < 2


def test_a_terminals_signals_do_not_reach_a_child(start: Callable[[str], Started]) -> None:
    child = start("supervisor.listen(lambda order: supervisor.phase(order.message)); time.sleep(60)")
    child.status()
    for number in (signal.SIGINT, signal.SIGTERM):
        child.process.send_signal(number)
    assert child.process.stdin
    child.process.stdin.write(msgspec.json.encode(Break("still here")) + b"\n")
    child.process.stdin.flush()
    assert child.status() == Phase("still here")
