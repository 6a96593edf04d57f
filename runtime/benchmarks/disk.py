"""What a disk gives of files that no cache has: the yardstick of everything that loads them."""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

READERS, PIECE_BYTES = (1, 8), 2**20


def forget(files: Iterable[Path]) -> None:
    """Take the files out of the page cache: with every clean page where this is allowed, else each alone."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for file in files:
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_forgotten(file: Path) -> bool | None:
    """Whether the page cache has nearly nothing of it: a tmpfs keeps everything. None: the kernel does not tell."""
    try:
        before = _read_bytes()
        with file.open("rb", buffering=0) as opened:
            size = len(opened.read(2**20))
        return _read_bytes() - before >= size // 2
    except (OSError, KeyError):
        return None


def plain_rate(files: Sequence[Path], readers: int, most: int = 8 * 2**30) -> float:
    """GB/s of reading the files' first `most` bytes from their begin to their end, by one or several readers."""
    pieces = [(file, at) for file in files for at in range(0, file.stat().st_size, PIECE_BYTES)]
    pieces = pieces[: -(-most // PIECE_BYTES)]
    forget(files)
    opened = {file: os.open(file, os.O_RDONLY) for file in files}

    waiting = deque(pieces)

    def read(_: int) -> int:
        done = 0
        with mmap.mmap(-1, PIECE_BYTES) as memory, suppress(IndexError):
            while True:
                file, at = waiting.popleft()
                done += os.preadv(opened[file], [memory], at)
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(readers) as pool:
        total = sum(pool.map(read, range(readers)))
    seconds = time.perf_counter() - began
    for descriptor in opened.values():
        os.close(descriptor)
    return total / 1e9 / seconds


def rates(files: Sequence[Path]) -> dict[str, float]:
    """With one reader and with several: which is the faster depends on the disk and on the cores."""
    return {f"disk_gb_per_s_{readers}": round(plain_rate(files, readers), 2) for readers in READERS}


def _read_bytes() -> int:
    """What this process has had from disks."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(told["read_bytes"])
