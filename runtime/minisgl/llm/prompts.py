"""What a caller gave, as requests for the scheduler. Everything that can be wrong with it is said here, by index.

Knows the model's words and limits, not the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from minisgl.llm.sampling import SamplingParams
from minisgl.messages import Generate, Tokenize
from minisgl.source import WORDS, find_model
from minisgl.tokenizer.decode import Decoder
from minisgl.tokenizer.encode import Encoder
from minisgl.tokenizer.files import load_tokenizer

Prompt = str | Sequence[int]
Message = Mapping[str, Any]
Ids = NDArray[np.int32]


class Words:
    """Texts and chats to ids, and back. A model without tokenizer.json still takes token ids."""

    def __init__(self, model_path: str) -> None:
        folder: Path = find_model(model_path, WORDS)
        self._encoder: Encoder | None = None
        self.decoder: Decoder | None = None
        if (folder / "tokenizer.json").is_file():
            tokenizer: Tokenizer = load_tokenizer(folder)
            self._encoder, self.decoder = Encoder(folder, tokenizer), Decoder(tokenizer)

    def ids(self, prompts: Prompt | Sequence[Prompt]) -> list[Ids]:
        """One array of ids per prompt; a single prompt becomes a list of one."""
        return [
            self._encode(Tokenize(0, text=prompt), f"prompt {index}")
            if isinstance(prompt, str)
            else _ids(prompt, index)
            for index, prompt in enumerate(_as_list(prompts))
        ]

    def chat_ids(self, chats: Sequence[Message] | Sequence[Sequence[Message]], options: Mapping[str, Any]) -> list[Ids]:
        """One array of ids per conversation, rendered by the model's template with `options`."""
        many: Sequence[Any] = [chats] if chats and isinstance(chats[0], Mapping) else chats
        ids = []
        for index, chat in enumerate(many):
            for at, message in enumerate(chat):
                if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                    raise ValueError(f"conversation {index}, message {at}: must be a dict with role and content")
            request = Tokenize(0, messages=[dict(message) for message in chat], template_args=dict(options))
            ids.append(self._encode(request, f"conversation {index}"))
        return ids

    def _encode(self, request: Tokenize, what: str) -> Ids:
        if self._encoder is None:
            raise ValueError(f"{what} is text, but the model has no tokenizer.json; give token ids, or add the file")
        answer = self._encoder.encode(request)
        if answer.error is not None:
            raise ValueError(f"{what}: {answer.error}")
        return np.frombuffer(answer.ids, "<i4")


@dataclass(frozen=True)
class Limits:
    """What the engine can take."""

    context_length: int
    vocab_size: int


def as_requests(
    prompts: Sequence[Ids], sampling: SamplingParams | Sequence[SamplingParams], limits: Limits, first_uid: int
) -> list[Generate]:
    """Pair prompts with how they are answered, and check each pair against the limits."""
    many = [sampling] * len(prompts) if isinstance(sampling, SamplingParams) else list(sampling)
    if len(many) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts with {len(many)} sampling_params; give one for all, or one for each")
    pairs = enumerate(zip(prompts, many, strict=True))
    return [_request(index, ids, each, limits, first_uid + index) for index, (ids, each) in pairs]


def _request(index: int, ids: Ids, sampling: SamplingParams, limits: Limits, uid: int) -> Generate:
    context, room = limits.context_length, limits.context_length - len(ids)
    if not len(ids):
        raise ValueError(f"prompt {index} is empty; give it at least one token")
    if ids.min() < 0 or ids.max() >= limits.vocab_size:
        wrong = int(ids.min() if ids.min() < 0 else ids.max())
        raise ValueError(f"prompt {index} holds token id {wrong}; the model knows 0 to {limits.vocab_size - 1}")
    if room < 1:
        raise ValueError(
            f"prompt {index} has {len(ids)} tokens, which leaves no room for an answer in the context of {context}; "
            "shorten it"
        )
    if sampling.max_tokens is not None and sampling.max_tokens > room:
        raise ValueError(
            f"prompt {index} has {len(ids)} tokens; with max_tokens={sampling.max_tokens} that is more than the "
            f"context of {context}; ask for at most {room}, or leave max_tokens out"
        )
    for name, tokens in (("logit_bias", sampling.logit_bias), ("stop_token_ids", sampling.stop_token_ids)):
        if wrong_ids := [token for token in tokens if not 0 <= token < limits.vocab_size]:
            raise ValueError(
                f"prompt {index}: {name} names token id {wrong_ids[0]}; the model knows 0 to {limits.vocab_size - 1}"
            )
    params = sampling.for_scheduler(sampling.max_tokens or room)
    return Generate(uid, ids.astype("<i4").tobytes(), params, sampling.for_words())


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Any]:
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Sequence | np.ndarray):
        raise ValueError(f"prompts is a {type(prompts).__name__}; give a text, a list of token ids, or a list of these")
    given = list(prompts)
    return [given] if given and all(isinstance(item, int | np.integer) for item in given) else given


def _ids(prompt: Any, index: int) -> Ids:
    try:
        ids: NDArray[Any] = np.asarray(prompt)
        if ids.size and (ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer)):
            raise TypeError
        inside: Ids = np.clip(ids, -1, np.iinfo(np.int32).max).astype(np.int32)  # what is cut is in no vocabulary
        return inside
    except (TypeError, ValueError):
        shown = repr(prompt)[:60]
        raise ValueError(f"prompt {index} is neither a text nor a list of token ids: {shown}") from None
