"""The API keys of `--api-key-file`: who may let the server work. Knows no routes.

The file is read again when it changes, so that keys rotate without a restart: put the new key beside the old one, move
the clients, take the old one out. What is kept of a key is its hash, and nothing of it is ever logged.
"""

from __future__ import annotations

import codecs
import hashlib
import hmac
import logging
import os
import stat
from pathlib import Path

from minisgl.errors import RequestError, StartError
from minisgl.termination import Reason

MAX_BYTES = 2**20  # ten thousand keys; more is some other file, given by mistake

logger = logging.getLogger(__name__)

Stamp = tuple[int, ...]  # of the file behind all links: a mounted Secret changes by a link


class Keys:
    """The keys that hold now. `check` looks whether the file has changed: one `stat` per request."""

    def __init__(self, path: Path) -> None:
        """Raises StartError if there is no usable key; later on the keys that were read last stay in force."""
        self._path = path
        self._seen: Stamp | None
        try:
            self._seen, self._hashes = read(path)
        except (OSError, ValueError) as error:
            raise StartError(
                Reason.INVALID_ARGUMENTS, f"--api-key-file {path}: {_why(error)}; give a file with one key per line"
            ) from error

    def check(self, authorization: str | None) -> None:
        """Raises RequestError (401) unless the header's value is `Bearer` and one of the keys."""
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _refused("This server needs an API key; send the header Authorization: Bearer KEY.")
        self._look()
        given = hashlib.sha256(key.strip().encode("latin-1")).digest()  # the bytes of the header as they came
        # Every key is compared, and hashes are of one length: the time tells nothing of them.
        if not sum([hmac.compare_digest(given, known) for known in self._hashes]):
            raise _refused("The API key is none of this server's; ask its owner for one.")

    def _look(self) -> None:
        """Read a changed file; each change that cannot be used is told once."""
        stamp = stamp_of(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._seen, self._hashes = read(self._path)
        except (OSError, ValueError) as error:
            logger.warning("keys-kept file=%s: %s; the keys that were read before stay", self._path, _why(error))
        else:
            logger.info("keys-read file=%s keys=%d", self._path, len(self._hashes))


def read(path: Path) -> tuple[Stamp, tuple[bytes, ...]]:
    """The file's stamp and the hashes of its keys. Raises OSError or ValueError, which say why there are none."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        text = file.read(MAX_BYTES + 1).removeprefix(codecs.BOM_UTF8)
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if not keys:
        raise ValueError("it holds no key")
    return stamp, tuple(hashlib.sha256(key).digest() for key in keys)


def stamp_of(path: Path) -> Stamp | None:
    """What changes when the file does; None if it is not there."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size  # ctime: of a chmod


def _why(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _refused(message: str) -> RequestError:
    return RequestError(message, status=401, code="invalid_api_key")
