"""Thousands of requests, a fifth of whose clients leave: then tables are empty, no descriptor and no memory is kept.

The real processes with a tiny model. A thousand in every run; ten thousand, with the figures printed:

    MINISGL_REQUESTS=10000 .venv/bin/python -m pytest -q -s tests/minisgl/server/test_nothing_stays.py
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from minisgl.bench.client import Endpoint, Failed
from support.server import TINY, Server, descendants, open_files, read_or_nothing, running
from support.words import CONTEXT, save_dummy

pytestmark = [pytest.mark.cpu, pytest.mark.timeout(900)]

REQUESTS = int(os.environ.get("MINISGL_REQUESTS", "1000"))
CLIENTS = 32
# The most tokens of a step, few enough for `fill`. Where oneDNN multiplies, it keeps a compiled kernel for each number
# of rows that it has met.
STEP = 32
ENOUGH = "enough"
# Of one process over the second half: an allocator's breath. A leak of 20 kB a request is more than twice as much.
GROWTH_KB = 4 * 1024
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "how do you do?"}]
# What clients ask in turn, and the status of the answer.
ASKED: list[tuple[str, dict[str, Any], int]] = [
    (CHAT, {"messages": QUESTION, "stream": True}, 200),
    (COMPLETIONS, {"prompt": "abc"}, 200),
    (COMPLETIONS, {"prompt": ["one prompt", "another"], "n": 2, "stream": True}, 200),
    (CHAT, {"messages": QUESTION, "logprobs": True, "top_logprobs": 2}, 200),
    (COMPLETIONS, {"prompt": "x" * 5000}, 400),
    (COMPLETIONS, {"prompt": [65] * 40, "echo": True}, 200),
    (CHAT, {"messages": [], "stream": True}, 400),
    (COMPLETIONS, {"prompt": "a long one " * 30, "stream": True, "stop": ["e", "zz"]}, 200),
]


async def come(endpoint: Endpoint, number: int, seen: Counter[str]) -> None:
    """One client. Some leave: at the answer's first byte, or after a moment that ends anywhere."""
    path, asked, expected = ASKED[number % len(ASKED)]
    leaves = number % 15 in (0, 4, 8, 12)  # and most of them before they are refused or served: a fifth in all
    fields = {"max_tokens": 200 if leaves else 6, "ignore_eos": True, "seed": number, **asked}

    def leave(_: bytes) -> None:
        if leaves and number % 2 == 0:
            raise Failed(ENOUGH)

    moment = (number % 50) / 1000 if leaves and number % 2 else None
    try:
        async with asyncio.timeout(moment):
            status, _ = await endpoint.ask("POST", path, json.dumps(fields).encode(), leave)
            assert status == expected, (status, fields)
            seen[f"{status}"] += 1
    except TimeoutError:
        seen["left"] += 1
    except Failed as failed:
        seen["left" if str(failed) == ENOUGH else str(failed)] += 1


def send(server: Server, numbers: range) -> Counter[str]:
    """All of them, by so many clients at a time."""
    endpoint, seen, left = Endpoint(server.url), Counter[str](), iter(numbers)

    async def client() -> None:
        for number in left:
            await come(endpoint, number, seen)

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    asyncio.run(clients())
    return seen


def fill(server: Server) -> None:
    """Have the engine keep now all that it will keep: kernels for each number of rows, and every page of its cache."""
    for num_rows in range(1, STEP + 2):  # the head scores one row less than there are, and a step's most in the last
        prompt = [65 + num_rows] * num_rows
        assert server.complete(prompt, echo=True, logprobs=1, max_tokens=1).status_code == 200
    for token in range(3):  # each half of the pages; the third lets go of some
        assert server.complete([token] * (CONTEXT - 1), max_tokens=1).status_code == 200


def settle(server: Server) -> None:
    gauges = ("minisgl_requests_running", "minisgl_requests_waiting")
    server.wait_for(lambda: not any(map(server.metric, gauges)), 30)
    time.sleep(1)  # the scheduler's last word about the last abort


def look(server: Server, folder: Path) -> dict[str, int]:
    """Sizes of all tables of all children."""
    children = descendants(server.process.pid)
    for child in children:
        (folder / f"{child}.json").unlink(missing_ok=True)
        os.kill(child, signal.SIGUSR2)
    server.wait_for(lambda: all((folder / f"{child}.json").exists() for child in children), 10)
    return {key: size for child in children for key, size in json.loads((folder / f"{child}.json").read_text()).items()}


def descriptors(server: Server) -> list[int]:
    return [len(open_files(pid)) for pid in [server.process.pid, *descendants(server.process.pid)]]


def resident(server: Server) -> list[int]:
    """Kilobytes of each process."""
    texts = [read_or_nothing(pid, "status") for pid in [server.process.pid, *descendants(server.process.pid)]]
    return [int(text.partition("VmRSS:")[2].split()[0]) for text in texts]


def test_nothing_stays_of_requests_that_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISGL_LOOKED_AT", str(tmp_path))
    with running(save_dummy(tmp_path), *TINY, f"--max-prefill-length={STEP}", "--silent-output") as server:
        fill(server)
        send(server, range(80))  # each kind a few times: what is made once is made
        settle(server)
        tables, files = look(server, tmp_path), descriptors(server)
        marks, seen, began = [], Counter[str](), time.monotonic()
        for half in (range(REQUESTS // 2), range(REQUESTS // 2, REQUESTS)):
            seen += send(server, half)
            settle(server)
            marks.append(resident(server))
        seconds = time.monotonic() - began
        grown = [after - before for before, after in zip(*marks, strict=True)]
        print(f"\n{REQUESTS} requests in {seconds:.0f} s: {dict(seen)}; kB at half {marks[0]}, grown by {grown}")
        print(f"descriptors {files} -> {descriptors(server)}; tables {look(server, tmp_path)}")
        assert seen.total() == REQUESTS
        assert seen.keys() == {"200", "400", "left"}
        assert seen["left"] > 0.17 * REQUESTS, "they did leave"
        assert {"frontend: RequestTable._tickets", "detokenizer: Detokenizer._answers"} < tables.keys()
        assert "scheduler: Scheduler._known" in tables
        assert look(server, tmp_path) == tables
        assert descriptors(server) == files
        assert max(grown) < GROWTH_KB
