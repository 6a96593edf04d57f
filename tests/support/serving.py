"""A real server as its users start it: `python -m minisgl` as a child process on a free loopback port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from models.__main__ import NAME, cache

READY_SECONDS = 90
PORT = re.compile(r"ready at http://[^:]+:(\d+)")


class Serving:
    """One server on SmolLM2, or on the model of `flags`. One compute thread: two on busy cores are slower than one."""

    def __init__(self, *flags: str) -> None:
        chosen = (
            flags if any(flag.startswith("--model") for flag in flags) else (f"--model-path={cache() / NAME}", *flags)
        )
        command = [sys.executable, "-m", "minisgl", "--port=0", "--served-model-name=m", "--device=cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, *chosen], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = 0

    def __enter__(self) -> Self:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if found := PORT.search(self.log):
                self.port = int(found[1])
                return self
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"not ready:\n{self.log}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self) -> int:
        """Ask it to end and give the exit code; a server that does not end is a failure."""
        self.process.terminate()
        return self.process.wait(20)

    def tree(self) -> dict[str, int]:
        """The children by room, such as `scheduler`: pid."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue
            if parent == self.process.pid:
                found[words[2].decode().split(".")[1]] = int(folder.name)
        return found

    def kill(self) -> None:
        """End the process that this test started, and wait for it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))
