"""What the probes say, from heartbeats and the supervisor's words alone."""

import time
from pathlib import Path

import pytest

from minisgl.info import Place, StartInfo
from minisgl.process import Heartbeats, Progress
from minisgl.server.health import Health, whole
from support.cluster_objects import server_info

NAMES = ("frontend", "scheduler-0")


@pytest.fixture
def heartbeats(tmp_path: Path) -> Heartbeats:
    heartbeats = Heartbeats(tmp_path, len(NAMES))
    heartbeats.beat(0)
    heartbeats.beat(1)
    return heartbeats


def test_a_process_without_a_beat_is_named(heartbeats: Heartbeats) -> None:
    health = Health(heartbeats, NAMES, fresh_seconds=5)
    health.state = "ready"
    assert health.livez() == (200, {"status": "ok"})
    heartbeats.beat(1, time.monotonic() - 6)
    assert health.livez() == (503, {"status": "failed", "hanging": ["scheduler-0"]})


def test_a_load_without_beats_is_no_hang(heartbeats: Heartbeats) -> None:
    heartbeats.beat(1, time.monotonic() - 600)
    assert Health(heartbeats, NAMES, fresh_seconds=5).livez()[0] == 200


def test_the_start_is_told_with_bytes_pace_and_eta(heartbeats: Heartbeats) -> None:
    health = Health(heartbeats, NAMES, fresh_seconds=5)
    health.enter(Progress("scheduler-0", "weights", 50, 200, time.monotonic() - 10, rate=5.0, eta_seconds=30.0))
    status, answer = health.startupz()
    told = StartInfo.model_validate(answer)
    assert (status, told.status, told.server) == (503, "starting", None)
    assert told.place is not None
    assert 10 <= told.place.seconds < 13
    assert (told.place.phase, told.place.done, told.place.total) == ("weights", 50, 200)
    assert (told.place.bytes_per_second, told.place.eta_seconds) == (5, 30.0)
    assert told.processes["scheduler-0"] == told.place
    assert told.quiet_seconds is not None
    assert told.quiet_seconds < 5


def test_the_whole_start_is_where_the_slowest_is_with_the_bytes_of_all_ranks() -> None:
    ranks = [
        Progress("scheduler-0", "weights", 80, 100, 10.0, rate=8.0, eta_seconds=2.5),
        Progress("scheduler-1", "weights", 20, 100, 12.0, rate=2.0, eta_seconds=40.0),
        Progress("tokenizer-0", "ready", since=11.0),
    ]
    place = whole(ranks, now=20.0)
    assert place == Place(phase="weights", seconds=10, done=100, total=200, bytes_per_second=10, eta_seconds=40.0)


def test_the_whole_start_is_in_the_phase_that_has_lasted_longest_where_nobody_counts() -> None:
    ranks = [Progress("scheduler-0", "warm-up", since=15.0), Progress("scheduler-1", "import", since=10.0)]
    assert whole(ranks, now=20.0) == Place(phase="import", seconds=10)
    assert whole([Progress("scheduler-0", "ready")], now=20.0) is None


def test_after_the_start_its_seconds_and_the_engine_are_told_to_all_without_the_launch_arguments(
    heartbeats: Heartbeats,
) -> None:
    health = Health(heartbeats, NAMES, fresh_seconds=5)
    health.info = server_info().model_copy(update={"launch_args": {"apiKeyFile": "/keys"}})
    assert health.startupz()[0] == 503  # the first answer is still to come
    health.state = "ready"
    status, answer = health.startupz()
    assert status == 200
    assert "launchArgs" not in answer["server"]
    told = StartInfo.model_validate(answer)
    assert told.startup_seconds == server_info().startup_seconds
    assert told.server == server_info()


def test_drops_are_counted_beside_the_beats(heartbeats: Heartbeats) -> None:
    heartbeats.count_dropped(1)
    heartbeats.count_dropped(1)
    heartbeats.beat(1)
    assert [heartbeats.dropped(slot) for slot in range(2)] == [0, 2]
