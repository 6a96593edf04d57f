"""Killed before and after each of its writes, the operator ends where it ends undisturbed (Sieve's oracle).

The story of a model: created, served, given other arguments and served again, scaled and served again.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from control_plane.proxy import Call, Fault
from control_plane.stage import Stage

NAME = "m"
NUM_WRITES = 17  # of the undisturbed story at least: a status that is told in two steps is two
SIDE_BY_SIDE = 6


def story(stage: Stage) -> Iterator[Callable[[], object]]:
    """What happens to the model; each step yields how to know that the operator is done with it."""
    stage.create(NAME)
    yield lambda: stage.reason(NAME) == "Starting"
    stage.serve(NAME)
    yield lambda: stage.reason(NAME) == "Serving" and "engine" in stage.model(NAME)["status"]
    stage.edit(NAME, runtime={"pageSize": 64})
    yield lambda: stage.reason(NAME) not in ("", "Serving")
    stage.serve(NAME)
    yield lambda: stage.reason(NAME) == "Serving"
    stage.edit(NAME, replicas=2)
    yield lambda: stage.reason(NAME) not in ("", "Serving")
    stage.serve(NAME)
    yield lambda: stage.reason(NAME) == "Serving" and stage.model(NAME)["status"].get("readyReplicas") == 2


def play(stage: Stage) -> tuple[dict[str, Any], Counter[str]]:
    """Play the story; whenever the operator is dead, it is started again. Returns the end, and what was made."""
    stage.start()
    for step, done in enumerate(story(stage)):

        def settled(done: Callable[[], object] = done) -> object:
            if not stage.operators[-1].is_alive():
                stage.start()
            return done()

        stage.until(f"step {step} is done", settled)
    return stage.final(NAME), stage.created()


def differences(right: Any, other: Any) -> list[str]:
    """The lines that differ, marked + and -."""
    texts = [json.dumps(each, indent=1, sort_keys=True).splitlines() for each in (right, other)]
    return [line for line in difflib.ndiff(*texts) if line[0] in "+-"]


@pytest.fixture(scope="module")
def undisturbed(plane: Any, pod_ip: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Counter[str], int]:
    stage = Stage(plane, tmp_path_factory.mktemp("undisturbed"), pod_ip)
    stage.open()
    end, made = play(stage)
    num_writes = len(stage.proxy.writes)
    stage.close()
    return end, made, num_writes


def test_the_undisturbed_story_has_the_writes_that_are_disturbed_below(undisturbed: tuple[Any, Any, int]) -> None:
    assert undisturbed[2] >= NUM_WRITES


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_write_it_ends_as_if_it_had_not_been(
    new_stage: Callable[[], Stage], undisturbed: tuple[Any, Counter[str], int], moment: str
) -> None:
    """Some stories side by side, as each mostly waits."""

    def disturbed(number: int) -> tuple[int, Any, Counter[str]]:
        stage = new_stage()

        def rule(call: Call) -> Fault | None:
            if call.number != number:
                return None
            kill = stage.operators[-1].kill
            return Fault(before=kill) if moment == "before" else Fault(after=kill)

        stage.proxy.rule = rule
        end, made = play(stage)
        stage.operators[-1].kill()
        return len(stage.operators), end, made

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for number, (num_starts, end, made) in enumerate(pool.map(disturbed, range(1, NUM_WRITES + 1)), 1):
            assert (number, differences(undisturbed[0], end)) == (number, [])
            assert (number, num_starts, made) == (number, 2, undisturbed[1])
