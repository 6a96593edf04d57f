"""A5: an exception in the engine's step is the end of the batch, told to each of its requests, and of the server."""

from pathlib import Path

import pytest

from support.server import SLACK, TINY, Stream, running, wait_gone

pytestmark = pytest.mark.cpu


def test_an_engine_that_fails_answers_500_and_ends(model: Path) -> None:
    with running(model, *TINY, scheduler="faulty", fake="raise=7,step=0.02") as server:
        pids = list(server.pids().values())
        never_seven = {"logit_bias": {"7": -100}}  # drawn by chance, it would end the engine too soon
        open_streams = [Stream(server, text, **never_seven) for text in ("abc", "abd")]
        response = server.complete([65, 7, 66], max_tokens=5)
        assert response.status_code == 500
        assert "the engine failed" in response.json()["error"]["message"]
        assert all('"error"' in stream.last() for stream in open_streams)
        assert server.wait_end(5 * SLACK) == 70
        wait_gone(pids, 5)
        assert "the engine was told to fail" in server.log
        assert "scheduler-0 ended with code 70 while serving" in server.log
