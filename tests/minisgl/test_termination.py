"""The termination message, as Kubernetes keeps it and the operator reads it back."""

from pathlib import Path

import pytest

from minisgl.termination import MOST_BYTES, Memory, Reason, Termination, leave, read


@pytest.mark.parametrize("text", ["a", "é", "模", '"', "\\", "\x00", "\udcff"], ids=ascii)
def test_a_message_of_any_length_and_any_characters_is_read_back(text: str, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    leave(Termination(reason=Reason.OUT_OF_MEMORY, message="no room: " + text * 5000, memory=Memory.HOST), log)
    found = read(log.read_bytes()[-MOST_BYTES:].decode())
    assert found is not None
    assert (found.reason, found.memory, found.hint) == (Reason.OUT_OF_MEMORY, Memory.HOST, Memory.HOST.hint)
    assert found.message.startswith("no room: ")
    assert len(found.message) > 500


def test_where_nobody_looks_nothing_is_left(tmp_path: Path) -> None:
    leave(Termination(reason=Reason.START_FAILED, message="no"), tmp_path / "termination-log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "Killed", "{}", '{"reason": "Tomorrow", "message": "m"}'])
def test_what_is_not_ours_is_no_termination(text: str) -> None:
    assert read(text) is None
