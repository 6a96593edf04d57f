"""Texts and chats to ids: templates as models bring them, and requests that fail alone."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, processors

from minisgl.errors import StartError
from minisgl.messages import Tokenize, Tokenized
from minisgl.termination import Reason
from minisgl.tokenizer.encode import Encoder
from minisgl.tokenizer.files import load_config, load_template, load_tokenizer, special_tokens
from minisgl.tokenizer.template import ChatTemplate
from support.words import EOS, byte_tokenizer, save_words


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    save_words(tmp_path)
    return Encoder(tmp_path, load_tokenizer(tmp_path))


def chat(*turns: tuple[str, str]) -> Tokenize:
    return Tokenize(3, messages=[{"role": role, "content": content} for role, content in turns])


def words(answer: Tokenized) -> str:
    assert answer.error is None
    return str(byte_tokenizer().decode(np.frombuffer(answer.ids, "<i4").tolist(), skip_special_tokens=False))


def test_a_chat_is_rendered_with_its_special_tokens(encoder: Encoder) -> None:
    answer = encoder.encode(chat(("user", "hi")))
    assert words(answer) == "user: hi<|end|>assistant: "
    assert EOS in np.frombuffer(answer.ids, "<i4")


def test_a_text_is_taken_as_it_is(encoder: Encoder) -> None:
    assert words(encoder.encode(Tokenize(1, text="héllo\0"))) == "héllo\0"
    assert encoder.encode(Tokenize(1, text="")).ids == b""


def test_a_refusing_template_gives_its_own_sentence(encoder: Encoder) -> None:
    answer = encoder.encode(chat(("assistant", "hi")))
    assert answer.error == "The model's chat template refused these messages: the user must speak first"
    assert encoder.encode(chat(("user", "hi"))).error is None


def test_an_endless_template_is_stopped(encoder: Encoder) -> None:
    started = time.monotonic()
    answer = encoder.encode(chat(("user", "loop")))
    assert "ran longer than 1 s" in (answer.error or "")
    assert time.monotonic() - started < 3


def test_a_lone_surrogate_fails_alone(encoder: Encoder) -> None:
    assert encoder.encode(Tokenize(1, text="\ud800")).error
    assert encoder.encode(chat(("user", "\ud800"))).error


def test_without_a_template_a_chat_is_refused(tmp_path: Path) -> None:
    save_words(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    encoder = Encoder(tmp_path, load_tokenizer(tmp_path))
    assert "no chat template" in (encoder.encode(chat(("user", "hi"))).error or "")


def test_the_first_token_is_never_doubled(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    config = {"bos_token": {"content": "<s>"}, "chat_template": "{{ bos_token }}{{ messages[0].content }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    encoder = Encoder(tmp_path, tokenizer)
    for request in (Tokenize(1, text="a"), Tokenize(1, text="<s>a"), chat(("user", "a"))):
        assert np.frombuffer(encoder.encode(request).ids, "<i4").tolist() == [bos, ord("a")]


def test_templates_are_found_where_models_keep_them(tmp_path: Path) -> None:
    assert load_template(tmp_path, {}) is None
    assert load_template(tmp_path, {"chat_template": "one"}) == "one"
    named = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    assert load_template(tmp_path, {"chat_template": named}) == "three"
    (tmp_path / "chat_template.jinja").write_text("four")
    assert load_template(tmp_path, {"chat_template": "one"}) == "four"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | tojson }}", '[{"content": "<é>"}]'),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", ""),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "<é>"),
        ("{{ strftime_now('%Y')[:2] }}", "20"),
        ("{% if tools %}tools{% endif %}{{ add_generation_prompt }}{{ eos_token }}", "True</s>"),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
    ],
)
def test_a_template_finds_what_transformers_gives_it(source: str, text: str) -> None:
    assert ChatTemplate(source, {"eos_token": "</s>"}).render([{"content": "<é>"}], {}) == text


def test_a_client_switches_what_the_template_offers_and_nothing_else() -> None:
    template = ChatTemplate("{{ messages }}{{ eos_token }}{{ enable_thinking }}", {"eos_token": "</s>"})
    assert template.render([], {"enable_thinking": False, "messages": True, "eos_token": True}) == "[]</s>False"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ range(10**9) | list }}",
        "{{ undefined_name.attribute }}",
    ],
)
def test_a_template_stays_in_its_sandbox(tmp_path: Path, attack: str) -> None:
    save_words(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(attack)
    answer = Encoder(tmp_path, load_tokenizer(tmp_path)).encode(chat(("user", "hi")))
    assert "refused" in (answer.error or "")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{", "is not a tokenizer"),
        ("tokenizer_config.json", "{", "is not JSON"),
        ("chat_template.jinja", "{% if %}", "is broken"),
        ("chat_template.jinja", "\xff", "cannot be read"),
    ],
)
def test_a_broken_folder_is_told_by_file(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    path = save_words(tmp_path) / name
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(StartError, match=sentence) as caught:
        Encoder(tmp_path, load_tokenizer(tmp_path))
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED


def test_whatever_happens_to_one_prompt_is_its_own_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(save_words(tmp_path), load_tokenizer(tmp_path))
    with monkeypatch.context() as broken:
        broken.setattr(encoder, "_tokenizer", None)
        assert encoder.encode(Tokenize(7, text="a")) == Tokenized(7, error="The prompt could not be tokenized.")
    assert encoder.encode(Tokenize(8, text="a")).error is None


def test_special_tokens_are_read_in_both_spellings() -> None:
    config: dict[str, Any] = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None}
    assert special_tokens(config) == {"bos_token": "<s>", "eos_token": "</s>"}


def test_no_configuration_is_an_empty_one(tmp_path: Path) -> None:
    assert load_config(tmp_path) == {}


def test_it_is_told_whether_a_prompt_thinks(encoder: Encoder) -> None:
    def thinks(**switches: bool) -> bool | None:
        request = Tokenize(1, messages=[{"role": "user", "content": "hi"}], template_args=dict(switches))
        return encoder.encode(request).thinks

    assert (thinks(), thinks(enable_thinking=True), thinks(enable_thinking=False)) == (None, True, False)
    assert encoder.encode(Tokenize(1, text="<think>")).thinks is None, "only a template tells it"
