"""The kernel's counter of kills for memory, in both versions of control groups."""

from pathlib import Path

import pytest

from minisgl.server.cgroup import num_oom_kills


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 41\noom 3\noom_kill 2\noom_group_kill 1\n"),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_are_counted(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert num_oom_kills(tmp_path) == 2


def test_no_group_is_no_kill(tmp_path: Path) -> None:
    assert num_oom_kills(tmp_path) == 0
