"""API keys: read from a file, read again when it changes, and asked for by every route that is not open."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from minisgl.errors import RequestError, StartError
from minisgl.server.keys import Keys
from minisgl.termination import Reason
from support.server import Server, running
from support.words import save_words


def holds(keys: Keys, key: str) -> bool:
    try:
        keys.check(f"Bearer {key}")
    except RequestError as error:
        refused = error
    else:
        return True
    assert (refused.status, refused.code) == (401, "invalid_api_key")
    assert key not in str(refused)
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("# the first team\nsk-one\n\n   # the second\n  sk-two  \r\n")
    return file


def test_each_line_is_a_key_but_comments_and_blank_lines(path: Path) -> None:
    keys = Keys(path)
    assert holds(keys, "sk-one")
    assert holds(keys, "sk-two")
    for wrong in ("sk-three", "sk-on", "sk-one2", "#", "# the first team", "the", "SK-ONE", "ä"):
        assert not holds(keys, wrong), wrong


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "sk-one", "Basic sk-one", "Bearersk-one"])
def test_a_header_without_a_key_is_told_how_to_send_one(path: Path, header: str | None) -> None:
    with pytest.raises(RequestError, match="Authorization: Bearer KEY"):
        Keys(path).check(header)


def test_the_scheme_is_known_in_any_case(path: Path) -> None:
    Keys(path).check("bearer  sk-one")


def test_a_key_is_its_bytes_whatever_they_spell(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + "schlüssel".encode())
    Keys(path).check(f"Bearer {'schlüssel'.encode().decode('latin-1')}")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "it holds no key"),
        (b"# nobody\n\n", "it holds no key"),
        (b"x" * (2**20 + 1), "larger than"),
    ],
    ids=["missing", "empty", "comments", "huge"],
)
def test_a_file_without_keys_ends_the_start_with_one_line(path: Path, content: bytes | None, why: str) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(StartError) as caught:
        Keys(path)
    assert caught.value.reason is Reason.INVALID_ARGUMENTS
    assert str(caught.value).startswith(f"--api-key-file {path}: ")
    assert why in str(caught.value)
    assert "one key per line" in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(StartError, match="not a regular file"):
            Keys(place)


def test_a_rewritten_file_holds_at_once(path: Path) -> None:
    keys = Keys(path)
    path.write_text("sk-new\n")
    assert holds(keys, "sk-new")
    assert not holds(keys, "sk-one")


def test_a_mounted_secret_rotates_by_its_link(tmp_path: Path) -> None:
    for version in ("1", "2"):  # of one length, and written in one moment
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(f"sk-{version}\n")
        os.utime(tmp_path / version / "keys", (0, 0))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = Keys(tmp_path / "keys")
    assert holds(keys, "sk-1")
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert holds(keys, "sk-2")
    assert not holds(keys, "sk-1")


@pytest.mark.parametrize("loss", ["unlink", "empty"])
def test_a_rotation_that_fails_keeps_the_old_keys_and_tells_it_once(
    path: Path, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys(path)
    path.unlink() if loss == "unlink" else path.write_text("")
    for _ in range(3):
        assert holds(keys, "sk-one")
        assert not holds(keys, "sk-wrong")
    assert len(caplog.records) == 1
    assert "keys-kept" in caplog.text
    path.write_text("sk-new\n")
    assert holds(keys, "sk-new")


def test_no_key_reaches_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = Keys(path)
    path.write_text("sk-secret\n")
    assert holds(keys, "sk-secret")
    assert not holds(keys, "sk-guess")
    assert "keys=1" in caplog.text
    assert "sk-" not in caplog.text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "keys").write_text("sk-right\n")
    with running(save_words(folder), f"--api-key-file={folder / 'keys'}") as server:
        yield server
        assert "sk-" not in server.log


@pytest.mark.cpu
def test_the_official_client_is_let_in_with_the_right_key_only(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-right", max_retries=0) as client:
        assert client.completions.create(model="tiny", prompt="abc", max_tokens=3).choices[0].text == "abc"
        assert client.models.list().data[0].id == "tiny"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.completions.create(model="tiny", prompt="abc", max_tokens=3)
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.cpu
def test_a_server_without_its_keys_does_not_start(tmp_path: Path) -> None:
    with Server(save_words(tmp_path), "--api-key-file=/nowhere/keys") as server:
        assert server.wait_end(30) == 2
        said = [line for line in server.log.splitlines() if line.startswith("minisgl: ")]
    assert len(said) == 1
    assert "--api-key-file /nowhere/keys: No such file or directory; give a file with one key per line" in said[0]
