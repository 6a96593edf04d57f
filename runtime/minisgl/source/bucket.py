"""A model in a bucket of an object store that speaks S3.

The environment names it, as for every such client: AWS_ENDPOINT_URL (unset: AWS), AWS_REGION, AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY. Without a key requests are not signed. Files are kept under a digest of all their names, sizes
and tags: what changes in the bucket becomes another folder, and never a mixture.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import S3Store

from minisgl.errors import StartError
from minisgl.source import cache
from minisgl.source.cache import File, Progress
from minisgl.termination import Reason

if TYPE_CHECKING:  # types that the library has for checkers only
    from obstore.store import ClientConfig, RetryConfig

PART_BYTES = 16 * 2**20  # of one request: its time-out is a time for so much, and so much is read again after a failure
CLIENT: ClientConfig = {"connect_timeout": "10s", "timeout": "120s", "allow_http": True}
RETRY: RetryConfig = {"max_retries": 6, "retry_timeout": timedelta(minutes=3)}
# Who else may vouch for a process, in a cloud's own pods.
IDENTITIES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
STATUS = re.compile(r"status code: (\d{3})")
PASSING = (408, 425, 429)  # too slow, too early, too many requests: the same request may do later
CODE = re.compile(r"<Code>(\w+)</Code>")
SAID = re.compile(r"<Message>([^<]{1,300})")
LATEST = "latest"  # a file: the folder that was whole most recently

log = logging.getLogger(__name__)


def download(bucket: str, folder: str, known: Sequence[str], wanted: Sequence[str], progress: Progress) -> Path:
    """The local folder with the `wanted` files of s3://bucket/folder. `known` are the patterns of all files of a model.

    When the store does not answer, what was fetched whole before is served.
    """
    url = f"s3://{bucket}/{folder}".rstrip("/")
    place = cache.root() / "s3" / bucket / folder
    _trust()
    try:
        store = S3Store(
            bucket,
            prefix=folder or None,
            client_options=CLIENT,
            retry_config=RETRY,
            skip_signature=not any(name in os.environ for name in IDENTITIES),
        )
        files = _list(store, known)
    except (BaseError, FileNotFoundError) as error:
        explained = _explain(error, url)
        if explained.reason == Reason.START_FAILED and (earlier := _latest(place)) is not None:
            log.warning("object store does not answer, serving what was fetched before revision=%s", earlier.name)
            return earlier
        raise explained from error
    if not files:
        raise StartError(
            Reason.MODEL_NOT_FOUND,
            f"--model-path {url} holds no *.json or *.safetensors; name the folder that holds config.json",
        )
    target = place / revision(files)

    def read(file: File, offset: int) -> Iterator[bytes]:
        for start in range(offset, file.size, PART_BYTES):
            span = (start, min(start + PART_BYTES, file.size))
            try:
                found = obstore.get(store, file.name, options={"range": span, "if_match": file.tag or None})
                yield bytes(found.bytes())
            except (BaseError, FileNotFoundError) as error:
                raise _explain(error, f"{url}/{file.name}") from error

    cache.fetch([file for file in files if _matches(file.name, wanted)], target, read, progress)
    if all(cache.is_whole(target, file) for file in files):
        _remember(place, target)
    return target


def _trust() -> None:
    """Name certifi's certificates where the system has none: the client does not start without, not even for http."""
    system = ssl.get_default_verify_paths()
    if system.cafile is None and not (system.capath and any(os.scandir(system.capath))):
        os.environ["SSL_CERT_FILE"] = certifi.where()


def revision(files: Sequence[File]) -> str:
    """A name for exactly this content."""
    lines = "\n".join(sorted(f"{file.name} {file.size} {file.tag}" for file in files))
    return f"s3-{hashlib.sha256(lines.encode()).hexdigest()[:16]}"


def _list(store: S3Store, known: Sequence[str]) -> list[File]:
    """The files of a model that lie in the folder itself, not below it."""
    found = obstore.list_with_delimiter(store)["objects"]
    files = [File(each["path"], each["size"], each["e_tag"] or "") for each in found]
    return [file for file in files if _matches(file.name, known)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _latest(place: Path) -> Path | None:
    try:
        folder = place / (place / LATEST).read_text()
    except OSError:
        return None
    return folder if folder.is_dir() else None


def _remember(place: Path, folder: Path) -> None:
    new = place / f".{LATEST}.{os.getpid()}"
    try:
        new.write_text(folder.name)
        new.rename(place / LATEST)
    except OSError as error:  # a help for bad days only
        log.warning("cannot be remembered place=%s error=%s", place, error)


def _explain(error: Exception, url: str) -> StartError:
    """What the store said, as one sentence and a reason."""
    text = str(error)
    found = STATUS.search(text)
    status = int(found[1]) if found else 0
    code, said = CODE.search(text), SAID.search(text)
    where = f"{url} at {os.environ.get('AWS_ENDPOINT_URL', 'AWS')}"
    told = ": ".join(each[1] for each in (code, said) if each) or text.split("\n", 1)[0]
    if status in (401, 403) or "error: Missing" in text:  # one of the two variables alone
        return StartError(
            Reason.ACCESS_DENIED,
            f"--model-path {where}: access denied ({told}); AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must hold "
            "a key that may list the bucket and read its objects",
        )
    if status == 404:
        return StartError(Reason.MODEL_NOT_FOUND, f"--model-path {where}: not found ({told}); check bucket and folder")
    if isinstance(error, PreconditionError):
        return StartError(
            Reason.START_FAILED,
            f"--model-path {where} changed while it was read; the next start takes what is there then",
        )
    if 300 <= status < 500 and status not in PASSING:
        return StartError(
            Reason.MODEL_NOT_FOUND,
            f"--model-path {where}: HTTP {status} ({told}); check endpoint and region (AWS_ENDPOINT_URL, AWS_REGION)",
        )
    return StartError(
        Reason.START_FAILED,
        f"--model-path {where}: the object store did not give it ({told}); check that it runs and can be reached",
    )
