"""The radix prefix cache: a tree whose every edge is one page of tokens.

    root ──[Once upon a time]── 7 ──[there was a king]── 3       node = page number, edge = its tokens
                                └───[there was a cat ]── 9       locks of a node = its own + 1 per locked child

The key of a first page begins with its salt: all pages of one length, so no two (salt, page) make one key, and what
stands below a first page is found through it only.
One node per page needs no splitting, gives back exactly as many pages as are asked for, and evicts in O(log n).
A locked node locks its ancestors, so unlocked nodes form whole subtrees and all of them can be evicted, leaf by leaf.
"""

from __future__ import annotations

import heapq
from itertools import count

import numpy as np

from minisgl.kvcache.base import Ids, Pages, Prefix, PrefixCache


class _Node:
    __slots__ = ("children", "key", "locks", "page", "parent", "queued", "used")

    def __init__(self, parent: _Node | None, key: bytes, page: int) -> None:
        self.parent, self.key, self.page = parent, key, page
        self.children: dict[bytes, _Node] = {}
        self.locks = 0
        self.used = 0  # logical time of the last match or insert through this node
        self.queued = False  # stands in the eviction queue, perhaps with an older time


class RadixPrefixCache(PrefixCache):
    """See the module's picture. `_queue` holds (used, tie, node) for every node that may be an unlocked leaf.

    Entries are checked when they are popped, so that locking need not search the queue.
    """

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.num_pages = self.evictable_pages = 0
        self._root = _Node(None, b"", -1)
        self._root.locks = 1
        self._queue: list[tuple[int, int, _Node]] = []
        self._tie = count()
        self._now = 0

    def match(self, ids: Ids, salt: bytes = b"") -> Prefix:
        node, pages = self._walk(ids[:-1], salt)
        return Prefix(node, np.array(pages, np.int32))

    def insert(self, ids: Ids, pages: Pages, salt: bytes = b"") -> Prefix:
        node, owned = self._walk(ids, salt)
        data, width = ids.tobytes(), self.page_size * ids.itemsize
        for i in range(len(owned), len(ids) // self.page_size):
            key = data[i * width : (i + 1) * width]
            child = _Node(node, key if i else salt + key, int(pages[i]))
            child.used = self._now
            node.children[child.key] = child
            node = child
            owned.append(child.page)
            self.num_pages += 1
            self.evictable_pages += 1
        self._offer(node)
        return Prefix(node, np.array(owned, np.int32))

    def lock(self, prefix: Prefix) -> None:
        node: _Node | None = prefix.node
        while node is not None:
            node.locks += 1
            if node.locks > 1:  # already locked, and so are its ancestors
                return
            self.evictable_pages -= 1
            node = node.parent

    def unlock(self, prefix: Prefix) -> None:
        node: _Node | None = prefix.node
        while node is not None:
            node.locks -= 1
            if node.locks > 0:
                return
            self.evictable_pages += 1
            self._offer(node)
            node = node.parent

    def evict(self, num_pages: int) -> list[int]:
        pages: list[int] = []
        while self._queue and len(pages) < num_pages:
            used, _, node = heapq.heappop(self._queue)
            node.queued = False
            if node.children or node.locks:
                continue  # offered again when its last child goes, or at its unlock
            if node.used > used:
                self._offer(node)  # used since it was queued
                continue
            parent = node.parent
            if parent is None:
                continue
            del parent.children[node.key]
            pages.append(node.page)
            self._offer(parent)
        self.num_pages -= len(pages)
        self.evictable_pages -= len(pages)
        return pages

    def check_integrity(self) -> set[int]:
        pages: set[int] = set()
        evictable = 0
        stack = [self._root]
        while stack:
            node = stack.pop()
            stack += node.children.values()
            if node is self._root:
                continue
            if node.page in pages:
                raise RuntimeError(f"page {node.page} stands twice in the prefix cache")
            pages.add(node.page)
            evictable += not node.locks
            if node.locks < sum(child.locks > 0 for child in node.children.values()):
                raise RuntimeError(f"page {node.page} is less locked than its children")
            if not node.locks and not node.children and not node.queued:
                raise RuntimeError(f"page {node.page} can never be evicted")
        if (len(pages), evictable) != (self.num_pages, self.evictable_pages):
            raise RuntimeError(
                f"the prefix cache holds {len(pages)} pages, {evictable} evictable, "
                f"but counts {self.num_pages} and {self.evictable_pages}"
            )
        return pages

    def _walk(self, ids: Ids, salt: bytes) -> tuple[_Node, list[int]]:
        """Follow the whole pages of `ids` as far as they are cached, and mark them used."""
        self._now += 1
        data, width = ids.tobytes(), self.page_size * ids.itemsize
        node, pages = self._root, []
        for start in range(0, len(data) - width + 1, width):
            key = data[start : start + width]
            child = node.children.get(key if start else salt + key)
            if child is None:
                break
            child.used = self._now
            pages.append(child.page)
            node = child
        return node, pages

    def _offer(self, node: _Node) -> None:
        if not node.queued and not node.locks and not node.children:
            node.queued = True
            heapq.heappush(self._queue, (node.used, next(self._tie), node))
