"""Chats and texts to token ids, prompts back to text. What cannot be done gets its sentence; the encoder goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import jinja2
import numpy as np
from tokenizers import Tokenizer

from minisgl.errors import StartError
from minisgl.messages import Detokenize, Detokenized, Tokenize, Tokenized
from minisgl.termination import Reason
from minisgl.tokenizer.dialect import dialect_of
from minisgl.tokenizer.files import load_config, load_template, special_tokens
from minisgl.tokenizer.reasoning import prompt_thinks
from minisgl.tokenizer.template import ChatTemplate

logger = logging.getLogger(__name__)


class Encoder:
    """The model's tokenizer and chat template, as the front end's `Tokenize` asks for them."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        config = load_config(folder)
        special = special_tokens(config)
        self._tokenizer = tokenizer
        self._bos: int | None = tokenizer.token_to_id(special["bos_token"]) if "bos_token" in special else None
        self.vocabulary_size = max(tokenizer.get_vocab().values(), default=-1) + 1
        source = load_template(folder, config)
        self.dialect = dialect_of(source)
        try:
            self._template = ChatTemplate(source, special) if source is not None else None
        except jinja2.TemplateError as error:
            raise StartError(Reason.MODEL_LOAD_FAILED, f"the chat template of {folder} is broken: {error}") from error

    def answer(self, request: Tokenize | Detokenize) -> Tokenized | Detokenized:
        """What the front end asked for; never raises."""
        return self.encode(request) if isinstance(request, Tokenize) else self.decode(request)

    def decode(self, request: Detokenize) -> Detokenized:
        """The text, or the sentence that says why there is none; never raises."""
        try:
            ids = np.frombuffer(request.ids, "<i4").tolist()
            text = self._tokenizer.decode(ids, skip_special_tokens=request.skip_special_tokens)
            return Detokenized(request.uid, text)
        except Exception:
            logger.exception("detokenizing failed uid=%d", request.uid)
            return Detokenized(request.uid, error="The tokens could not be turned into text.")

    def encode(self, request: Tokenize) -> Tokenized:
        """Ids, or the sentence that says why there are none; never raises."""
        try:
            text = self._text(request)
            ids = self._ids(request, text)
            thinks = None if request.messages is None else prompt_thinks(text)
            pieces = tuple(self._tokenizer.id_to_token(token) or "" for token in ids) if request.with_pieces else ()
            return Tokenized(request.uid, np.asarray(ids, dtype="<i4").tobytes(), pieces=pieces, thinks=thinks)
        except Refused as refusal:
            return Tokenized(request.uid, error=str(refusal))
        except Exception:  # whatever one request does to the tokenizer, it is that request's end only
            logger.exception("tokenizing failed uid=%d", request.uid)
            return Tokenized(request.uid, error="The prompt could not be tokenized.")

    def _text(self, request: Tokenize) -> str:
        return self._render(request) if request.messages is not None else request.text or ""

    def _ids(self, request: Tokenize, text: str) -> list[int]:
        if request.messages is not None:
            # A template writes its own special tokens; adding them again would double the BOS.
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        ids = self._tokenizer.encode(text, add_special_tokens=request.add_special_tokens).ids
        if self._bos is not None and ids[:2] == [self._bos, self._bos]:  # the prompt brought a BOS of its own
            return ids[1:]
        return ids

    def _render(self, request: Tokenize) -> str:
        if self._template is None:
            raise Refused("This model has no chat template; send the prompt to /v1/completions.")
        try:
            return self._template.render(request.messages or [], request.template_args)
        except Exception as error:  # a template may fail in any way: its own words, wrong types, the time limit
            raise Refused(f"The model's chat template refused these messages: {error}") from error


class Refused(Exception):
    """This request cannot be encoded; the text is for its sender."""
