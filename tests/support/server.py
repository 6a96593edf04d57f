"""A real server as a process tree, for tests: started, asked, killed, and looked at from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

TESTS = Path(__file__).resolve().parents[1]
START_SECONDS = 60  # two cores shared with other test runs


class Server:
    """`python -m minisgl` (or with the fake scheduler, the default) on a free port."""

    def __init__(
        self, model: Path, *arguments: str, module: str = "support.serve", fake: str = "", prefix: tuple[str, ...] = ()
    ) -> None:
        self.started_at = time.monotonic()
        self.log_path = model / f"server-{time.monotonic_ns()}.log"
        environment = os.environ | {"PYTHONPATH": str(TESTS), "MINISGL_FAKE": fake, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, "--model-path", str(model), "--served-model-name", "tiny"]
        if not any(argument.startswith("--port") for argument in arguments):
            command += ["--port", "0"]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command, *arguments], stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self.url = ""
        self.client = httpx.Client(timeout=20)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        if kind is not None:
            sys.stderr.write(self.log)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_ready(self) -> Server:
        found = self.wait_for(lambda: re.search(r"^ready at (\S+)$", self.log, re.MULTILINE), START_SECONDS)
        self.url = found[1]
        self.client.base_url = self.url
        return self

    def wait_for(self, condition: Callable[[], Any], seconds: float) -> Any:
        """The condition's first true value; fails with the log when the time is over or the server has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            assert self.process.poll() is None, f"the server ended: {self.log}"
            time.sleep(0.02)
        raise AssertionError(f"nothing within {seconds} s: {self.log}")

    def wait_end(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.client.post(path, json=fields)

    def complete(self, prompt: Any, **fields: Any) -> httpx.Response:
        return self.post("/v1/completions", prompt=prompt, **fields)

    def metric(self, series: str) -> float:
        """One sample of /metrics, without the model's label."""
        label = r'\{model_name="tiny"\}|,model_name="tiny"|model_name="tiny",'
        text = re.sub(label, "", self.client.get("/metrics").text)
        return float(re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]

    def pids(self) -> dict[str, int]:
        """Process names, as in the log, to process ids: by the module and the order of start."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        found: dict[str, int] = {"main": pids[0]}
        for pid in sorted(pids[1:]):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            module = command[2] if len(command) > 2 else ""
            if module == "minisgl.server.frontend":
                found["frontend"] = pid
            elif "scheduler" in module:
                found[f"scheduler-{sum('scheduler' in name for name in found)}"] = pid
            elif module == "minisgl.tokenizer.process":
                found[f"words-{sum('words' in name for name in found)}"] = pid
        return found


@contextmanager
def running(model: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    with Server(model, *arguments, **options) as server:
        yield server.wait_ready()


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


def is_alive(pid: int) -> bool:
    """Running, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pids: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(is_alive, pids)):
        time.sleep(0.02)
    assert not [pid for pid in pids if is_alive(pid)]


def listeners(pids: list[int]) -> set[str]:
    """`address:port` (hex) of every TCP socket in LISTEN that one of `pids` holds."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if (target := os.readlink(descriptor)).startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1])
    return found
