"""The process tree around a scheduler without a model: every death, in every phase, as seen from outside."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.server import Server, running, wait_gone
from support.words import save_words

pytestmark = pytest.mark.cpu

SLOW = "step=0.02"  # 50 tokens a second: a request of 3000 stays open


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_words(tmp_path)


class Stream:
    """One client's open stream, read in a thread."""

    def __init__(self, server: Server, max_tokens: int = 3000) -> None:
        self.server, self.max_tokens = server, max_tokens
        self.lines: list[str] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        server.wait_for(lambda: len(self.lines) > 2, 10)

    def _read(self) -> None:
        body = {"prompt": "abc", "max_tokens": self.max_tokens, "stream": True}
        try:
            with self.server.client.stream("POST", "/v1/completions", json=body) as response:
                self.lines += (line for line in response.iter_lines() if line)
        except Exception as error:
            self.lines.append(f"broken {error!r}")

    def last(self) -> str:
        self.thread.join(10)
        assert not self.thread.is_alive(), "the stream hangs"
        return self.lines[-1]


def assert_error_event(line: str) -> None:
    error = json.loads(line.removeprefix("data: "))["error"]
    assert error["message"]
    assert error["type"] == "server_error"


IDLE = [("scheduler-0", False), ("words-1", False)]
BUSY = [(name, True) for name in ("scheduler-0", "scheduler-1", "words-0", "words-1", "frontend")]


@pytest.mark.parametrize(("process", "is_busy"), [*IDLE, *BUSY])
def test_a_killed_child_ends_the_server(model: Path, process: str, is_busy: bool) -> None:
    with running(model, "--tp=2", "--num-tokenizer=1", fake=SLOW) as server:
        pids = server.pids()
        assert len(pids) == 6
        stream = Stream(server) if is_busy else None
        started = time.monotonic()
        os.kill(pids[process], signal.SIGKILL)
        assert server.wait_end(5) == 70
        wait_gone(list(pids.values()), 5 - (time.monotonic() - started))
        if stream and process != "frontend":
            assert_error_event(stream.last())
        elif stream:
            assert stream.last().startswith("broken")
        name = {"words-0": "tokenizer-0", "words-1": "detokenizer"}.get(process, process)
        assert f"{name} was killed by SIGKILL while serving" in server.log


@pytest.mark.parametrize("process", ["scheduler-0", "words-0", "frontend"])
def test_a_child_killed_while_loading_ends_the_start(model: Path, process: str) -> None:
    with Server(model, fake="load") as server:
        server.wait_for(lambda: "phase=tokenizer seconds" in server.log and process in server.pids(), 30)
        pids = server.pids()
        os.kill(pids[process], signal.SIGKILL)
        assert server.wait_end(5) == 70
        assert "was killed by SIGKILL in start phase" in server.log
        wait_gone(list(pids.values()), 5)


@pytest.mark.parametrize("fake", ["", SLOW, "load"])
def test_a_killed_main_process_leaves_nobody(model: Path, fake: str) -> None:
    with Server(model, fake=fake) as server:
        server.wait_for(lambda: "phase=tokenizer seconds" in server.log and len(server.pids()) == 4, 30)
        if fake != "load":
            server.wait_ready()
        if fake == SLOW:
            Stream(server)
        pids = list(server.pids().values())
        server.process.kill()
        wait_gone(pids, 2)
        port = server.url.rpartition(":")[2]
    if port:
        with running(model, f"--port={port}") as again:
            assert again.complete("abc", max_tokens=2).status_code == 200


@pytest.mark.parametrize(("reason", "code"), [("ModelLoadFailed", 1), ("OutOfMemory", 1), ("InvalidArguments", 2)])
def test_a_reason_is_one_line_and_an_exit_code(model: Path, reason: str, code: int) -> None:
    with Server(model, fake=f"fail={reason}") as server:
        assert server.wait_end(20) == code
        assert server.log.splitlines()[-1] == "minisgl: scheduler-0: the fake was told to fail"
        assert "Traceback" not in server.log


def test_a_child_that_ends_without_a_word_is_named_with_its_phase(model: Path) -> None:
    with Server(model, fake="die") as server:
        assert server.wait_end(20) == 70
        assert "minisgl: scheduler-0 ended with code 9 in start phase weights" in server.log


def test_no_folder_is_left(model: Path) -> None:
    for end, code in ((signal.SIGTERM, 0), (signal.SIGINT, 0)):
        with running(model) as server:
            config = Path(f"/proc/{server.pids()['frontend']}/maps").read_text()
            ipc = Path(next(line.split()[-1] for line in config.splitlines() if "heartbeats" in line)).parent
            assert ipc.stat().st_mode & 0o777 == 0o700
            started = time.monotonic()
            server.process.send_signal(end)
            assert server.wait_end(5) == code
            assert time.monotonic() - started < 2
            assert not ipc.exists()


def test_open_streams_end_well_in_a_drain(model: Path) -> None:
    with running(model, "--drain-delay-seconds=1", fake="step=0.01") as server:
        streams = [Stream(server, max_tokens=200) for _ in range(8)]
        pids = list(server.pids().values())
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: server.client.get("/readyz").status_code == 503, 1)
        assert server.client.get("/livez").status_code == 200
        assert server.complete("abc", max_tokens=1).status_code == 200  # still in the delay
        late = server.wait_for(lambda: refused(server), 5)
        assert late.headers["connection"] == "close"
        assert int(late.headers["retry-after"]) > 0
        assert late.json()["error"]["code"] == "draining"
        assert {stream.last() for stream in streams} == {"data: [DONE]"}
        assert server.wait_end(10) == 0
        wait_gone(pids, 2)


def refused(server: Server) -> object:
    answer = server.complete("abc", max_tokens=1)
    return answer if answer.status_code == 503 else None


def test_a_drain_has_an_end(model: Path) -> None:
    with running(model, "--drain-timeout-seconds=1", fake=SLOW) as server:
        stream = Stream(server)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_end(8) == 0
        assert 0.9 < time.monotonic() - started < 4
        assert_error_event(stream.last())


def test_a_second_signal_breaks_open_streams(model: Path) -> None:
    with running(model, fake=SLOW) as server:
        stream = Stream(server)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        started = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.wait_end(5) == 0
        assert time.monotonic() - started < 2.5
        assert_error_event(stream.last())


def test_a_signal_during_the_start_ends_it(model: Path) -> None:
    with Server(model, fake="load") as server:
        server.wait_for(lambda: "phase=tokenizer seconds" in server.log, 30)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_end(3) == 0


def test_probes_answer_while_the_model_loads(model: Path) -> None:
    with Server(model, "--port=18219", fake="load") as server:
        server.wait_for(lambda: "phase=tokenizer seconds" in server.log, 30)
        server.client.base_url = "http://127.0.0.1:18219"
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/readyz").status_code == 503
        start = server.client.get("/startupz")
        assert start.status_code == 503
        assert start.json()["processes"]["scheduler-0"] == {"phase": "weights", "done": 0, "total": 100}
        early = server.complete("abc")
        assert (early.status_code, early.json()["error"]["code"]) == (503, "not_ready")
        assert int(early.headers["retry-after"]) > 0
        assert server.client.get("/server_info").status_code == 503


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_as_pid_1_it_ends_on_sigterm_and_reaps_orphans(model: Path) -> None:
    with running(model, "--num-tokenizer=4", prefix=("unshare", "-pf", "--mount-proc")) as server:
        main = first_child(server.process.pid)
        orphan = "import os, time; os.fork() or os.fork() or (time.sleep(0.3), os._exit(0))"
        entering = ["nsenter", "-t", str(main), "-p", sys.executable, "-c", orphan]
        subprocess.run(entering, check=True, timeout=10)
        time.sleep(1)
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in below(main)]
        assert "Z" not in states
        assert server.complete("abc", max_tokens=1).status_code == 200
        started = time.monotonic()
        os.kill(main, signal.SIGTERM)
        assert server.wait_end(5) == 0
        assert time.monotonic() - started < 2


def first_child(pid: int) -> int:
    return below(pid)[0]


def below(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_hanging_child_ends_the_server(model: Path) -> None:
    with running(model, fake="impatient") as server:
        pids = list(server.pids().values())
        os.kill(server.pids()["scheduler-0"], signal.SIGSTOP)
        assert server.wait_end(10) == 70
        assert "scheduler-0 hangs: no heartbeat for" in server.log
        wait_gone(pids, 5)
