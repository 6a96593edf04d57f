"""What the supervisor decides, on children that the test plays: no process is started. The deaths of real ones are in
tests/faults.
"""

import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minisgl.args import LaunchArgs
from minisgl.errors import BackendDied, StartError
from minisgl.process import Break, Drain, Failed, Open, Order, Phase, Progress, Ready, Status
from minisgl.server import supervisor
from minisgl.server.progress import StartLog
from minisgl.server.supervisor import Tree, child_configs, culprit
from minisgl.termination import Memory, Reason


class Played:
    """A child as the supervisor sees it. `lives` is for how many more looks it is alive."""

    def __init__(self, config: Any, code: int = 0) -> None:
        self.config, self.name = config, config.name
        self.phase, self.ready, self.failed = Phase("spawn"), None, None
        self.process = SimpleNamespace(pid=-1, returncode=None)
        self.says: list[Status] = []
        self.heard: list[Order] = []
        self.lives, self._code = 10**9, code

    @property
    def end(self) -> str:
        return f"ended with code {self._code}"

    @property
    def is_alive(self) -> bool:
        self.lives -= 1
        if self.lives < 0:
            self.process.returncode = self._code
        return self.lives >= 0

    def statuses(self) -> list[Status]:
        said, self.says = self.says, []
        for status in said:
            match status:
                case Phase():
                    self.phase = status
                case Ready():
                    self.ready = status
                case Failed():
                    self.failed = status
        return said

    def order(self, order: Order) -> None:
        self.heard.append(order)

    def kill(self) -> None:
        self.lives = 0

    let_go = dump_stacks = kill


class Signals:
    """No wake-up ever comes; stop signals are counted by the test."""

    num_stop_signals = 0

    def wait(self, seconds: float) -> None:
        pass


class Stage:
    """A tree of played children, and the signals."""

    def __init__(self, folder: Path, **args: Any) -> None:
        self.args = LaunchArgs(model_path="m", **args)
        self.ready_after: dict[str, float] | None = None
        self.tree = Tree(self.args, folder, -1, time.monotonic(), on_ready=self._on_ready)
        self.children = [Played(config) for config in self.tree._configs]
        self.tree._children = self.children  # type: ignore[assignment]
        self.signals: Any = Signals()
        for child in self.children:
            self.tree._heartbeats.beat(child.config.heartbeat_slot)
            self.tree._log.enter(child.name, child.phase)

    def _on_ready(self, seconds: dict[str, float]) -> None:
        self.ready_after = seconds

    def step(self) -> bool:
        return self.tree._step(self.signals)

    def child(self, name: str) -> Played:
        return next(child for child in self.children if child.name == name)

    def open(self) -> None:
        """Let everybody become ready."""
        for child in self.children[1:]:
            child.says.append(Ready({"a": 1} if child.name == "scheduler-0" else None, 258))
        self.step()
        self.children[0].says.append(Ready())
        self.step()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(supervisor, "FAREWELL_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "STACK_SECONDS", 0.0)
    return Stage(tmp_path, tensor_parallel_size=2, num_tokenizer=1)


def test_the_front_end_is_first_and_every_child_has_its_slot() -> None:
    args = LaunchArgs(model_path="m", tensor_parallel_size=2, num_tokenizer=2)
    configs = child_configs(args, Path("/ipc"), 7, 0.0)
    names = ["frontend", "scheduler-0", "scheduler-1", "tokenizer-0", "tokenizer-1", "detokenizer"]
    assert [config.name for config in configs] == names
    assert [config.heartbeat_slot for config in configs] == list(range(6))
    assert [config.listen_fd for config in configs] == [7, *[None] * 5]
    assert configs[0].heartbeat_names == tuple(names)


def test_the_door_opens_when_all_are_ready(stage: Stage) -> None:
    stage.step()
    assert stage.children[0].heard == []
    stage.open()
    *ready, order = stage.children[0].heard
    assert {(told.process, told.phase) for told in ready if isinstance(told, Progress)} == {
        (child.name, "ready") for child in stage.children[1:]
    }
    assert isinstance(order, Open)
    assert (order.facts, order.vocabulary_size) == ({"a": 1}, 258)
    assert stage.ready_after is not None


def test_the_front_end_hears_where_the_others_are(stage: Stage) -> None:
    stage.child("scheduler-1").says += [Phase("import"), Phase("weights", 5, 100), Phase("weights", 10, 100)]
    stage.step()
    [order] = stage.children[0].heard
    assert isinstance(order, Progress)
    assert (order.process, order.phase, order.done, order.total) == ("scheduler-1", "weights", 10, 100)


@pytest.mark.parametrize("looks", range(5))
def test_a_drain_that_ends_between_two_looks_is_a_clean_end(stage: Stage, looks: int) -> None:
    """The front end may be gone at any of the looks of a round: it has drained, and that is no death."""
    stage.open()
    stage.signals.num_stop_signals = 1
    assert not stage.step()
    assert isinstance(stage.children[0].heard[-1], Drain)
    stage.children[0].lives = looks
    rounds = [stage.step() for _ in range(6)]
    assert True in rounds
    assert stage.tree.culprit is None


def test_a_front_end_that_breaks_in_a_drain_is_a_death(stage: Stage) -> None:
    stage.open()
    stage.signals.num_stop_signals = 1
    stage.step()
    stage.children[0]._code, stage.children[0].lives = 70, 0
    with pytest.raises(BackendDied, match="frontend ended with code 70 while serving"):
        stage.step()


def test_another_child_that_ends_in_a_drain_is_a_death(stage: Stage) -> None:
    stage.open()
    stage.signals.num_stop_signals = 1
    stage.step()
    stage.child("detokenizer").lives = 0
    with pytest.raises(BackendDied, match="detokenizer ended"):
        stage.step()
    assert isinstance(stage.children[0].heard[-1], Break)


def test_a_reason_ends_a_start_and_names_the_child(stage: Stage) -> None:
    child = stage.child("scheduler-1")
    child.says.append(Failed(Reason.OUT_OF_MEMORY, "no room", Memory.DEVICE))
    child.lives = 0
    stage.child("scheduler-0").lives = 0  # its collective broke with the other rank
    with pytest.raises(StartError, match="scheduler-1: no room") as raised:
        stage.step()
    assert (raised.value.reason, raised.value.memory) == (Reason.OUT_OF_MEMORY, Memory.DEVICE)
    assert stage.tree.culprit is child.config


def test_a_step_without_memory_while_serving_keeps_its_reason(stage: Stage) -> None:
    stage.open()
    child = stage.child("scheduler-0")
    child.says.append(Failed(Reason.OUT_OF_MEMORY, "no room", Memory.HOST))
    child.lives = 0
    with pytest.raises(BackendDied, match="scheduler-0 ended with code 0 while serving: no room") as raised:
        stage.step()
    assert (raised.value.reason, raised.value.memory) == (Reason.OUT_OF_MEMORY, Memory.HOST)


@pytest.mark.parametrize(("kills", "reason"), [(1, Reason.OUT_OF_MEMORY), (0, Reason.CHILD_DIED)])
def test_a_kill_is_for_memory_if_the_kernel_has_counted_one(
    stage: Stage, kills: int, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stage.tree._num_oom_kills
    monkeypatch.setattr(supervisor, "num_oom_kills", lambda: before + kills)
    child = stage.child("scheduler-0")
    child._code, child.lives = -9, 0
    with pytest.raises(BackendDied) as raised:
        stage.step()
    assert raised.value.reason is reason
    assert ("memory limit" in str(raised.value)) == (reason is Reason.OUT_OF_MEMORY)


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, Clock]:
    """A start that is given up after 60 s without progress, by a clock of the test."""
    monkeypatch.setattr(supervisor, "STACK_SECONDS", 0.0)
    clock = Clock()
    monkeypatch.setattr(supervisor, "StartLog", lambda started_at: StartLog(started_at, clock))
    return Stage(tmp_path, tensor_parallel_size=2, num_tokenizer=1, start_stall_seconds=60), clock


def test_a_slow_start_that_advances_is_never_given_up(waiting: tuple[Stage, Clock]) -> None:
    stage, clock = waiting
    for done in range(100):
        stage.child("scheduler-0").says.append(Phase("weights", done, 100))
        assert not stage.step()
        clock.now += 59  # an hour and a half in all, while rank 1 waits in one phase


def test_a_start_in_which_nothing_advances_is_given_up_with_process_phase_and_bytes(
    waiting: tuple[Stage, Clock],
) -> None:
    stage, clock = waiting
    stage.children[0].says.append(Phase("frontend"))  # it waits for the others
    stage.child("scheduler-1").says.append(Phase("weights", 5, 100))
    stage.step()
    clock.now += 30
    stage.child("scheduler-0").says.append(Phase("warm-up"))  # and now it waits for the other rank
    for child in stage.children[3:]:
        child.says.append(Ready({}, 1))
    assert not stage.step()
    clock.now += 61
    with pytest.raises(StartError, match=r"scheduler-1: nothing has advanced for 61 s, .*weights.*5 of 100") as raised:
        stage.step()
    assert raised.value.reason is Reason.START_STALLED
    assert stage.tree.culprit is stage.child("scheduler-1").config


def test_a_running_server_is_idle_and_not_stalled(waiting: tuple[Stage, Clock]) -> None:
    stage, clock = waiting
    stage.open()
    clock.now += 10_000
    assert not stage.step()


def test_a_death_in_the_start_is_told_with_phase_and_since_when(stage: Stage) -> None:
    child = stage.child("scheduler-1")
    child.says.append(Phase("weights", 5, 100))
    stage.step()
    child.lives = 0
    with pytest.raises(BackendDied, match=r"in start phase weights \(for 0 s, since .*Z, 5 of 100\)"):
        stage.step()


def test_who_was_killed_explains_who_gave_up(stage: Stage) -> None:
    first, second = stage.child("scheduler-0"), stage.child("scheduler-1")
    first.process.returncode, second.process.returncode = 70, -9
    assert culprit([first, second]) is second  # type: ignore[list-item, comparison-overlap]


def test_silence_is_death_after_the_watchdogs_time(tmp_path: Path, stage: Stage) -> None:
    stage = Stage(tmp_path, watchdog_timeout_seconds=5, tensor_parallel_size=2, num_tokenizer=1)
    child = stage.child("scheduler-1")
    slot = child.config.heartbeat_slot
    stage.tree._heartbeats.beat(slot, time.monotonic() - 6)
    assert not stage.step()  # loading: no hang
    stage.tree._heartbeats.beat(slot)
    stage.open()
    stage.tree._heartbeats.beat(slot, time.monotonic() - 4)
    assert not stage.step()
    stage.tree._heartbeats.beat(slot, time.monotonic() - 6)
    with pytest.raises(BackendDied, match="scheduler-1 hangs: no heartbeat for 6 s"):
        stage.step()


def test_clients_are_told_of_a_hang_before_anybody_waits_for_stacks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.open()
    heard_before_waiting: list[Order] = []
    wait = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: heard_before_waiting.append(stage.children[0].heard[-1])
    )
    monkeypatch.setattr(supervisor, "time", wait)
    slot = stage.child("scheduler-1").config.heartbeat_slot
    stage.tree._heartbeats.beat(slot, time.monotonic() - stage.args.watchdog_timeout_seconds - 1)
    with pytest.raises(BackendDied, match="scheduler-1 hangs"):
        stage.step()
    assert isinstance(heard_before_waiting[0], Break)


def test_a_stop_during_the_start_says_who_was_not_ready(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for child in stage.children:
        if child.name not in ("scheduler-1", "frontend"):
            child.says.append(Ready({}, 1))
    stage.child("scheduler-1").says.append(Phase("warm-up"))
    stage.children[0].says.append(Phase("frontend"))
    stage.step()
    stage.signals.num_stop_signals = 1
    assert stage.step()
    assert "stop during start; not ready: scheduler-1 in start phase warm-up (for 0 s" in caplog.text


def test_a_drain_that_takes_too_long_is_ended(stage: Stage) -> None:
    stage.open()
    stage.signals.num_stop_signals = 1
    stage.step()
    stage.tree._drain_deadline = time.monotonic() - 1
    assert stage.step()
