"""Ranks that have met keep no door open, and close nobody else's."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minisgl.distributed.loopback import closing_listeners, listeners

RANK = """
import socket, sys
from pathlib import Path
import torch
from minisgl.distributed.group import Group
from minisgl.distributed.loopback import listeners
others = socket.create_server(("127.0.0.1", 0))
group = Group.join(int(sys.argv[1]), 3, "cpu", Path(sys.argv[2]))
assert listeners() == {others.fileno()}, listeners()
print(group.sum(torch.ones(1)).item())
group.leave()
others.close()
"""


@pytest.mark.cpu
def test_three_ranks_talk_without_a_listener(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    said = [process.communicate(timeout=90)[0].splitlines()[-1] for process in ranks]
    assert said == ["3.0"] * 3
    assert [process.returncode for process in ranks] == [0, 0, 0]


def test_only_what_began_to_listen_in_the_block_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        with closing_listeners():
            inside = socket.create_server(("127.0.0.1", 0))
        assert before.fileno() in listeners()
        assert inside.fileno() not in listeners()
        inside.close()


def test_looking_for_listeners_leaves_nothing_open() -> None:
    """A copy of each pipe stayed: each offline engine of two ranks had four times the descriptors of the last."""
    reading, writing = os.pipe()
    before = sorted(os.listdir("/proc/self/fd"))
    assert not {reading, writing} & listeners()
    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(reading)
    os.close(writing)
