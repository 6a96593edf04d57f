"""A model in an object store, over the real protocol: a server on the loopback that checks signatures."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from minisgl.errors import StartError
from minisgl.source import SETTINGS, WORDS, bucket, cache, find_model, revision_of
from minisgl.termination import Reason
from support.s3_server import S3Server, signature

KEY = ("reader", "secret-of-the-reader")
WEIGHTS = bytes(range(256)) * 1024  # 256 KiB in four parts
URL = "s3://weights/models/tiny"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What lies in the bucket."""
    folder = tmp_path / "store" / "weights" / "models" / "tiny"
    (folder / "original").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    for name in ("config.json", "tokenizer.json", "generation_config.json", "original/params.json"):
        (folder / name).write_text(f'{{"name": "{name}"}}')
    for name in ("pytorch_model.bin", "modeling.py", "README.md", "empty.json"):
        (folder / name).touch()
    return folder


@pytest.fixture
def server(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    monkeypatch.setenv("MINISGL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket, "PART_BYTES", 64 * 1024)
    quick = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=10), "base": 2}
    monkeypatch.setattr(bucket, "RETRY", {"max_retries": 1, "backoff": quick, "retry_timeout": timedelta(seconds=30)})
    with S3Server(tmp_path / "store", KEY) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY[1])
        yield running


def refused(url: str = URL) -> StartError:
    with pytest.raises(StartError) as caught:
        find_model(url)
    return caught.value


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_the_server_of_these_tests_signs_as_the_manual_of_s3_does() -> None:
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "x-amz-date": "20130524T000000Z",
    }
    made = signature(
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "GET",
        "/test.txt",
        headers,
        ";".join(headers),
        ["20130524", "us-east-1"],
    )
    assert made == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def test_a_model_is_fetched_whole_and_without_code_or_pickles(server: S3Server, model: Path) -> None:
    folder = find_model(URL)
    wanted = {"config.json", "tokenizer.json", "generation_config.json", "empty.json", "model.safetensors"}
    assert visible(folder) == wanted
    for name in wanted:
        assert (folder / name).read_bytes() == (model / name).read_bytes()


def test_each_process_fetches_what_it_needs_and_nothing_twice(server: S3Server) -> None:
    words = find_model(URL, WORDS)
    assert visible(words) == {"tokenizer.json"}
    assert find_model(URL, SETTINGS) == words
    assert "model.safetensors" not in visible(words)
    find_model(URL)
    sent = server.sent
    assert find_model(URL) == words
    assert server.sent - sent < 10_000  # a list, no object


def test_bytes_are_told_while_they_come(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LOOK_SECONDS", 0.01)
    told: list[tuple[int, int]] = []
    find_model(URL, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] > len(WEIGHTS)


def test_a_torn_connection_costs_only_what_was_lost(server: S3Server) -> None:
    server.faults.cut_after = 10_000
    folder = find_model(URL)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_fetch_that_was_ended_goes_on_where_it_was(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends_early(*_: Any, **__: Any) -> Any:
        raise StartError(Reason.START_FAILED, "killed")

    real = bucket.obstore.get
    gets: list[Any] = []

    def get(store: Any, path: str, *, options: Any) -> Any:
        gets.append((path, options["range"]))
        return ends_early() if options["range"][0] >= 2 * bucket.PART_BYTES else real(store, path, options=options)

    monkeypatch.setattr(bucket.obstore, "get", get)
    with pytest.raises(StartError, match="killed"):
        find_model(URL)
    monkeypatch.setattr(bucket.obstore, "get", real)
    server.seen.clear()
    folder = find_model(URL)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [path.split()[1] for _, path in server.seen if "model.safetensors" in path]
    assert ranges[0] == f"bytes={2 * bucket.PART_BYTES}-{3 * bucket.PART_BYTES - 1}"


def test_processes_that_share_a_cache_fetch_each_file_once(server: S3Server) -> None:
    server.faults.on_read = threading.Event()
    code = f"from minisgl.source import find_model; print(find_model('{URL}'))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    while sum(path == "/weights" for _, path in list(server.seen)) < len(processes):  # lists
        time.sleep(0.01)
    server.faults.on_read.set()
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    (folder,) = {Path(each) for each in said}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    reads = [path for _, path in server.seen if "bytes=" in path]
    assert len(reads) == len(set(reads)) == 4  # the fifth file is empty


def test_a_changed_bucket_is_another_folder(server: S3Server, model: Path) -> None:
    first = find_model(URL)
    (model / "config.json").write_text("{}")
    second = find_model(URL)
    assert (second / "config.json").read_text() == "{}"
    assert (first / "config.json").read_text() != "{}"
    assert revision_of(first) != revision_of(second) == second.name


def test_an_object_that_changes_while_it_is_read_is_no_mixture(
    server: S3Server, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bucket.obstore.get

    def get(store: Any, path: str, *, options: Any) -> Any:
        if path == "model.safetensors" and options["range"][0]:
            (model / path).write_bytes(bytes(len(WEIGHTS)))
        return real(store, path, options=options)

    monkeypatch.setattr(bucket.obstore, "get", get)
    error = refused()
    assert error.reason is Reason.START_FAILED  # the next start may do
    assert "changed while it was read" in str(error)
    monkeypatch.setattr(bucket.obstore, "get", real)
    assert (find_model(URL) / "model.safetensors").read_bytes() == bytes(len(WEIGHTS))


def test_what_is_not_there_is_named(server: S3Server) -> None:
    error = refused("s3://other/models/tiny")
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert "s3://other/models/tiny" in str(error)
    assert "NoSuchBucket" in str(error)
    error = refused("s3://weights/models/tine")
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert "s3://weights/models/tine holds no" in str(error)


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
        ({"AWS_ACCESS_KEY_ID": ""}, "Missing AccessKeyId"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "AccessDenied"),
    ],
)
def test_a_key_that_does_not_open_is_access_denied(
    environment: dict[str, str], code: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    error = refused()
    assert error.reason is Reason.ACCESS_DENIED
    assert code in str(error)
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must hold" in str(error)
    assert KEY[1] not in str(error)


def test_a_public_bucket_needs_no_key(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = None
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert (find_model(URL) / "config.json").is_file()


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_store_that_fails_is_tried_again_by_the_next_start(status: int, server: S3Server) -> None:
    server.faults.status = status
    error = refused()
    assert error.reason is Reason.START_FAILED
    assert server.url in str(error)


def test_a_store_that_is_away_does_not_stop_a_model_that_was_fetched_whole(server: S3Server) -> None:
    find_model(URL, WORDS)
    server.faults.status = 503
    refused()
    server.faults.status = None
    folder = find_model(URL)
    server.faults.status = 503
    assert find_model(URL) == folder
    server.faults.status = 403
    assert refused().reason is Reason.ACCESS_DENIED  # an answer is an answer


def test_a_full_disk_is_told_with_figures(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    error = refused()
    assert error.reason is Reason.STORAGE_FULL
    assert "GB are to come, 0.0 GB are free" in str(error)
    assert "MINISGL_CACHE" in str(error)


def test_a_disk_that_becomes_full_is_told(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fdatasync", no_space)
    error = refused()
    assert error.reason is Reason.STORAGE_FULL
    assert "No space left on device" in str(error)


def test_a_cache_that_cannot_be_written_is_named(server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    error = refused()
    assert error.reason is Reason.START_FAILED
    assert str(tmp_path / "cache") in str(error)
    assert "MINISGL_CACHE" in str(error)


def test_an_image_without_certificates_reads_a_bucket_too(server: S3Server, tmp_path: Path) -> None:
    nothing = {"SSL_CERT_FILE": str(tmp_path / "none"), "SSL_CERT_DIR": str(tmp_path / "none")}
    code = f"from minisgl.source import find_model; print(find_model('{URL}'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nothing, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "config.json").is_file()
