"""Which graphs are captured, and which one a step takes."""

import pytest

from minisgl.plan.shapes import Cost, Shape, decode_shapes, is_skewed, mixed_shapes, num_chunks, smallest

SHAPES = decode_shapes(256) + mixed_shapes(4096, 256)


def test_decode_shapes_are_few_and_end_with_the_largest() -> None:
    assert decode_shapes(0) == []
    assert [shape.tokens for shape in decode_shapes(6)] == [1, 2, 4, 6]
    assert decode_shapes(256)[-1] == Shape(256, 256, 0)
    assert len(decode_shapes(256)) == 13
    assert all(shape.is_decode for shape in decode_shapes(256))


def test_mixed_shapes_are_never_mistaken_for_decode() -> None:
    assert mixed_shapes(0, 256) == []
    assert not any(shape.is_decode for shape in mixed_shapes(2048, 256) + mixed_shapes(64, 1))
    assert {shape.requests for shape in mixed_shapes(2048, 256)} == {8, 128, 256}
    assert {shape.requests for shape in mixed_shapes(2048, 5)} == {5}


@pytest.mark.parametrize(
    ("tokens", "requests", "taken"),
    [
        (1, 1, (1, 1)),
        (5, 5, (8, 8)),
        (257, 257, None),
        (2, 1, (16, 8)),
        (128, 1, (128, 8)),
        (129, 8, (192, 8)),
        (129, 9, (256, 128)),
        (129, 129, (160, 160)),
        (256, 200, (256, 256)),
        (300, 256, (384, 256)),
        (2048, 256, (2048, 256)),
        (4097, 1, None),
        (2049, 1, (3072, 8)),
        (400, 257, None),
    ],
)
def test_a_step_takes_the_cheapest_shape(tokens: int, requests: int, taken: tuple[int, int] | None) -> None:
    at = smallest(SHAPES, Shape(tokens, requests, 0 if tokens == requests else 1))
    assert (None if at is None else SHAPES[at][:2]) == taken


@pytest.mark.parametrize(("prompts", "taken"), [(32, (384, 256, 32)), (33, None), (8, (384, 256, 32))])
def test_prompts_apart_from_many_running_requests_have_few_places(
    prompts: int, taken: tuple[int, int, int] | None
) -> None:
    at = smallest(SHAPES, Shape(300, 200, prompts))
    assert (None if at is None else SHAPES[at][:3]) == taken
    assert all(shape.is_apart == shape.is_shared == (shape.requests > 8) for shape in SHAPES if not shape.is_decode)


def test_some_decode_shapes_exist_twice_and_only_who_asks_takes_the_other() -> None:
    shapes = decode_shapes(256, shared=True)
    assert [shape.tokens for shape in shapes if shape.is_shared] == [64, 128, 256]
    assert [shape.tokens for shape in decode_shapes(40, shared=True) if shape.is_shared] == [40]
    assert not any(shape.is_shared for shape in decode_shapes(32, shared=True))
    for requests, whole, shared in ((33, 64, 64), (64, 64, 64), (65, 96, 128), (130, 160, 256)):
        for is_shared, taken in ((False, whole), (True, shared)):
            at = smallest(shapes, Shape(requests, requests, 0, is_shared))
            assert at is not None
            assert shapes[at] == Shape(taken, taken, 0, is_shared)


def test_a_request_longer_than_all_others_can_hide_makes_a_step_skewed() -> None:
    assert is_skewed(8000, 8000 + 40 * 800, 8), "the mix that was measured"
    assert not is_skewed(1024, 64 * 600, 8), "the offline workload"
    assert not is_skewed(8000, 256 * 600, 8), "read while the others are"
    assert not is_skewed(8000, 8000 + 40 * 800, 32), "by four times as many blocks"


def test_pasts_are_cut_into_more_chunks_than_requests() -> None:
    h200 = 264
    assert [num_chunks(requests, 8, h200) for requests in (1, 16, 32, 64, 256)] == [33, 33, 64, 128, 320]
    assert num_chunks(8, 1, h200) == 264


@pytest.mark.parametrize("tokens", range(65, 2049, 61))
def test_padding_is_at_most_half(tokens: int) -> None:
    at = smallest(SHAPES, Shape(tokens, 1, 1))
    assert at is not None
    assert tokens <= SHAPES[at].tokens <= 1.5 * tokens
    assert SHAPES[at] == Shape(SHAPES[at].tokens, 8, 8)


@pytest.mark.parametrize(
    ("billions", "tokens", "captured", "worth"),
    [
        (0.6, 65, 96, True),  # a small model waits for its launches, whatever the padding
        (0.6, 2049, 3072, True),
        (14, 129, 192, True),  # the weights are read in that time anyway
        (14, 1024, 1024, True),
        (14, 1025, 1280, False),  # 12 ms of padding
        (14, 2049, 3072, False),
    ],
)
def test_a_large_model_does_not_compute_padding(billions: float, tokens: int, captured: int, worth: bool) -> None:
    cost = Cost.of(int(billions * 2e9), 28 if billions < 1 else 40)
    assert cost.allows(Shape(captured, 8, 8), tokens) == worth
    assert cost.allows(Shape(256, 256, 0), 129), "decode steps are always captured"
