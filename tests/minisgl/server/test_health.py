"""What the probes say, from heartbeats and the supervisor's words alone."""

import time
from pathlib import Path

import pytest

from minisgl.process import Heartbeats, Progress
from minisgl.server.health import Health

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
    seconds = answer["processes"]["scheduler-0"].pop("seconds")
    assert 10 <= seconds < 13
    assert (status, answer) == (
        503,
        {
            "status": "starting",
            "processes": {
                "scheduler-0": {"phase": "weights", "done": 50, "total": 200, "bytesPerSecond": 5, "etaSeconds": 30.0}
            },
        },
    )


def test_drops_are_counted_beside_the_beats(heartbeats: Heartbeats) -> None:
    heartbeats.count_dropped(1)
    heartbeats.count_dropped(1)
    heartbeats.beat(1)
    assert [heartbeats.dropped(slot) for slot in range(2)] == [0, 2]
