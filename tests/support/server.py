"""A real server as a process tree, for tests: started, asked, killed, and looked at from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx

TESTS = Path(__file__).resolve().parents[1]
START_SECONDS = 90  # two cores shared with other test runs
SLACK = 3  # stretches the fault matrix's times, which are a free machine's


TINY = ("--device=cpu", "--dummy-weight", "--num-tokens=8192")  # what the real scheduler needs on `save_dummy`'s folder


class Server:
    """`python -m support.serve` on a free port, with the fake scheduler or the real one that obeys `fake`'s faults."""

    def __init__(
        self,
        model: Path,
        *arguments: str,
        module: str = "support.serve",
        scheduler: Literal["fake", "faulty"] = "fake",
        fake: str = "",
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.started_at = time.monotonic()
        name = f"server-{time.monotonic_ns()}"
        self.log_path, self.termination_path = model / f"{name}.log", model / f"{name}.termination"
        self.termination_path.touch()  # as Kubernetes does
        environment = os.environ | {
            "PYTHONPATH": str(TESTS),
            "OMP_NUM_THREADS": "1",
            "MINISGL_FAKE": fake,
            "MINISGL_SCHEDULER": scheduler,
            "MINISGL_TERMINATION_LOG": str(self.termination_path),
        }
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

    def wait_phase(self, process: str, phase: str) -> Server:
        """Until /startupz says that this process is in this phase, and all processes are there."""
        port = self.wait_for(lambda: listeners(list(self.pids().values())), START_SECONDS)
        self.url = f"http://127.0.0.1:{int(next(iter(port)).rpartition(':')[2], 16)}"
        self.client.base_url = self.url
        self.wait_for(lambda: self.phases().get(process) == phase, START_SECONDS)
        return self

    def phases(self) -> dict[str, str]:
        """Process -> its start phase."""
        try:
            places = self.client.get("/startupz").json().get("processes", {})
        except httpx.HTTPError:
            return {}
        return {process: place["phase"] for process, place in places.items()}

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
        main = self.process.pid
        by_room: dict[str, list[int]] = {}
        for pid in sorted(descendants(main)):
            command = read_or_nothing(pid, "cmdline").split("\0")
            if len(command) > 2 and command[1] == "-m":
                by_room.setdefault(command[2].split(".")[1], []).append(pid)
        schedulers = [pid for room in by_room if "scheduler" in room for pid in by_room[room]]
        *tokenizers, detokenizer = by_room.get("tokenizer") or [0]
        found = {"main": main, "detokenizer": detokenizer, "frontend": by_room.get("server", [0])[0]}
        found |= {f"scheduler-{rank}": pid for rank, pid in enumerate(schedulers)}
        found |= {f"tokenizer-{index}": pid for index, pid in enumerate(tokenizers)}
        return {name: pid for name, pid in found.items() if pid}

    def ipc(self) -> Path:
        """The private folder, by the heartbeats that the front end has mapped."""
        maps = read_or_nothing(self.pids()["frontend"], "maps").splitlines()
        return Path(next(line.split()[-1] for line in maps if line.endswith("heartbeats"))).parent


class Stream:
    """One client's open stream, read in a thread."""

    def __init__(self, server: Server, prompt: Any = "abc", wait_lines: int = 3, **fields: Any) -> None:
        self.server = server
        self.body = {"prompt": prompt, "max_tokens": 3000, "ignore_eos": True, "stream": True} | fields
        self.lines: list[str] = []
        self._leaves = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        if wait_lines:
            server.wait_for(lambda: len(self.lines) >= wait_lines, 20)

    def _read(self) -> None:
        try:
            with self.server.client.stream("POST", "/v1/completions", json=self.body) as response:
                for line in response.iter_lines():
                    if line:
                        self.lines.append(line)
                    if self._leaves.is_set():
                        return
        except Exception as error:
            self.lines.append(f"broken {error!r}")

    def leave(self) -> None:
        """Close the connection at the next line."""
        self._leaves.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def last(self, seconds: float = 10) -> str:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the stream hangs"
        return self.lines[-1]


def read_or_nothing(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


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
        for descriptor in open_files(pid):
            if descriptor.startswith("socket:["):
                inodes.add(descriptor[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1])
    return found


def open_files(pid: int) -> list[str]:
    """Where a process's descriptors lead; nothing for one that has ended."""
    try:
        return [os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
