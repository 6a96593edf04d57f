"""Held requests in the scheduler: preempted, failed, late, and beside others, with a real engine and real grammars."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from minisgl.args import LaunchArgs
from minisgl.messages import DecodeParams, Finish, Generate, SamplingParams
from minisgl.scheduler.driver import Driver, build_engine, unpack
from minisgl.scheduler.scheduler import Scheduler
from minisgl.server.structured import of_schema
from support.words import EOS, save_dummy

pytestmark = pytest.mark.cpu

SCHEMA = {
    "type": "array",
    "items": {"enum": ["some word", "another one", 17]},
    "minItems": 6,
    "maxItems": 9,
}
GRAMMAR = of_schema(SCHEMA)
MakeDriver = Callable[..., Driver]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeDriver:
    folder = save_dummy(tmp_path_factory.mktemp("model"))

    def driver(**args: Any) -> Driver:
        defaults = {"device": "cpu", "dummy_weight": True, "page_size": 4}
        return Driver(build_engine(LaunchArgs(model_path=str(folder), **(defaults | args))))

    return driver


def held(uid: int, grammar: str = GRAMMAR, **more: Any) -> Generate:
    sampling = SamplingParams(200, seed=uid, grammar=grammar, **more)
    return Generate(uid, np.arange(uid, uid + 20, dtype=np.int32).tobytes(), sampling, DecodeParams())


def run(driver: Driver) -> tuple[dict[int, list[int]], dict[int, Finish], dict[int, str]]:
    tokens: dict[int, list[int]] = {}
    ends: dict[int, Finish] = {}
    errors: dict[int, str] = {}
    while driver.scheduler.has_work or driver.scheduler.results:
        driver.step()
        step = driver.take()
        errors |= step.errors
        for uid, token, finish in unpack(step):
            assert uid not in ends, "one terminal result"
            tokens.setdefault(uid, []).extend([token] if token >= 0 else [])
            if finish:
                ends[uid] = finish
    driver.scheduler.check_integrity()
    return tokens, ends, errors


def text(tokens: list[int]) -> Any:
    return json.loads(bytes(token for token in tokens if token != EOS))


@pytest.mark.parametrize("overlap", ["off", "on"])
def test_preempted_answers_are_those_of_requests_alone(make: MakeDriver, overlap: str) -> None:
    alone = {}
    roomy = make(num_tokens=1024, overlap=overlap)
    for uid in range(6):
        roomy.scheduler.add(held(uid))
        alone |= run(roomy)[0]
    tight = make(num_tokens=256, overlap=overlap, max_running_requests=6)
    for uid in range(6):
        tight.scheduler.add(held(uid))
        tight.scheduler.add(Generate(100 + uid, held(uid).ids, SamplingParams(60, seed=uid), DecodeParams()))
    tokens, ends, _ = run(tight)
    assert tight.scheduler.stats().preemptions_total > 0
    for uid in range(6):
        assert tokens[uid] == alone[uid]
        assert ends[uid] is Finish.STOP
        Draft202012Validator(SCHEMA).validate(text(tokens[uid]))


def test_a_grammar_that_is_none_ends_its_request_only(make: MakeDriver) -> None:
    driver = make(num_tokens=512)
    driver.scheduler.add(held(1, "start: nothing"))
    driver.scheduler.add(held(2))
    _, ends, errors = run(driver)
    assert ends == {1: Finish.ERROR, 2: Finish.STOP}
    assert "unknown name" in errors[1]
    assert "\n" not in errors[1]


def test_a_tokenizer_with_more_words_than_the_model_has_rows(tmp_path: Path) -> None:
    folder = save_dummy(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 257}  # no row for an added word
    (folder / "config.json").write_text(json.dumps(config))
    driver = Driver(build_engine(LaunchArgs(model_path=str(folder), device="cpu", dummy_weight=True, num_tokens=512)))
    driver.scheduler.add(held(1))
    tokens, ends, _ = run(driver)
    assert ends == {1: Finish.STOP}
    Draft202012Validator(SCHEMA).validate(text(tokens[1]))


class Late:
    """A grammar that takes its time, then allows any token but the end, and is over after three, or fails after two."""

    def __init__(self, *, fails: bool) -> None:
        self.is_ready, self.count, self.fails = False, 0, fails

    @property
    def error(self) -> str | None:
        return "no way on" if self.fails and self.count >= 2 else None

    @property
    def is_over(self) -> bool:
        return self.count >= 3

    def mask(self) -> np.ndarray:
        return np.full(-(-258 // 32), 0x7FFFFFFF, np.int32)

    def accept(self, token: int) -> None:
        assert token % 32 != 31
        self.count += 1


def test_others_do_not_wait_for_a_grammar_and_an_abort_finds_it(make: MakeDriver) -> None:
    driver = make(num_tokens=512, overlap="on")
    made: list[Late] = []

    def hold(text: str) -> Late:
        made.append(Late(fails="fail" in text))
        return made[-1]

    scheduler: Scheduler = driver.scheduler
    scheduler._hold = hold
    for uid in (1, 2):
        scheduler.add(held(uid))
    scheduler.add(Generate(3, held(3).ids, SamplingParams(5, seed=3, ignore_eos=True), DecodeParams()))
    seen: list[tuple[int, int, Finish]] = []
    while not any(uid == 3 and finish for uid, _, finish in seen):
        driver.step()
        seen += unpack(driver.take())
    assert {uid for uid, *_ in seen} == {3}
    scheduler.abort(1)
    scheduler.add(held(4, "fail"))
    for each in made:
        each.is_ready = True
    tokens, ends, errors = run(driver)
    assert ends == {1: Finish.ABORT, 2: Finish.STOP, 4: Finish.ERROR}
    assert errors == {4: "no way on"}
    assert len(tokens[2]) == 3
