"""The contract of a prefix cache: which pages already hold the keys and values of which tokens.

A cache owns the pages it was given until `evict` returns them. It knows neither tensors nor requests. Only whole
pages are cached; token ids are int32 arrays, pages are numbers. What was inserted with one salt is found with it only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Pages = NDArray[np.int32]


class Prefix(NamedTuple):
    """The cache's pages for the first `len(pages) * page_size` tokens. `node` is opaque, for `lock` and `unlock`."""

    node: Any
    pages: Pages


class PrefixCache(ABC):
    """Pages of finished work, found again by their tokens. `evictable_pages` of them are not locked."""

    page_size: int
    num_pages: int
    evictable_pages: int

    @abstractmethod
    def match(self, ids: Ids, salt: bytes = b"") -> Prefix:
        """Find the longest cached prefix that leaves at least one token to compute. Lock it before `evict` may run."""

    @abstractmethod
    def insert(self, ids: Ids, pages: Pages, salt: bytes = b"") -> Prefix:
        """Offer `pages`, which hold the whole pages of `ids`; returns what the cache holds of them now.

        For i < len(result.pages) the cache owns page i of this prefix. Where result.pages[i] != pages[i], another
        request brought the same tokens earlier: the caller moves to the cache's page and frees its own duplicate.
        From len(result.pages) on, pages stay the caller's.
        """

    @abstractmethod
    def lock(self, prefix: Prefix) -> None:
        """Keep all pages of `prefix` from eviction, until `unlock`. Locks count."""

    @abstractmethod
    def unlock(self, prefix: Prefix) -> None:
        """Give back one lock."""

    @abstractmethod
    def evict(self, num_pages: int) -> list[int]:
        """Give up to `num_pages` unlocked pages to the caller, least recently used first."""

    @abstractmethod
    def check_integrity(self) -> set[int]:
        """Recompute every count; raise RuntimeError where one is wrong. Returns the pages that the cache owns."""
