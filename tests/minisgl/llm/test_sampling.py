"""Sampling parameters from Python: each wrong value is named, each right one reaches the half that uses it."""

from typing import Any

import pytest

from minisgl.llm.sampling import SamplingParams


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"temperature": -0.1}, "temperature=-0.1: must be a number at least 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"temperature": "hot"}, "temperature='hot': must be a number"),
        ({"max_tokens": 0}, "max_tokens=0: must be a number at least 1"),
        ({"top_p": 0}, "leaves no token"),
        ({"top_p": 1.1}, "between 0 and 1"),
        ({"top_k": -2}, "top_k=-2"),
        ({"presence_penalty": 3}, "between -2 and 2"),
        ({"repetition_penalty": 0}, "1 is off"),
        ({"logit_bias": {5: 101}}, r"logit_bias\[5\]=101"),
        ({"logprobs": 21}, "between 0 and 20"),
        ({"stop": ""}, "none of them empty"),
        ({"stop": [1]}, "must be a text"),
    ],
)
def test_a_wrong_value_is_named_with_its_bounds(fields: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SamplingParams(**fields)


def test_each_field_reaches_the_half_it_belongs_to() -> None:
    params = SamplingParams(
        temperature=0, top_k=-1, seed=7, stop="end", include_stop=True, skip_special_tokens=False, logit_bias={3: 1}
    )
    engine, words = params.for_scheduler(9), params.for_words()
    assert (engine.max_tokens, engine.temperature, engine.top_k, engine.seed, engine.logit_bias) == (9, 0, 0, 7, {3: 1})
    assert (words.stop, words.include_stop, words.skip_special_tokens) == (("end",), True, False)
