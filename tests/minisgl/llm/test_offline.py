"""The offline API as its users see it: prompts in, answers out, and one clear sentence when something is wrong."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisgl import LLM, Output, SamplingParams
from minisgl.errors import BackendDied, UsageError
from support.checkpoints import oracle_greedy, oracle_logits, save_tiny
from support.words import EOS, TEMPLATE, byte_tokenizer

pytestmark = pytest.mark.cpu

GREEDY = SamplingParams(temperature=0, max_tokens=24)
TEXTS = ["Once upon a time", "1, 2, 3", "The sea"]


@pytest.fixture(scope="module")
def llm(talker: tuple[Path, Any]) -> Iterator[LLM]:
    with LLM(str(talker[0]), device="cpu", page_size=4, num_tokens=1024) as ready:
        yield ready


def text_of(ids: list[int]) -> str:
    return bytes(token for token in ids if token < EOS).decode(errors="replace")


def test_importing_the_package_does_not_import_torch() -> None:
    look = "import sys, minisgl; minisgl.LLM; print({'torch', 'transformers'} & set(sys.modules), dir(minisgl.llm))"
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("set()")
    plain = "import sys, minisgl; print({'torch', 'numpy', 'pydantic', 'minisgl.llm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", plain], capture_output=True, text=True).stdout.strip() == "set()"


def test_greedy_answers_are_those_of_transformers(llm: LLM, talker: tuple[Path, Any]) -> None:
    outputs = llm.generate(TEXTS, GREEDY)
    for text, output in zip(TEXTS, outputs, strict=True):
        wanted = oracle_greedy(talker[1], list(text.encode()), 24, eos=EOS)
        assert output.token_ids == wanted
        assert output.text == text_of(wanted)
        assert output.finish_reason == ("stop" if wanted[-1] == EOS else "length")
        assert output.num_prompt_tokens == len(text)


def test_every_form_of_a_prompt_gives_the_same_answer(llm: LLM) -> None:
    ids = list(TEXTS[0].encode())
    (alone,) = llm.generate(TEXTS[0], GREEDY)
    forms: list[Any] = [[TEXTS[0]], ids, [ids], np.array(ids), [np.array(ids)], tuple(ids), [TEXTS[1], ids]]
    assert [llm.generate(form, GREEDY)[-1].token_ids for form in forms] == [alone.token_ids] * len(forms)
    assert llm.generate([], GREEDY) == []


def test_each_prompt_may_have_its_own_sampling(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=n, seed=3, ignore_eos=True) for n in (1, 5, 9)]
    outputs = llm.generate(TEXTS, params)
    assert [len(output.token_ids) for output in outputs] == [1, 5, 9]
    assert [llm.generate(text, each)[0].token_ids for text, each in zip(TEXTS, params, strict=True)] == [
        output.token_ids for output in outputs
    ]


def test_a_stop_string_ends_the_answer_before_it(llm: LLM) -> None:
    def sampled(**more: Any) -> SamplingParams:
        return SamplingParams(seed=4, max_tokens=40, ignore_eos=True, **more)

    ids = llm.generate(TEXTS[0], sampled())[0].token_ids
    place = next(i for i in range(4, 39) if max(ids[i : i + 2]) < 128 and ids[i] not in ids[:i])
    stop = bytes(ids[place : place + 2]).decode()
    params = [sampled(stop=["never said", stop]), sampled(stop=stop, include_stop=True, logprobs=0), GREEDY]
    cut, whole, other = llm.generate([TEXTS[0], TEXTS[0], TEXTS[1]], params)
    assert (cut.text, cut.finish_reason, cut.stopped_by) == (text_of(ids[:place]), "stop", stop)
    assert cut.token_ids == ids[: place + 2]
    assert whole.text == text_of(ids[: place + 2])
    assert whole.logprobs is not None
    assert len(whole.logprobs) == place + 2
    assert other.token_ids == llm.generate(TEXTS[1], GREEDY)[0].token_ids


def test_a_chat_is_the_rendered_template(llm: LLM) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    rendered = "user: Hi<|end|>assistant: "
    assert "assistant: " in TEMPLATE
    ids = byte_tokenizer().encode(rendered).ids
    (answer,) = llm.chat(chat, GREEDY)
    assert answer.token_ids == llm.generate(ids, GREEDY)[0].token_ids
    assert [output.token_ids for output in llm.chat([chat, chat], GREEDY)] == [answer.token_ids] * 2


def test_any_thread_may_chat(llm: LLM) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: llm.chat(chat, GREEDY)[0].token_ids, range(6)))
    assert answers == [llm.chat(chat, GREEDY)[0].token_ids] * 6


def test_logprobs_are_the_models(llm: LLM, talker: tuple[Path, Any]) -> None:
    prompt = list(TEXTS[2].encode())
    (output,) = llm.generate(prompt, SamplingParams(max_tokens=6, seed=1, ignore_eos=True, logprobs=3))
    rows = torch.log_softmax(oracle_logits(talker[1], prompt + output.token_ids), -1)[len(prompt) - 1 : -1]
    assert output.logprobs is not None
    for row, token, found in zip(rows, output.token_ids, output.logprobs, strict=True):
        assert found.token == token
        assert found.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [each for each, _ in found.top] == row.topk(3).indices.tolist()


def test_a_prompt_seen_before_is_found_in_the_cache(llm: LLM) -> None:
    prompt = list(b"a prompt that nobody else has sent")
    first, second = (llm.generate(prompt, GREEDY)[0] for _ in range(2))
    assert first.num_cached_tokens == 0
    assert second.num_cached_tokens >= 32
    assert second.token_ids == first.token_ids


@pytest.mark.parametrize(
    ("prompts", "sampling", "sentence"),
    [
        (["fine", ""], None, "prompt 1 is empty"),
        ([[1], [2, 258]], None, r"prompt 1 holds token id 258; the model knows 0 to 257"),
        ([[2**40]], None, "prompt 0 holds token id"),
        ([["a"]], None, "prompt 0 is neither a text nor a list of token ids"),
        (["a", [1.5]], None, "prompt 1 is neither"),
        (7, None, "prompts is a int"),
        (["a", "b"], [GREEDY], "2 prompts with 1 sampling_params"),
        (["a" * 300], None, "prompt 0 has 300 tokens, which leaves no room for an answer in the context of 256"),
        (["fine", "a" * 250], SamplingParams(max_tokens=7), "prompt 1 has 250 tokens; .* ask for at most 6"),
        (["a"], SamplingParams(logit_bias={999: 1}), "prompt 0: logit_bias names token id 999"),
        (["a"], SamplingParams(stop_token_ids=[-1]), "prompt 0: stop_token_ids names token id -1"),
    ],
)
def test_bad_input_is_refused_by_its_index_before_anything_is_computed(
    llm: LLM, prompts: Any, sampling: Any, sentence: str
) -> None:
    steps: list[int] = []
    with pytest.raises(ValueError, match=sentence):
        llm.generate(prompts, sampling, progress=lambda indices: steps.append(len(indices)))
    assert not steps


def test_bad_chats_are_refused_by_their_index(llm: LLM) -> None:
    good = {"role": "user", "content": "Hi"}
    with pytest.raises(ValueError, match="conversation 1, message 0: must be a dict with role and content"):
        llm.chat([[good], [{"role": "user"}]])
    with pytest.raises(ValueError, match=r"conversation 1: .*the user must speak first"):
        llm.chat([[good], [{"role": "assistant", "content": "Hi"}]])


def test_a_listener_hears_every_token(llm: LLM) -> None:
    heard: list[int] = []
    outputs = llm.generate(TEXTS, GREEDY, progress=lambda indices: heard.extend(indices.tolist()))
    assert [heard.count(i) for i in range(3)] == [len(output.token_ids) for output in outputs]


def test_a_terminal_sees_a_bar_with_tokens_per_second(llm: LLM, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    llm.generate(TEXTS, GREEDY)
    assert "3/3" in (shown := capsys.readouterr().err)
    assert "tokens/s" in shown
    llm.generate(TEXTS, GREEDY, progress=False)
    assert capsys.readouterr().err == ""


def test_ctrl_c_ends_the_call_and_leaves_the_model_usable(llm: LLM) -> None:
    long = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    started = threading.Event()
    # A shell's background job ignores Ctrl-C from its start, and so would this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        started.wait(20)
        os.kill(os.getpid(), signal.SIGINT)  # as a terminal does; it also ends a wait

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        llm.generate(TEXTS * 300, long, progress=lambda indices: started.set())
    signal.signal(signal.SIGINT, before)
    assert len(llm.generate(TEXTS[0], GREEDY)[0].token_ids) > 0


def test_a_model_without_tokenizer_takes_token_ids(tmp_path: Path) -> None:
    oracle = save_tiny(tmp_path)
    with LLM(str(tmp_path), device="cpu", num_tokens=512) as llm:
        (output,) = llm.generate([1, 2, 3], SamplingParams(temperature=0, max_tokens=5))
        assert (output.token_ids, output.text) == (oracle_greedy(oracle, [1, 2, 3], 5, eos=96), "")
        with pytest.raises(ValueError, match=r"prompt 0 is text, but the model has no tokenizer\.json"):
            llm.generate("Hi")
        with pytest.raises(ValueError, match="use stop_token_ids"):
            llm.generate([1], SamplingParams(stop="x"))
    with pytest.raises(BackendDied, match="closed"):
        llm.generate([1])


def test_a_wrong_launch_argument_is_one_sentence(talker: tuple[Path, Any]) -> None:
    with pytest.raises(UsageError, match="num_pges"):
        LLM(str(talker[0]), num_pges=3)


def test_the_real_model_answers() -> None:
    from models.__main__ import NAME, cache

    with LLM(str(cache() / NAME), device="cpu", num_tokens=1024) as llm:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        (output,) = llm.chat(question, SamplingParams(temperature=0, max_tokens=24))
        assert isinstance(output, Output)
        assert (output.text, output.finish_reason) == ("The capital of France is Paris.", "stop")
