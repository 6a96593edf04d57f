"""How a server starts and ends: whatever dies, nobody waits for ever and nothing stays behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import httpx
import pytest

from support.serving import Serving, are_gone

pytestmark = pytest.mark.cpu

SMALL = ("--max-seq-len-override=1024", "--num-tokens=4096", "--silent-output")


def open_stream(server: Serving, seen: list[str], started: threading.Event, tokens: int) -> None:
    body: Any = {"model": "m", "prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    try:
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as stream:
            for line in stream.iter_lines():
                seen.append(line)
                started.set()
    except httpx.HTTPError as error:
        seen.append(f"broken: {error}")


@pytest.mark.parametrize("room", ["scheduler", "tokenizer", "server"])
def test_a_child_that_dies_ends_the_server_and_tells_the_open_requests(room: str) -> None:
    with Serving(*SMALL) as server:
        tree, seen, started = server.tree(), list[str](), threading.Event()
        asking = threading.Thread(target=open_stream, args=(server, seen, started, 900))
        asking.start()
        assert started.wait(20)
        os.kill(tree[room], signal.SIGKILL)
        assert server.process.wait(5) == 70, server.log
        asking.join(5)
        assert not asking.is_alive()
        assert "[DONE]" not in seen[-1]
        if room != "server":  # the front end itself cannot tell of its own death
            assert any('"error"' in line for line in seen), seen[-3:]
        assert are_gone([*tree.values()], within=5)
        assert "SIGKILL" in server.log


def test_nothing_outlives_a_killed_main_process() -> None:
    with Serving(*SMALL) as server:
        pids = list(server.tree().values())
        assert len(pids) >= 3
        server.process.kill()
        assert are_gone(pids, within=3)


def test_a_terminated_server_lets_open_requests_finish() -> None:
    with Serving(*SMALL) as server:
        seen, started = list[str](), threading.Event()
        asking = threading.Thread(target=open_stream, args=(server, seen, started, 60))
        asking.start()
        assert started.wait(20)
        server.process.terminate()
        time.sleep(0.3)
        assert server.get("/readyz")[0] == 503
        assert server.process.wait(30) == 0, server.log
        asking.join(5)
        assert "data: [DONE]" in seen


def test_a_second_signal_ends_at_once() -> None:
    with Serving(*SMALL) as server:
        seen, started = list[str](), threading.Event()
        threading.Thread(target=open_stream, args=(server, seen, started, 900), daemon=True).start()
        assert started.wait(20)
        server.process.terminate()
        time.sleep(0.3)
        server.process.terminate()
        server.process.wait(3)


def test_several_tokenizers_end_cleanly_too() -> None:
    with Serving(*SMALL, "--num-tokenizer=2") as server:
        answer = httpx.post(
            f"{server.url}/v1/completions", json={"model": "m", "prompt": "a", "max_tokens": 2}, timeout=30
        )
        assert answer.status_code == 200
        assert server.end(within=5) == 0


def run(*flags: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "minisgl", *flags], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--modl=x"], 2, "did you mean --model"),
        (["--model=/nowhere/model"], 1, "no such folder"),
        (["--model=/nowhere/model", "--shell"], 2, "--shell-mode"),
    ],
)
def test_a_start_that_cannot_work_says_why_in_one_line(flags: list[str], code: int, sentence: str) -> None:
    returned, said = run(*flags)
    assert (returned, sentence in said) == (code, True), said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_told_before_anything_is_loaded() -> None:
    with Serving(*SMALL) as server:
        started = time.monotonic()
        code, said = run("--model=/nowhere/model", f"--port={server.port}")
        assert code == 1
        assert str(server.port) in said
        assert time.monotonic() - started < 20


def test_help_and_resolved_arguments_need_no_torch() -> None:
    code, said = run("--help")
    assert code == 0
    assert "--max-running-requests" in said
    code, said = run("--model=x", "--print-args")
    assert (code, '"port"' in said) == (0, True)
