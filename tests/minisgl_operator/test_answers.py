"""Answers of inspections are shared for a minute, within a namespace."""

from minisgl_operator.answers import KEPT_SECONDS, Answers

KNOWN = {"revision": "r1", "model": {"numLayers": 2}}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_found_for_a_minute_in_its_namespace_and_for_its_revision() -> None:
    clock = Clock()
    answers = Answers(clock)
    answers.keep("a", KNOWN)
    clock.now += KEPT_SECONDS
    assert answers.find("a", "r1") == KNOWN
    assert answers.find("b", "r1") is None
    assert answers.find("a", "r2") is None
    clock.now += 0.1
    assert answers.find("a", "r1") is None


def test_a_newer_answer_lives_longer_than_the_older_one_that_it_replaces() -> None:
    clock = Clock()
    answers = Answers(clock)
    answers.keep("a", KNOWN)
    answers.keep("a", KNOWN | {"revision": "r2"})
    clock.now += KEPT_SECONDS
    answers.keep("a", KNOWN)
    clock.now += 1.0
    assert answers.find("a", "r1") == KNOWN
    assert answers.find("a", "r2") is None
