"""The picture in `minisgl.attention.geometry`, and the same for random steps, one token at a time."""

import numpy as np

from minisgl.attention import geometry

STARTS, COUNTS = np.array([6, 0], np.int32), np.array([1, 3], np.int32)
PAGES = np.array([[7, 3], [5, 0]], np.int32)


def test_the_picture_is_true() -> None:
    assert geometry.positions(STARTS, COUNTS).tolist() == [6, 0, 1, 2]
    assert geometry.slots(STARTS, COUNTS, PAGES, 4).tolist() == [3 * 4 + 2, 20, 21, 22]
    pages, bounds = geometry.page_list(STARTS + COUNTS, PAGES, 4)
    assert (pages.tolist(), bounds.tolist()) == ([7, 3, 5], [0, 2, 3])
    assert geometry.last_page_len(STARTS + COUNTS, 4).tolist() == [3, 3]


def test_every_token_of_a_random_step_stands_where_its_page_says() -> None:
    random = np.random.default_rng(0)
    for size in (1, 4, 16):
        starts, counts = (random.integers(low, 40, 9).astype(np.int32) for low in (0, 1))
        pages = random.permutation(9 * 80).astype(np.int32).reshape(9, 80)
        expected = [
            int(pages[row, position // size]) * size + position % size
            for row in range(9)
            for position in range(starts[row], starts[row] + counts[row])
        ]
        assert geometry.slots(starts, counts, pages, size).tolist() == expected
        lengths = starts + counts
        listed, bounds = geometry.page_list(lengths, pages, size)
        for row, length in enumerate(lengths.tolist()):
            mine = listed[bounds[row] : bounds[row + 1]]
            assert mine.tolist() == pages[row, : len(mine)].tolist()
            assert (len(mine) - 1) * size + geometry.last_page_len(lengths, size)[row] == length


def test_requests_and_their_padding_stand_behind_others() -> None:
    into = geometry.Paged(*(np.full(count, -1, np.int32) for count in (5, 5, 4, 20)))
    end = geometry.fill(into, 3, 10, (STARTS, COUNTS, PAGES), 4, 50)
    assert into.queries.tolist() == [10, 11, 14, 14, 14]
    assert into.bounds.tolist() == [3, 5, 6, 7, 8]
    assert into.last.tolist() == [3, 3, 1, 1]
    assert into.indices[:9].tolist() == [-1, -1, -1, 7, 3, 5, 50, 50, -1]
    assert end == 8
