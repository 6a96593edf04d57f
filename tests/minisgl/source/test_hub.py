"""A model on the hub, through the hub's own client: a small hub on the loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from minisgl.errors import StartError
from minisgl.source import find_model, revision_of
from minisgl.termination import Reason
from support.hub_server import COMMIT, HubServer

WEIGHTS = bytes(100_000)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("{}")
    for name in ("pytorch_model.bin", "modeling.py"):
        (folder / name).touch()
    return folder


@pytest.fixture
def server(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(repository) as running:
        # The client reads its environment when it is imported.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield running


def test_a_model_comes_with_the_commit_that_its_revision_meant(server: HubServer) -> None:
    for name in ("org/name", "org/name@v1", f"org/name@{COMMIT}"):
        folder = find_model(name)
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
        assert revision_of(folder) == COMMIT
    assert sum("GET" in each and "model.safetensors" in each for each in server.seen) == 1


def test_bytes_are_told_while_they_come(server: HubServer, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    find_model("org/name", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(WEIGHTS) + 2, len(WEIGHTS) + 2)
    assert capfd.readouterr().err == ""  # and no bar is drawn


def test_a_gated_model_wants_a_token_that_may_read_it(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "hf_right"
    for token in ("", "hf_wrong"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(StartError, match="HF_TOKEN must belong to an account") as caught:
            find_model("org/name")
        assert caught.value.reason is Reason.ACCESS_DENIED
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert (find_model("org/name") / "config.json").is_file()


@pytest.mark.parametrize("name", ["org/other", "org/name@v2"])
def test_what_the_hub_does_not_have_is_named(name: str, server: HubServer) -> None:
    with pytest.raises(StartError, match=f"--model-path {name}: .*not on the Hugging Face hub") as caught:
        find_model(name)
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_hub_that_is_away_does_not_stop_a_model_that_is_there(server: HubServer) -> None:
    folder = find_model("org/name")
    server.shutdown()
    server.server_close()
    assert find_model("org/name") == folder


def test_a_hub_that_goes_away_in_the_middle_of_a_file_is_tried_again_by_the_next_start(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)  # between the client's own tries
    server.cut_after = 1000
    with pytest.raises(StartError, match="check the network and the disk") as caught:
        find_model("org/name")
    assert caught.value.reason is Reason.START_FAILED
    server.cut_after = None
    assert (find_model("org/name") / "model.safetensors").read_bytes() == WEIGHTS
