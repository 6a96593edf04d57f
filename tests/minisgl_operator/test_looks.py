"""Who is asked when: at most every 10 seconds, more rarely if no answer comes, and nobody who is not looked at."""

import asyncio

import pytest

from minisgl.info import StartInfo
from minisgl_operator.api import Key
from minisgl_operator.looks import Looks
from minisgl_operator.objects import Object
from support.cluster_objects import a_deployment, a_pod, loading_info, start_info

KEY = Key("ns", "smollm2")
DEPLOYMENT = a_deployment().counting(1).obj


class Stage:
    """A clock that the test turns, and pods that answer or do not."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[str] = []
        self.answer: StartInfo | None = loading_info()
        self.looks = Looks(self._ask, lambda: self.now)

    async def _ask(self, pod: Object) -> StartInfo | None:
        self.asked.append(pod["metadata"]["name"])
        return self.answer

    def look(self, *names: str, ready: bool = False) -> tuple[dict[str, StartInfo], float | None]:
        pods = [a_pod(name, DEPLOYMENT) for name in names]
        pods = [(pod.ready() if ready else pod.running()).obj for pod in pods]
        return asyncio.run(self.looks.look(KEY, pods))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_pod_is_asked_every_ten_seconds_and_its_last_answer_holds_in_between(stage: Stage) -> None:
    assert stage.look("p") == ({"uid-p": loading_info()}, 10.0)
    stage.now += 9
    assert stage.look("p") == ({"uid-p": loading_info()}, 1.0)
    assert stage.asked == ["p"]
    stage.now += 1
    stage.look("p")
    assert stage.asked == ["p", "p"]


def test_a_pod_that_does_not_answer_is_asked_ever_more_rarely(stage: Stage) -> None:
    stage.answer = None
    waits = []
    for _ in range(8):
        told, wait = stage.look("p")
        assert told == {}
        assert wait is not None
        waits.append(wait)
        stage.now += wait
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_pod_that_has_started_is_not_asked_again(stage: Stage) -> None:
    stage.answer = start_info()
    assert stage.look("p") == ({"uid-p": start_info()}, None)
    stage.now += 1000
    assert stage.look("p") == ({"uid-p": start_info()}, None)
    assert stage.asked == ["p"]


def test_a_pod_that_has_become_ready_is_asked_at_once_and_not_again_and_again(stage: Stage) -> None:
    stage.look("p")
    stage.now += 1
    assert stage.look("p", ready=True) == ({"uid-p": loading_info()}, 10.0)
    assert stage.look("p", ready=True) == ({"uid-p": loading_info()}, 10.0)
    assert stage.asked == ["p", "p"]


def test_one_lost_answer_keeps_the_last_one(stage: Stage) -> None:
    stage.look("p")
    stage.answer = None
    stage.now += 10
    assert stage.look("p") == ({"uid-p": loading_info()}, 10.0)


def test_nobody_to_look_at_is_nobody_asked_and_nothing_kept(stage: Stage) -> None:
    stage.look("p")
    assert stage.look() == ({}, None)
    stage.look("p")
    assert stage.asked == ["p", "p"]
