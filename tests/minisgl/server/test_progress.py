"""What a start tells: each phase once, the pace of loading, and who is late, by a clock that the test turns."""

import logging

import pytest

from minisgl.process import Phase
from minisgl.server.progress import GIB, StartLog


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock, caplog: pytest.LogCaptureFixture) -> StartLog:
    caplog.set_level(logging.INFO)
    return StartLog(clock.now, clock)


def test_a_phase_is_told_once_with_its_seconds(log: StartLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log.enter("scheduler-0", Phase("spawn"))
    clock.now += 2
    log.enter("scheduler-0", Phase("weights"))
    clock.now += 3
    log.leave("scheduler-0")
    assert caplog.messages == [
        "start process=scheduler-0 phase=spawn seconds=2.00",
        "start process=scheduler-0 phase=weights seconds=3.00",
    ]
    assert log.ends == {"spawn": 2, "weights": 5}


def test_loading_tells_bytes_rate_and_eta_every_few_seconds(
    log: StartLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(10):
        progress = log.enter("scheduler-0", Phase("weights", second * GIB, 20 * GIB))
        clock.now += 1
    assert [message.partition("done=")[2] for message in caplog.messages] == [
        "3.00GiB total=20.00GiB rate=1.00GiB/s eta=17s",
        "6.00GiB total=20.00GiB rate=1.00GiB/s eta=14s",
        "9.00GiB total=20.00GiB rate=1.00GiB/s eta=11s",
    ]
    assert (progress.rate, progress.eta_seconds, progress.since) == (GIB, 11, 1000)


def test_each_rank_has_a_pace_of_its_own(log: StartLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for second in range(5):
        for rank in range(2):
            log.enter(f"scheduler-{rank}", Phase("weights", second * GIB, 20 * GIB))
        clock.now += 1
    assert sum("scheduler-1" in message for message in caplog.messages) == 1


def test_a_phase_without_progress_is_told_while_it_hangs(
    log: StartLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log.enter("scheduler-1", Phase("weights", 0, 100))
    log.enter("frontend", Phase("frontend"))  # it waits for the others
    caplog.clear()
    for _ in range(70):
        log.tell_the_late()
        clock.now += 1
    assert caplog.messages == [
        f"waiting process=scheduler-1 phase=weights seconds={seconds} quiet={seconds} done=0 total=100"
        for seconds in (30, 60)
    ]


def test_a_slow_phase_that_goes_on_is_not_late(log: StartLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for done in range(100):
        log.enter("scheduler-0", Phase("weights", done, 100))
        log.tell_the_late()
        clock.now += 2
    assert not [message for message in caplog.messages if message.startswith("waiting")]


def test_who_is_not_ready_is_named_with_phase_and_since_when(log: StartLog, clock: Clock) -> None:
    for process in ("scheduler-0", "scheduler-1"):
        log.enter(process, Phase("weights", 5, 100))
    log.leave("scheduler-0")
    clock.now += 95
    assert log.unready().startswith("scheduler-1 in start phase weights (for 95 s, since ")
    assert log.where("scheduler-1").endswith("Z, 5 of 100)")
    assert log.where("scheduler-0").startswith("when it was ready, before scheduler-1 in start phase weights")
