"""The main process: starts all others, watches them, drains, ends. Holds no model, no socket of a client, no torch.

starting ──all ready──► opening ──front end ready──► running ──SIGTERM──► draining ──front end gone──► exit 0
    └────────────────────────── a child ends ────────────────┴─ second signal ─► exit 0
                                      ▼
   reason given before ready, or nothing advances: exit 1 (2); else: open requests get an error, exit 70
"""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from minisgl.args import LaunchArgs
from minisgl.errors import BackendDied, StartError
from minisgl.process import READY, STACKS, Break, ChildConfig, Dialect, Drain, Heartbeats, Open, Phase, Progress, Role
from minisgl.server.cgroup import num_oom_kills
from minisgl.server.child import MODULES, Child
from minisgl.server.progress import StartLog
from minisgl.server.signals import Wakeups, reap_orphans
from minisgl.termination import Memory, Reason

TICK_SECONDS = 1.0  # the watchdog's round; everything else wakes at once
FAREWELL_SECONDS = 1.5  # what the front end gets to send errors after a child's death
HARD_END_SECONDS = 5.0  # beyond the drain times, before everything is killed
STACK_SECONDS = 1.0  # what the children get to write their stacks
FAILED = "The model server failed; this request cannot be finished. Send it again."

logger = logging.getLogger(__name__)


class Tree:
    """All children of one server. `run` lives as long as the server and returns after a clean end."""

    def __init__(
        self,
        args: LaunchArgs,
        ipc: Path,
        listen_fd: int,
        started_at: float,
        modules: Mapping[Role, str] = MODULES,
        on_ready: Callable[[dict[str, float]], None] = lambda seconds: None,
    ) -> None:
        self._args, self._on_ready = args, on_ready
        self.culprit: ChildConfig | None = None  # the child whose end or silence ended the server
        self._num_oom_kills = num_oom_kills()
        self._log = StartLog(started_at)
        self._children: list[Child] = []
        self._opened = self._running = False
        self._drain_deadline: float | None = None
        self._looked_at, self._awake_since = started_at, -math.inf
        configs = child_configs(args, ipc, listen_fd, started_at)
        self._heartbeats = Heartbeats(ipc, len(configs))
        self._configs, self._modules = configs, modules

    def run(self) -> None:
        """Raises StartError (a child could not start) or BackendDied; no child is left in any case."""
        with Wakeups() as wakeups:
            try:
                self._start(wakeups)
                while not self._step(wakeups):
                    pass
            finally:
                self._end_all()

    def _start(self, wakeups: Wakeups) -> None:
        for config in self._configs:
            self._heartbeats.beat(config.heartbeat_slot)
            child = Child(config, self._modules[config.role])
            self._children.append(child)
            wakeups.watch(child.status_fd)
            self._log.enter(child.name, child.phase)
            if config.listen_fd is not None:  # the front end's alone: the port is free when it is gone
                os.close(config.listen_fd)

    def _step(self, wakeups: Wakeups) -> bool:
        """One round; True when the server has ended cleanly."""
        wakeups.wait(TICK_SECONDS)
        for child in self._children:
            self._hear(child)
        self._open_when_all_are_ready()
        self._log.tell_the_late()
        stops = wakeups.num_stop_signals
        if stops and self._drain_deadline is None:
            if not self._running:
                logger.info("stop during start; not ready: %s", self._log.unready())
                return True
            logger.info("drain")
            delays = self._args.drain_delay_seconds + self._args.drain_timeout_seconds
            self._drain_deadline = time.monotonic() + delays + HARD_END_SECONDS
            self._front.order(Drain())
        if stops > 1:
            logger.info("stop at once")
            self._say_farewell("The server is stopping.")
            return True
        if self._has_left(self._front):
            return True
        if self._drain_deadline is not None and time.monotonic() > self._drain_deadline:
            logger.warning("drain took too long")
            return True
        self._look_for_the_dead()
        self._look_for_the_hanging()
        self._look_for_the_stalled()
        return False

    @property
    def _front(self) -> Child:
        return self._children[0]

    def _hear(self, child: Child) -> None:
        was_ready = child.ready is not None
        progress = [self._log.enter(child.name, status) for status in child.statuses() if isinstance(status, Phase)]
        if progress and child is not self._front:
            self._front.order(progress[-1])
        if child.ready is not None and not was_ready:
            self._log.leave(child.name)
            if child is not self._front:
                self._front.order(Progress(child.name, READY, since=time.monotonic()))

    def _open_when_all_are_ready(self) -> None:
        others = self._children[1:]
        if not self._opened and all(child.ready for child in others):
            self._opened = True
            answers = [child.ready for child in others if child.ready]
            facts = next((answer.facts for answer in answers if answer.facts), None)
            size = max(answer.vocabulary_size or 0 for answer in answers)
            if facts is None:
                raise BackendDied("no scheduler reported what the engine decided; scheduler-0 must, with ready(facts)")
            dialect = next((answer.dialect for answer in answers if answer.dialect), Dialect())
            self._front.order(Open(facts, size, dict(self._log.ends), dialect))
        if not self._running and self._front.ready:
            self._running = True
            self._on_ready(self._log.ends)

    def _look_for_the_dead(self) -> None:
        reap_orphans(child.process.pid for child in self._children)
        # A drain may finish between two looks: that end is told by the next round, and is no death.
        dead = [child for child in self._children if not child.is_alive and not self._has_left(child)]
        if not dead:
            return
        for child in self._children:  # one child's reason may explain another's death
            self._hear(child)
        child = culprit([child for child in self._children if child in dead or child.failed])
        self.culprit = child.config
        failed = child.failed
        if failed and not self._running:
            raise StartError(failed.reason, f"{child.name}: {failed.message}", memory=failed.memory)
        where = "while serving" if self._running else self._log.where(child.name)
        sentence = f"{child.name} {child.end} {where}" + (f": {failed.message}" if failed else "")
        if child.process.returncode == -9 and num_oom_kills() > self._num_oom_kills:
            sentence += ", because the container's memory limit was reached"
            raise self._died(sentence, Reason.OUT_OF_MEMORY, Memory.HOST)
        if failed and failed.reason is Reason.OUT_OF_MEMORY:
            raise self._died(sentence, failed.reason, failed.memory)
        raise self._died(sentence)

    def _has_left(self, child: Child) -> bool:
        """The front end has ended as it was told to; a shell, as its person wanted."""
        may_leave = self._drain_deadline is not None or self._args.shell_mode
        return may_leave and child is self._front and not child.is_alive and child.process.returncode == 0

    def _look_for_the_hanging(self) -> None:
        limit, now = self._args.watchdog_timeout_seconds, time.monotonic()
        if now - self._looked_at > max(limit / 2, 2 * TICK_SECONDS):
            # We stood still ourselves, as in a container that is frozen: so did the children, who beat again soon.
            self._awake_since = now
        self._looked_at = now
        if not self._running:
            return
        for child in self._children:
            age = min(self._heartbeats.age_seconds(child.config.heartbeat_slot), now - self._awake_since)
            if age > limit:
                self.culprit = child.config
                self._ask_for_stacks()
                # At once: a child that was stopped has to go on for its stacks, and would pass for well meanwhile.
                self._front.order(Break(FAILED))
                self._log_stacks()
                raise self._died(f"{child.name} hangs: no heartbeat for {age:.0f} s while serving")

    def _look_for_the_stalled(self) -> None:
        """A start may take hours while something advances; when nothing does, another try is all that can help."""
        seconds = self._log.quiet_seconds()
        if self._running or seconds <= self._args.start_stall_seconds:
            return
        child = next(child for child in self._children if child.name == self._log.quietest())
        self.culprit = child.config
        self._ask_for_stacks()
        self._log_stacks()
        where = self._log.where(child.name)
        raise StartError(Reason.START_STALLED, f"{child.name}: nothing has advanced for {seconds:.0f} s, {where}")

    def _ask_for_stacks(self) -> None:
        """Of all processes: one that hangs may wait for another."""
        for child in self._children:
            child.dump_stacks()

    def _log_stacks(self) -> None:
        """Log what came of `_ask_for_stacks`, and our own."""
        time.sleep(STACK_SECONDS)
        for child in self._children:
            file = Path(child.config.ipc) / STACKS.format(child.name)
            stacks = file.read_text(errors="replace") if file.exists() else ""
            logger.error("stacks process=%s\n%s", child.name, stacks or "none: it does not answer")
        logger.error("stacks process=main\n%s", "".join(traceback.format_stack()))

    def _died(self, sentence: str, reason: Reason = Reason.CHILD_DIED, memory: Memory | None = None) -> BackendDied:
        """Let the front end tell its clients, then be gone."""
        logger.error("died %s", sentence)
        for child in self._children[1:]:
            child.kill()
        self._say_farewell(FAILED)
        return BackendDied(sentence, reason, memory=memory)

    def _say_farewell(self, message: str) -> None:
        self._front.order(Break(message))
        deadline = time.monotonic() + FAREWELL_SECONDS
        while self._front.is_alive and time.monotonic() < deadline:
            time.sleep(0.02)

    def _end_all(self) -> None:
        for child in self._children:
            child.let_go()
        deadline = time.monotonic() + 1
        while any(child.is_alive for child in self._children) and time.monotonic() < deadline:
            time.sleep(0.01)
        for child in self._children:
            child.kill()
        reap_orphans(())


def culprit(dead: list[Child]) -> Child:
    """Whose end explains the others': who gave a reason, else who was killed, else the first."""
    return min(dead, key=lambda child: (child.failed is None, (child.process.returncode or 0) >= 0))


def child_configs(args: LaunchArgs, ipc: Path, listen_fd: int, started_at: float) -> list[ChildConfig]:
    """The children of one server; the front end first, because it answers probes while the others load."""
    places: list[tuple[Role, int]] = [("frontend", 0)]
    places += [("scheduler", rank) for rank in range(args.tensor_parallel_size)]
    places += [("tokenizer", index) for index in range(args.num_tokenizer)]
    places += [("detokenizer", 0)]

    def config(role: Role, index: int, slot: int, names: tuple[str, ...]) -> ChildConfig:
        return ChildConfig(
            role=role,
            index=index,
            ipc=str(ipc),
            args=args.model_dump(mode="json", by_alias=False),
            status_fd=-1,  # known when the child is started
            heartbeat_slot=slot,
            heartbeat_names=names,
            listen_fd=listen_fd if role == "frontend" else None,
            started_at=started_at,
        )

    names = tuple(config(role, index, 0, ()).name for role, index in places)
    return [config(role, index, slot, names) for slot, (role, index) in enumerate(places)]
