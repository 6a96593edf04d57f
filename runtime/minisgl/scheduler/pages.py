"""Who owns which page of the KV cache. Every page has exactly one owner: the free stack, the prefix cache, or a row.

    a row's pages   [ 0 ......... shared )[ shared ......... held )
                     the cache's, locked    the row's own, partly filled at the end
                     by this row

Knows tokens only as the cache's keys, and no tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minisgl.kvcache.base import Ids, Prefix, PrefixCache

Rows = NDArray[np.intp]


class PageTable:
    """One line of page numbers per row, and the pages nobody holds."""

    def __init__(self, num_pages: int, page_size: int, num_rows: int, max_len: int, cache: PrefixCache) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self.table = np.zeros((num_rows, self.pages_for(max_len)), np.int32)
        self.held = np.zeros(num_rows, np.int32)
        self._shared = np.zeros(num_rows, np.int32)
        self._prefixes: dict[int, Prefix] = {}  # what each open row has locked
        self._salts: dict[int, bytes] = {}  # and whose prefixes it shares
        self._free = np.arange(num_pages, dtype=np.int32)[::-1].copy()  # a stack, its top at num_free - 1
        self.num_free = num_pages
        self.cache = cache

    @property
    def available(self) -> int:
        """Pages that can be had without taking any from a row."""
        return self.num_free + self.cache.evictable_pages

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def open(self, row: int, ids: Ids, salt: bytes = b"") -> int:
        """Start a row with what the cache has of `ids` for this salt; returns the number of tokens found."""
        prefix = self.cache.match(ids, salt)
        self.cache.lock(prefix)
        found = len(prefix.pages)
        self.table[row, :found] = prefix.pages
        self.held[row] = self._shared[row] = found
        self._prefixes[row], self._salts[row] = prefix, salt
        return found * self.page_size

    def extend(self, rows: Rows, lengths: NDArray[np.int32]) -> bool:
        """Give each row the pages for its length in tokens; False, and nothing changed, when there are too few."""
        missing = np.maximum(-(-lengths // self.page_size) - self.held[rows], 0)
        total = int(missing.sum())
        if total == 0:
            return True
        if total > self.available:
            return False
        owner = np.repeat(rows, missing)
        nth = np.arange(total) - np.repeat(np.cumsum(missing) - missing, missing)  # 0, 1, … within each row
        self.table[owner, self.held[owner] + nth] = self._take(total)
        self.held[rows] += missing
        return True

    def share(self, row: int, ids: Ids) -> None:
        """Offer the whole pages of `ids`, all computed, to the cache, and go on with what it holds of them."""
        whole = len(ids) // self.page_size
        shared = int(self._shared[row])
        if whole == shared:
            return
        mine = self.table[row, :whole].copy()
        prefix = self.cache.insert(ids, mine, self._salts[row])
        self.cache.lock(prefix)
        self.cache.unlock(self._prefixes[row])
        self._prefixes[row] = prefix
        now = len(prefix.pages)
        # Another row brought the same tokens first: ours are duplicates. We move to the cache's pages, then free ours.
        duplicates = mine[shared:now][mine[shared:now] != prefix.pages[shared:now]]
        self.table[row, :now] = prefix.pages
        self._shared[row] = now
        self._give(duplicates)

    def close(self, row: int, ids: Ids) -> None:
        """End a row: the cache may keep the whole pages of `ids`, all else becomes free. Empty `ids`: keep nothing."""
        if len(ids):
            self.share(row, ids)
        self._give(self.table[row, self._shared[row] : self.held[row]])
        self.cache.unlock(self._prefixes.pop(row))
        del self._salts[row]
        self.held[row] = self._shared[row] = 0

    def flush(self) -> None:
        """Free all that the cache holds and no row has locked."""
        self._give(np.array(self.cache.evict(self.cache.evictable_pages), np.int32))

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every page has exactly one owner."""
        cached = self.cache.check_integrity()
        free = self._free[: self.num_free].tolist()
        own = [int(p) for row in self._prefixes for p in self.table[row, self._shared[row] : self.held[row]]]
        if len(free) + len(own) + len(cached) != self.num_pages or {*free, *own, *cached} != set(range(self.num_pages)):
            raise RuntimeError(
                f"pages have lost their owner: {len(free)} free + {len(own)} in rows + {len(cached)} cached "
                f"of {self.num_pages}"
            )
        for row in self._prefixes:
            if not set(self.table[row, : self._shared[row]].tolist()) <= cached:
                raise RuntimeError(f"row {row} reads pages that the prefix cache has given away")

    def _take(self, count: int) -> NDArray[np.int32]:
        if count > self.num_free:
            self._give(np.array(self.cache.evict(count - self.num_free), np.int32))
        self.num_free -= count
        return self._free[self.num_free : self.num_free + count]

    def _give(self, pages: NDArray[np.int32]) -> None:
        self._free[self.num_free : self.num_free + len(pages)] = pages
        self.num_free += len(pages)
