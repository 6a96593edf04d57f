"""The prefix cache that keeps nothing: every prompt is computed whole."""

from __future__ import annotations

import numpy as np

from minisgl.kvcache.base import Ids, Pages, Prefix, PrefixCache

NOTHING = Prefix(None, np.empty(0, np.int32))


class NaivePrefixCache(PrefixCache):
    """Finds nothing, takes nothing."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.num_pages = self.evictable_pages = 0

    def match(self, ids: Ids, salt: bytes = b"") -> Prefix:
        return NOTHING

    def insert(self, ids: Ids, pages: Pages, salt: bytes = b"") -> Prefix:
        return NOTHING

    def lock(self, prefix: Prefix) -> None:
        pass

    def unlock(self, prefix: Prefix) -> None:
        pass

    def evict(self, num_pages: int) -> list[int]:
        return []

    def check_integrity(self) -> set[int]:
        return set()
