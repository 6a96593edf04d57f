"""The operator as a process that can be killed: forked from one that has imported everything, so it starts in 0.1 s."""

from __future__ import annotations

import asyncio
import importlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import kopf  # noqa: F401 (imported before the fork)
import kubernetes.aio.client
import kubernetes.aio.config  # noqa: F401

from minisgl_operator import __main__ as program
from minisgl_operator import log
from minisgl_operator.settings import Settings

TESTS = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
# Looks that nothing but time brings about, made short.
QUICK: dict[str, Any] = {
    "queue.LAST_RETRY_SECONDS": 2.0,
    "watch.CRD_SECONDS": 0.5,
    "reconcile.LOOK_AGAIN_SECONDS": {"Forbidden": 1.0, "NameConflict": 1.0, "Replacing": 0.5},
}


def run(settings: Mapping[str, Any], kubeconfig: str, output: str, changes: Mapping[str, Any]) -> None:
    """What the child does: the whole operator, its output in a file."""
    with open(output, "ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ["KUBECONFIG"] = kubeconfig
    for where, value in changes.items():
        module, name = where.rsplit(".", 1)
        setattr(importlib.import_module(f"minisgl_operator.{module}"), name, value)
    log.configure("json")
    asyncio.run(program.serve(Settings.model_validate(dict(settings))))
    sys.stdout.flush()


class OperatorProcess:
    """One start of it."""

    def __init__(self, kubeconfig: Path, output: Path, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        os.environ["PYTHONPATH"] = str(TESTS)  # for the process that imports before it forks
        CONTEXT.set_forkserver_preload(["control_plane.process"])
        self.output = output
        arguments = (dict(settings), str(kubeconfig), str(output), dict(changes))
        self._process: ForkServerProcess = CONTEXT.Process(target=run, args=arguments, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL. May be called from any thread, and twice."""
        self._process.kill()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def wait(self, seconds: float = 30) -> int:
        """Its exit code; fails if it does not end."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"pid {self.pid} still runs after {seconds} s"
        return self._process.exitcode

    def log(self) -> list[dict[str, Any]]:
        """Its log lines, of every start with this output."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]
