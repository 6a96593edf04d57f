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

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


class Paged(NamedTuple):
    """Requests as kernels know them, int32; arrays, or tensors on a host or a device."""

    queries: Any  # where each request's queries begin, and the end [requests + 1]
    bounds: Any  # the same for its pages in `indices` [requests + 1]
    last: Any  # tokens in each request's last page [requests]
    indices: Any  # pages of this step, other requests' among them


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


def fill(
    into: Paged, first_page: int, first_query: int, requests: tuple[Int32, Int32, Int32], size: int, empty_page: int
) -> int:
    """Write `requests` (starts, counts, pages) of pages of `size` tokens into arrays that have room for more.

    Their pages stand from `first_page` on, their queries from `first_query` on. A request that is padding has one
    token, in the empty page, and no query. Returns where the next pages may stand.
    """
    starts, counts, pages = requests
    real, lengths = len(counts), starts + counts
    listed, ends = page_list(lengths, pages, size)
    known = first_page + len(listed)
    padding = len(into.last) - real
    into.bounds[: real + 1] = first_page + ends
    into.bounds[real + 1 :] = known + np.arange(1, padding + 1)
    into.indices[first_page:known], into.indices[known : known + padding] = listed, empty_page
    into.last[:real], into.last[real:] = last_page_len(lengths, size), 1
    into.queries[: real + 1] = first_query + bounds(counts)
    into.queries[real + 1 :] = into.queries[real]
    return known + padding
