"""What the HTTP routes share: who is served, which limits hold, and the table of open requests."""

from __future__ import annotations

from minisgl import __version__
from minisgl.args import LaunchArgs
from minisgl.errors import BackendDied, Overloaded, RequestError
from minisgl.info import EngineFacts, ServerInfo
from minisgl.metrics import Metrics
from minisgl.process import Open
from minisgl.server.health import Health
from minisgl.server.openai import MOST_CHOICES
from minisgl.server.requests import RequestTable

STARTING_RETRY_SECONDS, DRAINING_RETRY_SECONDS = 10, 5
MOST_SCORES = 2**16  # logprobs of one request's prompts: to write more would hold up others' streams too long


class Front:
    """The front end's state. `open` fills in what only the engine knows."""

    def __init__(self, args: LaunchArgs, health: Health, metrics: Metrics, table: RequestTable, created: int) -> None:
        self.args, self.health, self.metrics, self.table = args, health, metrics, table
        self.model_name = args.served_model_name or args.model_path
        self.created = created
        self.context_length = 0
        self.vocabulary_size = 0
        self.page_size = 0
        self.tool_parser: str | None = None
        self.reasoning_parser: str | None = None
        self.is_accepting = True  # false after the drain delay
        self.failure: str | None = None

    def learn(self, order: Open) -> None:
        """All children can work; from here on requests can be checked against the engine's limits."""
        facts = EngineFacts.model_validate(order.facts)
        # A request that can never fit into the cache must not be admitted.
        self.context_length = min(facts.context_length, facts.kv_cache.tokens)
        # A tokenizer may know words that were added after the model was trained, and have no row in its weights.
        self.vocabulary_size = min(order.vocabulary_size, facts.vocabulary_size or order.vocabulary_size)
        self.tool_parser = chosen(self.args.tool_call_parser, order.dialect.tools)
        self.reasoning_parser = chosen(self.args.reasoning_parser, order.dialect.reasoning)
        cache = facts.kv_cache
        self.page_size = cache.page_size
        self.metrics.gauge("minisgl_kv_cache_info", str(cache.page_size), str(cache.pages)).set(1)
        self.health.info = ServerInfo(
            version=__version__,
            served_model_name=self.model_name,
            model_path=self.args.model_path,
            launch_args=self.args.model_dump(mode="json", by_alias=True),
            engine=facts,
            tool_call_parser=self.tool_parser,
            reasoning_parser=self.reasoning_parser,
            startup_seconds=order.startup_seconds,
        )

    def check_open(self) -> None:
        """Raises what a new request meets when the server cannot take it."""
        if self.failure is not None:
            raise BackendDied(self.failure)
        if self.health.state == "starting":
            raise Overloaded(
                "The model is still loading; see /startupz.", retry_after=STARTING_RETRY_SECONDS, code="not_ready"
            )
        if not self.is_accepting:
            raise Overloaded(
                "The server is shutting down; another replica will answer.",
                retry_after=DRAINING_RETRY_SECONDS,
                code="draining",
            )

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self.model_name:
            raise RequestError(
                f"The model {name[:200]!r} does not exist here; this server serves {self.model_name!r}.",
                status=404,
                code="model_not_found",
                param="model",
            )

    def check_tokens(self, largest: int, param: str) -> None:
        """An id that the model does not have would be an index out of bounds in the engine."""
        if largest >= self.vocabulary_size:
            raise RequestError(
                f"{param}: the token id {largest} is outside the vocabulary of {self.vocabulary_size}",
                code="invalid_value",
                param=param,
            )

    def check_choices(self, num_prompts: int, n: int, param: str) -> None:
        """More than the table can ever hold could only be told to try again for ever."""
        limit = min(MOST_CHOICES, self.table.limit)
        if num_prompts * n > limit:
            raise RequestError(
                f"{num_prompts} prompts with n={n} make {num_prompts * n} choices, and {limit} is the limit of one "
                "request; send several",
                code="invalid_value",
                param="n" if n > 1 else param,
            )

    def check_scores(self, num_tokens: int, num_top: int, param: str) -> None:
        """What is told of prompts is put into words in one go, while others' streams wait."""
        count = num_tokens * (num_top + 1)
        if count > MOST_SCORES:
            raise RequestError(
                f"{param}: {num_tokens} prompt tokens with {num_top + 1} logprobs each are {count}, and {MOST_SCORES} "
                "is the limit of one request; send fewer prompts, or ask for fewer of the likeliest tokens",
                code="invalid_value",
                param=param,
            )

    def answer_len(self, prompt_len: int, wanted: int | None, default: int | None, param: str) -> int:
        """How many tokens the answer may have. Prompt plus answer must fit the context: nothing is cut silently."""
        limit = self.context_length
        if prompt_len == 0:
            raise RequestError("The prompt has no tokens; send some text.", code="invalid_prompt", param=param)
        if wanted is None:
            wanted = max(1, limit - prompt_len) if default is None else default
        if prompt_len + max(1, wanted) > limit:  # without an answer, a token is computed all the same
            raise RequestError(
                f"This model's maximum context length is {limit} tokens. However, you requested "
                f"{prompt_len + wanted} tokens ({prompt_len} in the {param}, {wanted} in the completion). "
                f"Please reduce the length of the {param} or completion.",
                code="context_length_exceeded",
                param=param,
            )
        return wanted


def chosen(asked: str, told: str | None) -> str | None:
    """A parser's name: what the launch arguments say, or what the model's template tells."""
    return told if asked == "auto" else None if asked == "none" else asked
