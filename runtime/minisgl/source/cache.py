"""Files that are fetched once into a folder which processes, and pods with one claim, share.

    name            whole: it gets this name only when its last byte is on the disk
    .name.partial   as far as it came; the next try goes on from there
    .name.lock      held by the one that fetches; the kernel lets it go when that one dies

Knows nothing of where the bytes come from.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from minisgl.errors import StartError
from minisgl.termination import Reason

NUM_FETCHERS = (
    8  # files at the same time: one stream of an object store gives some 100 MB/s, a node takes ten times that
)
LOOK_SECONDS = 0.5  # between reports, and between looks at what another fetches
GB = 10**9

Progress = Callable[[int, int], None]  # bytes that are there, bytes in all


def say_nothing(done: int, total: int) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class File:
    """One file of a model. `tag` changes when its content does."""

    name: str
    size: int
    tag: str


Read = Callable[[File, int], Iterator[bytes]]  # the content from an offset on, in parts


def root() -> Path:
    """Where fetched models are kept: MINISGL_CACHE, else minisgl/ in the user's cache folder."""
    if named := os.environ.get("MINISGL_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minisgl"


def is_whole(folder: Path, file: File) -> bool:
    """Whether the file is there to its last byte."""
    return _size(folder / file.name) == file.size


def fetch(files: Sequence[File], folder: Path, read: Read, progress: Progress = say_nothing) -> None:
    """Have all `files` in `folder`; what another process fetches is waited for.

    Raises what `read` raises, and StartError when the disk is full or cannot be written.
    """
    total = sum(file.size for file in files)
    try:
        missing = [file for file in files if not is_whole(folder, file)]
        if not missing:
            return
        folder.mkdir(parents=True, exist_ok=True)
        rest = total - _done(files, folder)
        if rest > (free := shutil.disk_usage(folder).free):
            raise no_room(str(folder), "MINISGL_CACHE", f"{rest / GB:.1f} GB are to come, {free / GB:.1f} GB are free")
        stop = threading.Event()
        with ThreadPoolExecutor(min(NUM_FETCHERS, len(missing)), "fetch") as pool:
            waiting = {pool.submit(_have, file, folder, read, stop) for file in missing}
            try:
                while waiting:
                    ended, waiting = wait(waiting, LOOK_SECONDS, FIRST_EXCEPTION)
                    for each in ended:
                        each.result()
                    progress(_done(files, folder), total)
            finally:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
    except OSError as error:
        if is_full(error):
            raise no_room(str(folder), "MINISGL_CACHE", error) from error
        raise StartError(
            Reason.START_FAILED,
            f"the cache folder {error.filename or folder} cannot be written: {error.strerror or error}; "
            "name one in MINISGL_CACHE that this user may write, or check the rights of the claim",
        ) from error


def _have(file: File, folder: Path, read: Read, stop: threading.Event) -> None:
    """One file: there already, fetched by another, or fetched here."""
    lock = FileLock(folder / f".{file.name}.lock")
    while not stop.is_set() and not is_whole(folder, file):
        try:
            with lock.acquire(timeout=LOOK_SECONDS):
                if not is_whole(folder, file):
                    _write(file, folder, read, stop)
        except Timeout:
            continue


def _write(file: File, folder: Path, read: Read, stop: threading.Event) -> None:
    partial = folder / f".{file.name}.partial"
    if (_size(partial) or 0) > file.size:
        partial.unlink()
    with partial.open("ab") as out:
        for part in read(file, out.tell()) if out.tell() < file.size else ():
            out.write(part)
            out.flush()
            os.fdatasync(out.fileno())  # a length that outlives a crash of the node vouches for its bytes
            if stop.is_set():
                return
    if (size := _size(partial)) != file.size:
        raise StartError(
            Reason.START_FAILED, f"{file.name} ended after {size} of {file.size} bytes; the next start goes on"
        )
    partial.rename(folder / file.name)


def _done(files: Sequence[File], folder: Path) -> int:
    return sum(
        file.size if is_whole(folder, file) else min(_size(folder / f".{file.name}.partial") or 0, file.size)
        for file in files
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def is_full(error: OSError) -> bool:
    """Whether the disk, or a quota on it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_room(what: str, variable: str, why: object) -> StartError:
    """The error of a full disk. `variable` names the folder."""
    return StartError(
        Reason.STORAGE_FULL,
        f"no room for {what}: {why}; free some, or name a larger folder in {variable}",
    )
