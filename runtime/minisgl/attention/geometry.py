"""Where the tokens of a step stand: positions, slots of the pool, and the pages of each request one after the other.

Pure numpy over the arrays of `engine.batch`; shared by the backends.

    page size 4      request 0: 6 tokens cached, 1 to compute      request 1: nothing cached, 3 to compute
    pages            [7, 3]                                        [5]
    positions        6                                             0 1 2
    slots            3 * 4 + 2                                     5 * 4 + 0, 1, 2
    lengths          7                                             3
    page list        7 3 | 5                                       bounds 0, 2, 3
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


def positions(starts: Int32, counts: Int32) -> NDArray[np.int64]:
    """Position of every token: start, start + 1, … request by request."""
    first = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return first.astype(np.int64) + np.arange(len(first))


def slots(starts: Int32, counts: Int32, pages: Int32, page_size: int) -> NDArray[np.int64]:
    """Slot of every token: page * page_size + offset."""
    owner = np.repeat(np.arange(len(counts)), counts)
    where = positions(starts, counts)
    return pages[owner, where // page_size] * np.int64(page_size) + where % page_size


def bounds(counts: NDArray[np.integer]) -> Int32:
    """Where each request begins and the last one ends: 0, counts[0], counts[0] + counts[1], …"""
    result = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=result[1:])
    return result


def page_list(lengths: Int32, pages: Int32, page_size: int) -> tuple[Int32, Int32]:
    """The pages in use, request by request, and their bounds; `lengths` in tokens."""
    used = -(-lengths // page_size)
    return pages[np.arange(pages.shape[1]) < used[:, None]], bounds(used)


def last_page_len(lengths: Int32, page_size: int) -> Int32:
    """Tokens in each request's last page: 1 to `page_size`."""
    return ((lengths - 1) % page_size + 1).astype(np.int32)
