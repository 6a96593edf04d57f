"""What few requests ask of a GPU: answers held to a grammar, and scores of a prompt's own tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema_rs import validator_for

from minisgl.args import LaunchArgs
from minisgl.engine.batch import Batch, Scoring
from minisgl.messages import DecodeParams, Finish, Generate, SamplingParams
from minisgl.scheduler.driver import Driver, build_engine, unpack
from minisgl.server.structured import of_schema
from support.checkpoints import save_tiny
from support.words import EOS, save_dummy

SCHEMA = {"type": "array", "items": {"enum": ["some word", "another one", 17]}, "minItems": 2, "maxItems": 4}
DEVICE = "cuda"


def test_answers_held_to_a_grammar_obey_it_beside_free_ones(tmp_path: Path) -> None:
    folder = save_dummy(tmp_path)
    args: dict[str, Any] = {"device": DEVICE, "dummy_weight": True, "page_size": 16, "num_pages": 256}
    driver = Driver(build_engine(LaunchArgs(model_path=str(folder), **args)))
    for uid in range(6):
        sampling = SamplingParams(200, seed=uid, grammar=of_schema(SCHEMA) if uid % 2 else "")
        ids = np.arange(uid, uid + 20, dtype=np.int32).tobytes()
        driver.scheduler.add(Generate(uid, ids, sampling, DecodeParams()))
    tokens: dict[int, list[int]] = {uid: [] for uid in range(6)}
    ends: dict[int, Finish] = {}
    while driver.scheduler.has_work or driver.scheduler.results:
        driver.step()
        for uid, token, finish in unpack(driver.take()):
            tokens[uid] += [token] if token >= 0 else []
            if finish:
                ends[uid] = finish
    for uid in (1, 3, 5):
        assert ends[uid] == Finish.STOP
        text = bytes(token for token in tokens[uid] if token != EOS).decode()
        assert validator_for(SCHEMA).is_valid(json.loads(text))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_prompts_scores_are_the_cpus(dtype: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, "qwen3", head_dim=64)
    ids = np.random.default_rng(0).integers(0, 96, 45).astype(np.int32)
    found = []
    for device, kind in (("cpu", "float32"), (DEVICE, dtype)):
        args: dict[str, Any] = {"device": device, "dtype": kind, "page_size": 16, "num_pages": 64}
        driver = Driver(build_engine(LaunchArgs(model_path=str(tmp_path), **args)))
        batch = Batch(
            rows=np.zeros(1, np.int32),
            tokens=ids,
            starts=np.zeros(1, np.int32),
            counts=np.array([len(ids)], np.int32),
            pages=np.arange(3, dtype=np.int32)[None],
            sampled=np.empty(0, np.int32),
            scrub=np.empty(0, np.int32),
            scored=np.arange(len(ids) - 1, dtype=np.int32),
            scoring=Scoring(ids[1:].astype(np.int64), 3),
        )
        scores = driver.engine.launch(batch)().scores
        assert scores is not None
        found.append(scores)
    tolerance = 1e-3 if dtype == "float32" else 0.1
    assert np.abs(found[0].logprobs - found[1].logprobs).max() < tolerance
    assert np.abs(found[0].top - found[1].top).max() < tolerance
