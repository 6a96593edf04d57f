"""What the fault matrix stands on: model folders that cost nothing, and one real server that no fault may end.

Each module names its rows of the runtime fault matrix (A1 to A31): these are A1 to A10, A26 to A28 and A30.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import SLACK, TINY, Server, running, wait_gone
from support.words import save_dummy


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words, and settings for random weights; also the place of the servers' logs."""
    return save_dummy(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def survivor(model: Path) -> Iterator[Server]:
    """Two real ranks. Row A6 at its end: it stops in time with 0, which also says that no request stayed open."""
    flags = (*TINY, "--tp=2", "--num-tokenizer=1", "--max-running-requests=2", "--max-prefill-length=16")
    with running(model, *flags, "--drain-timeout-seconds=600", scheduler="faulty", fake="step=0.01") as server:
        yield server
        pids = list(server.pids().values())
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_end(2 * SLACK) == 0, server.log
        assert time.monotonic() - started < 2 * SLACK
        wait_gone(pids, 1)
        assert "Traceback" not in server.log
