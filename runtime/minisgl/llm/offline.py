"""`LLM`: prompts in, answers out. Puts words, machine and progress together; each of them knows only its own part."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from minisgl.argv import validate
from minisgl.info import EngineFacts
from minisgl.llm.machine import Listener, Machine
from minisgl.llm.output import Answers, Output
from minisgl.llm.progress import Bar
from minisgl.llm.prompts import Ids, Message, Prompt, Words, as_requests
from minisgl.llm.sampling import SamplingParams

Sampling = SamplingParams | Sequence[SamplingParams]


class LLM:
    """A model for offline use. Close it, or use it in a `with` block; what it started ends with this process at last.

    Keywords are the launch arguments by field name (`LLM(path, tensor_parallel_size=2, num_tokens=8192)`); those of
    the HTTP server mean nothing here. Raises UsageError or StartError with one sentence when the model cannot start.
    """

    def __init__(self, model_path: str, **launch_arguments: Any) -> None:
        self.args = validate({**launch_arguments, "model_path": str(model_path)})
        self._words = Words(self.args.model_path)
        self._machine = Machine(self.args)
        self._next_uid = 0
        self.close: Callable[[], None] = weakref.finalize(self, self._machine.close)

    @property
    def facts(self) -> EngineFacts:
        """What the engine decided at start, as `/server_info` shows it."""
        return self._machine.facts

    @property
    def vocab_size(self) -> int:
        """Token ids below this one may be in a prompt."""
        return self._machine.limits.vocab_size

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Sampling | None = None,
        *,
        progress: bool | Listener = True,
    ) -> list[Output]:
        """Continue each prompt (text, or token ids); `sampling_params` is one for all, or one for each.

        Everything is checked before anything is computed: ValueError names the prompt's index and the mend. A request
        that fails later has `finish_reason` "error" and does not touch the others. `progress` may also be a function
        that is called, in the engine's thread, after each step with the indices of the prompts that got a token.
        """
        return self._answer(self._words.ids(prompts), sampling_params, progress)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: Sampling | None = None,
        *,
        template_args: Mapping[str, Any] | None = None,
        progress: bool | Listener = True,
    ) -> list[Output]:
        """Answer one conversation, or several, written as the model's chat template wants them.

        A message is a dict with `role` and `content`. `template_args` are passed to the template (`enable_thinking`).
        """
        return self._answer(self._words.chat_ids(messages, template_args or {}), sampling_params, progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _answer(self, ids: list[Ids], sampling: Sampling | None, progress: bool | Listener) -> list[Output]:
        machine, first = self._machine, self._next_uid
        requests = as_requests(ids, sampling or SamplingParams(), machine.limits, first)
        if self._words.decoder is None and (stops := next((r.decode.stop for r in requests if r.decode.stop), None)):
            raise ValueError(f"stop={stops[0]!r} is text, but the model has no tokenizer.json; use stop_token_ids")
        self._next_uid += len(requests)
        answers = Answers(requests, self._words.decoder, machine.abort)
        with Bar(answers, len(requests), wanted=progress is True) as bar:
            machine.answer(requests, answers, bar.hear if isinstance(progress, bool) else progress)
        return answers.outputs()
