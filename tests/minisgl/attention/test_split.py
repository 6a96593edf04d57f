"""How requests are split among processors, and the room that this takes."""

import pytest

from minisgl.plan.shapes import shared_bytes, split_bytes

pytestmark = pytest.mark.cpu


def test_room_for_every_tile_of_queries_as_flashinfer_asks_for_it() -> None:
    # A step of 320 tokens and 256 requests of a model with 16 query and 8 KV heads: it asked for 272,629,760 bytes.
    assert 272_629_760 < split_bytes([(320, 256)], 16, 8, 128) < 1.1 * 272_629_760
    assert split_bytes([(320, 256), (64, 64)], 16, 8, 128) == split_bytes([(320, 256)], 16, 8, 128)


def test_room_for_every_chunk_of_a_past_as_flashinfer_asks_for_it() -> None:
    # By its arithmetic: chunks x 16 lines x heads, each with a vector and a number in float32.
    vectors, numbers = 128 * 16 * 40 * 128 * 4, 128 * 16 * 40 * 4
    assert vectors + numbers < shared_bytes(64, 40, 8, 128) < 1.05 * (vectors + numbers)
    assert shared_bytes(64, 32, 1, 128) > 3 * shared_bytes(64, 32, 8, 128), "32 heads that share keys need tiles of 64"


def test_few_requests_are_cut_into_parts_that_fill_the_device() -> None:
    num_parts = pytest.importorskip("minisgl.kernels.decode").num_parts
    assert [num_parts(requests, 8, 132) for requests in (1, 8, 64, 256)] == [32, 8, 1, 1]
