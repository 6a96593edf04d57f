"""Ranks 1 and up of an offline engine: child processes under the same contract as a server's.

Each is `python -m minisgl.scheduler.process`; it ends with its standard input, and with the thread that started it.
"""

from __future__ import annotations

import os
import shutil
import time

from minisgl.args import LaunchArgs
from minisgl.errors import BackendDied, MiniSGLError, StartError
from minisgl.process import ChildConfig, Heartbeats
from minisgl.server.child import MODULES, Child
from minisgl.server.launch import make_private_folder

END_SECONDS = 1.0  # for a child that was let go, before it is killed


class Ranks:
    """The children and their private folder. `death` may be called from any thread."""

    def __init__(self, args: LaunchArgs) -> None:
        self.ipc = make_private_folder()
        names = tuple(f"scheduler-{rank}" for rank in range(args.tensor_parallel_size))
        self._heartbeats = Heartbeats(self.ipc, len(names))  # the children write it; here nobody reads it
        self._children = [
            Child(
                ChildConfig(
                    role="scheduler",
                    index=rank,
                    ipc=str(self.ipc),
                    args=args.model_dump(mode="json", by_alias=False),
                    status_fd=-1,  # known when the child is started
                    heartbeat_slot=rank,
                    heartbeat_names=names,
                    started_at=time.monotonic(),
                ),
                MODULES["scheduler"],
            )
            for rank in range(1, len(names))
        ]

    def death(self, within_seconds: float = 0.0) -> MiniSGLError | None:
        """The error that says which rank ended, and why; None when all live, also after waiting a while for it."""
        deadline = time.monotonic() + within_seconds
        while True:
            if (child := next((child for child in self._children if not child.is_alive), None)) is not None:
                return self._explain(child)
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.02)

    def _explain(self, child: Child) -> MiniSGLError:
        for each in self._children:
            each.statuses()
        # One child's reason may explain another's death.
        told = next((each for each in self._children if each.failed), child)
        if told.failed is not None and told.ready is None:
            return StartError(told.failed.reason, f"{told.name}: {told.failed.message}")
        hint = "; a memory limit may have been reached" if child.process.returncode == -9 else ""
        return BackendDied(f"{child.name} {child.end}{hint}; this LLM is of no more use, make another")

    def end(self) -> None:
        for child in self._children:
            child.let_go()
        deadline = time.monotonic() + END_SECONDS
        while any(child.is_alive for child in self._children) and time.monotonic() < deadline:
            time.sleep(0.01)
        for child in self._children:
            child.kill()
            os.close(child.status_fd)
        self._children = []
        shutil.rmtree(self.ipc, ignore_errors=True)
