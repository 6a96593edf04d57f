"""A6, A7, A8: how a server ends that is told to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from support.server import SLACK, Server, Stream, running, wait_gone

pytestmark = pytest.mark.cpu

SLOW = "step=0.02"  # 50 tokens a second: a request of 3000 stays open


@pytest.mark.parametrize("end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.faults)])
def test_an_idle_server_ends_at_once_and_leaves_no_folder(model: Path, end: int) -> None:
    with running(model) as server:
        ipc, pids = server.ipc(), list(server.pids().values())
        assert ipc.stat().st_mode & 0o777 == 0o700
        started = time.monotonic()
        server.process.send_signal(end)
        assert server.wait_end(2 * SLACK) == 0
        assert time.monotonic() - started < 2 * SLACK
        wait_gone(pids, 1)
        assert not ipc.exists()


NAMESPACE = ("unshare", "-pf", "--mount-proc")


def has_namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not has_namespaces(), reason="no PID namespace may be made here (it needs root)")
def test_as_pid_1_it_ends_on_sigterm_and_reaps_orphans(model: Path) -> None:
    with running(model, "--num-tokenizer=4", prefix=NAMESPACE) as server:
        [main] = below(server.process.pid)
        orphan = "import os, time; os.fork() or os.fork() or (time.sleep(0.3), os._exit(0))"
        entering = ["nsenter", "-t", str(main), "-p", sys.executable, "-c", orphan]
        subprocess.run(entering, check=True, timeout=30)
        time.sleep(1)
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in below(main)]
        assert "Z" not in states
        assert server.complete("abc", max_tokens=1).status_code == 200
        started = time.monotonic()
        os.kill(main, signal.SIGTERM)
        assert server.wait_end(2 * SLACK) == 0
        assert time.monotonic() - started < 2 * SLACK


def below(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_64_open_streams_end_well_in_a_drain(model: Path) -> None:
    with running(model, "--drain-delay-seconds=1", fake="step=0.03") as server:
        streams = [Stream(server, max_tokens=120, wait_lines=0) for _ in range(64)]
        server.wait_for(lambda: all(stream.lines for stream in streams), 30)
        pids = list(server.pids().values())
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: server.client.get("/readyz").status_code == 503, SLACK)
        assert server.client.get("/livez").status_code == 200
        assert server.complete("abc", max_tokens=1).status_code == 200  # still in the delay
        late = server.wait_for(lambda: refused(server), 10)
        assert late.headers["connection"] == "close"
        assert int(late.headers["retry-after"]) > 0
        assert late.json()["error"]["code"] == "draining"
        assert {stream.last(60) for stream in streams} == {"data: [DONE]"}
        assert server.wait_end(10) == 0
        wait_gone(pids, 2)


def refused(server: Server) -> httpx.Response | None:
    answer = server.complete("abc", max_tokens=1)
    return answer if answer.status_code == 503 else None


def test_a_drain_has_an_end(model: Path) -> None:
    with running(model, "--drain-timeout-seconds=1", fake=SLOW) as server:
        stream = Stream(server)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_end(1 + 5 * SLACK) == 0
        assert time.monotonic() - started > 0.9
        assert "error" in json.loads(stream.last().removeprefix("data: "))


@pytest.mark.parametrize("second", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
def test_a_second_signal_breaks_open_streams(model: Path, second: int) -> None:
    with running(model, fake=SLOW) as server:
        stream, pids = Stream(server), list(server.pids().values())
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: server.client.get("/readyz").status_code == 503, SLACK)
        started = time.monotonic()
        server.process.send_signal(second)
        assert server.wait_end(2 * SLACK) == 0
        assert time.monotonic() - started < 2 * SLACK
        wait_gone(pids, 1)
        assert "error" in json.loads(stream.last().removeprefix("data: "))


@pytest.mark.skipif(not has_namespaces(), reason="no PID namespace may be made here (it needs root)")
def test_a_sigterm_before_pythons_first_line_is_kept_for_it(model: Path, tmp_path: Path) -> None:
    """Started as our images start it. PID 1 loses a signal that it neither handles nor blocks."""
    here = tmp_path / "here"
    (tmp_path / "sitecustomize.py").write_text(
        f"import pathlib, time; pathlib.Path({str(here)!r}).touch(); time.sleep(1)"
    )
    entry = [*NAMESPACE, *entrypoint(), "--model-path", str(model), "--port", "0"]
    with subprocess.Popen(entry, env=os.environ | {"PYTHONPATH": str(tmp_path)}) as process:
        try:
            deadline = time.monotonic() + 20
            while not here.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            [main] = below(process.pid)
            os.kill(main, signal.SIGTERM)
            assert process.wait(1 + 2 * SLACK) == 0
        finally:
            process.kill()


def entrypoint() -> list[str]:
    """What the runtime's Dockerfile starts, with our Python."""
    dockerfile = Path(__file__).parents[2] / "runtime" / "Dockerfile"
    [line] = [line for line in dockerfile.read_text().splitlines() if line.startswith("ENTRYPOINT ")]
    words: list[str] = json.loads(line.removeprefix("ENTRYPOINT "))
    return [sys.executable if word == "python3" else word for word in words]


def test_after_the_delay_a_drain_closes_connections_that_wait_for_a_request(model: Path) -> None:
    with running(model, "--drain-delay-seconds=1", fake=SLOW) as server:
        stream = Stream(server, max_tokens=150)  # longer than the delay: the server stays
        with connect(server) as idle:
            idle.sendall(b"GET /livez HTTP/1.1\r\nHost: tiny\r\n\r\n")
            answers = idle.makefile("rb")
            assert answers.readline().startswith(b"HTTP/1.1 200")
            server.process.send_signal(signal.SIGTERM)
            assert answers.read().endswith(b'{"status":"ok"}')  # up to the connection's end
            assert "[DONE]" not in stream.lines[-1]
        assert stream.last() == "data: [DONE]"
        assert server.wait_end(10) == 0


def test_a_drain_refuses_in_words_what_was_on_its_way_when_the_delay_ended(model: Path) -> None:
    """A connection that was just made, and one that had sent half a request."""
    with (
        running(model, "--drain-delay-seconds=1", fake=SLOW) as server,
        connect(server) as new,
        connect(server) as half,
    ):
        stream = Stream(server, max_tokens=300)
        half.sendall(COMPLETION[:30])
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: refused(server), 10)
        new.sendall(COMPLETION)
        half.sendall(COMPLETION[30:])
        for connection in (new, half):
            answer = connection.makefile("rb").read()  # up to the connection's end
            assert answer.startswith(b"HTTP/1.1 503")
            assert b'"draining"' in answer
        assert stream.last() == "data: [DONE]"
        assert server.wait_end(10) == 0


BODY = b'{"prompt": "abc", "max_tokens": 1}'
COMPLETION = b"POST /v1/completions HTTP/1.1\r\nHost: tiny\r\nContent-Type: application/json\r\n"
COMPLETION += b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10)
