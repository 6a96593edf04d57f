"""The radix cache against an oracle: a dictionary from whole prefixes to pages."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minisgl.kvcache.base import Ids, Prefix
from minisgl.kvcache.radix import RadixPrefixCache

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)
SALTS = st.sampled_from([b"", b"\0", bytes(4), b"a"])  # also such as look like tokens
Key = tuple[bytes | int, ...]


def ids_of(tokens: list[int]) -> Ids:
    return np.array(tokens, np.int32)


class RadixMachine(RuleBasedStateMachine):
    """`known` maps every cached prefix (the salt and whole pages, as a tuple) to its page."""

    @initialize(size=st.sampled_from([1, 2, 4]))
    def start(self, size: int) -> None:
        self.size = size
        self.cache = RadixPrefixCache(size)
        self.known: dict[Key, int] = {}
        self.locked: list[tuple[Key, Prefix]] = []
        self.fresh = 0

    def prefixes(self, tokens: list[int], salt: bytes) -> list[Key]:
        return [(salt, *tokens[:end]) for end in range(self.size, len(tokens) + 1, self.size)]

    def cached(self, tokens: list[int], salt: bytes) -> list[int]:
        pages = []
        for prefix in self.prefixes(tokens, salt):
            if prefix not in self.known:
                break
            pages.append(self.known[prefix])
        return pages

    @rule(tokens=TOKENS, salt=SALTS)
    def match_finds_the_longest_known_prefix(self, tokens: list[int], salt: bytes) -> None:
        found = self.cache.match(ids_of(tokens), salt)
        assert found.pages.tolist() == self.cached(tokens[:-1], salt)

    @rule(tokens=TOKENS, salt=SALTS)
    def insert_keeps_old_pages_and_takes_new_ones(self, tokens: list[int], salt: bytes) -> None:
        count = len(tokens) // self.size
        offered = list(range(self.fresh, self.fresh + count))
        self.fresh += count
        for prefix, page in zip(self.prefixes(tokens, salt), offered, strict=True):
            self.known.setdefault(prefix, page)
        result = self.cache.insert(ids_of(tokens), np.array(offered, np.int32), salt)
        assert result.pages.tolist() == self.cached(tokens, salt)

    @rule(tokens=TOKENS, salt=SALTS)
    def lock_what_matches(self, tokens: list[int], salt: bytes) -> None:
        found = self.cache.match(ids_of(tokens), salt)
        self.cache.lock(found)
        self.locked.append(((salt, *tokens[: len(found.pages) * self.size]), found))

    @precondition(lambda self: self.locked)
    @rule(data=st.data())
    def unlock_one(self, data: st.DataObject) -> None:
        _, prefix = self.locked.pop(data.draw(st.integers(0, len(self.locked) - 1)))
        self.cache.unlock(prefix)

    @rule(count=st.integers(1, 6))
    def evict_only_unlocked_leaves(self, count: int) -> None:
        expected = min(count, self.cache.evictable_pages)
        for page in (pages := self.cache.evict(count)):
            prefix = next(key for key, value in self.known.items() if value == page)
            assert not any(key[: len(prefix)] == prefix for key, _ in self.locked), "a locked prefix is never evicted"
            assert not any(len(key) > len(prefix) and key[: len(prefix)] == prefix for key in self.known)
            del self.known[prefix]
        assert len(pages) == expected

    @invariant()
    def the_counts_are_true(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.check_integrity() == set(self.known.values())
            locked = {key[: 1 + end] for key, _ in self.locked for end in range(self.size, len(key), self.size)}
            assert self.cache.evictable_pages == len(self.known) - len(locked)


TestRadix = RadixMachine.TestCase
TestRadix.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_least_recently_used_prefix_goes_first() -> None:
    cache = RadixPrefixCache(2)
    cache.insert(ids_of([1, 1, 2, 2]), np.array([10, 11], np.int32))
    cache.insert(ids_of([3, 3, 4, 4]), np.array([20, 21], np.int32))
    cache.match(ids_of([1, 1, 2, 2, 0]))
    assert cache.evict(3) == [21, 20, 11]


def test_a_match_leaves_one_token_to_compute() -> None:
    cache = RadixPrefixCache(2)
    cache.insert(ids_of([1, 1, 2, 2]), np.array([10, 11], np.int32))
    assert cache.match(ids_of([1, 1, 2, 2])).pages.tolist() == [10]


def test_locking_and_unlocking_does_not_grow_the_queue() -> None:
    cache = RadixPrefixCache(1)
    prefix = cache.insert(ids_of([1, 2, 3]), np.arange(3, dtype=np.int32))
    for _ in range(100):
        cache.lock(prefix)
        cache.unlock(prefix)
    assert len(cache._queue) <= 3


def test_integrity_finds_a_wrong_count() -> None:
    cache = RadixPrefixCache(1)
    cache.insert(ids_of([1]), np.array([0], np.int32))
    cache.evictable_pages = 0
    with pytest.raises(RuntimeError, match="holds 1 pages, 1 evictable, but counts 1 and 0"):
        cache.check_integrity()
