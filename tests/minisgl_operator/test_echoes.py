"""An event that brings back the reply to an own write is told from one that brings news."""

import pytest

from minisgl_operator.echoes import Echoes
from minisgl_operator.objects import Object


def stored(uid: str, version: str) -> Object:
    return {"metadata": {"uid": uid, "resourceVersion": version}}


@pytest.mark.parametrize(
    ("event", "uid", "version", "expected"),
    [
        ("ADDED", "a", "7", True),
        ("MODIFIED", "a", "7", True),
        ("MODIFIED", "a", "8", False),  # somebody else's write
        ("MODIFIED", "b", "7", False),  # another object: versions of two kinds may be the same
        ("DELETED", "a", "7", False),
        (None, "a", "7", False),  # listed
    ],
)
def test_only_the_very_version_of_a_reply_is_an_echo(event: str | None, uid: str, version: str, expected: bool) -> None:
    echoes = Echoes()
    echoes.wrote(stored("a", "7"))
    assert echoes.is_echo(event, stored(uid, version)["metadata"]) is expected


def test_the_oldest_is_forgotten_first() -> None:
    echoes = Echoes(num_kept=2)
    for version in "123":
        echoes.wrote(stored("a", version))
    assert [echoes.is_echo("MODIFIED", stored("a", version)["metadata"]) for version in "123"] == [False, True, True]
