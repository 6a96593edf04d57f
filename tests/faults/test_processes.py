"""What the processes of a server of two real ranks are, seen from outside: their threads, and who listens."""

from pathlib import Path

import pytest

from minisgl.threads import POOLS, settings_of
from support.server import Server, listeners, read_or_nothing

pytestmark = pytest.mark.cpu


def settings(pid: int) -> dict[str, str]:
    pairs = (item.partition("=") for item in read_or_nothing(pid, "environ").split("\0"))
    return {name: value for name, _, value in pairs}


def test_threads_are_pinned_in_every_child(survivor: Server) -> None:
    for name, pid in survivor.pids().items():
        if name == "main":
            continue
        role = name.partition("-")[0]
        wanted = settings_of(role, 2, environ={"OMP_NUM_THREADS": "1"})
        found = settings(pid)
        assert {pool: found.get(pool) for pool in POOLS} == {pool: wanted[pool] for pool in POOLS}, name
        # ZeroMQ brings two, the supervisor's line one, uvloop and the decoder's the rest; a pool would bring a core's.
        assert num_threads(pid) <= 12, name


def num_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_nobody_listens_but_the_front_end_on_its_port(survivor: Server) -> None:
    port = int(survivor.url.rpartition(":")[2])
    assert listeners(list(survivor.pids().values())) == {f"0100007F:{port:04X}"}
