"""What `serve` sends and when: drawn from one seed, so that two servers get the same requests. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from minisgl.bench.workload import HIGHEST_TOKEN

DEFAULT_CONCURRENCY = 16
WORDS = (
    "the of and to in is it you that he was for on are with as his they be at one have this from or had by hot but "
    "some what there we can out other were all your when up use word how said an each she which do their time if will "
    "way about many then them would write like so these her long make thing see him two has look more day could go "
    "come did my sound no most number who over know water than call first people may down side been now find any new "
    "work part take get place made live where after back little only round man year came show every good me give our"
)  # each is one token of nearly every vocabulary


@dataclass(frozen=True)
class Lengths:
    """Tokens, uniform between both ends."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True)
class Load:
    """Either `rate` arrivals a second (Poisson: gaps are exponential), or always `concurrency` requests open."""

    num_prompts: int
    input_len: Lengths
    output_len: Lengths
    seed: int
    rate: float | None
    max_open: int | None

    @property
    def concurrency(self) -> int:
        return min(self.max_open or DEFAULT_CONCURRENCY, self.num_prompts)

    def sizes(self) -> list[tuple[int, int]]:
        """Tokens in and out of each request."""
        draw = random.Random(self.seed).randint  # noqa: S311  a fixed sequence is the point
        lens = self.input_len, self.output_len
        return [(draw(lens[0].low, lens[0].high), draw(lens[1].low, lens[1].high)) for _ in range(self.num_prompts)]

    def arrivals(self) -> list[float]:
        """Seconds from the beginning, ascending."""
        assert self.rate is not None
        draw = random.Random(f"arrivals {self.seed}")  # noqa: S311
        at, moments = 0.0, []
        for _ in range(self.num_prompts):
            moments.append(at)
            at += draw.expovariate(self.rate)
        return moments

    def warm_up(self, num_prompts: int) -> Load:
        """Requests that share no prompt with these."""
        return replace(self, num_prompts=num_prompts, seed=-1 - self.seed)

    def content(self) -> dict[str, Any]:
        """For the JSON result."""
        how = {"rate": self.rate} if self.rate is not None else {"concurrency": self.concurrency}
        lens = {"input_len": str(self.input_len), "output_len": str(self.output_len)}
        return {"num_prompts": self.num_prompts, **lens, "seed": self.seed, **how}

    def sentence(self) -> str:
        how = f"{self.rate:g} arrivals/s" if self.rate is not None else f"{self.concurrency} open at a time"
        return f"asked for {self.input_len} tokens in and {self.output_len} out, {how}"


def bodies(load: Load, api: str, vocab_size: int, sampling: dict[str, Any]) -> list[bytes]:
    """The requests' JSON. A completion's prompt is token ids, exactly as many; a chat's is about as many words."""
    draw = random.Random(f"prompts {load.seed}")  # noqa: S311
    made = []
    for input_len, output_len in load.sizes():
        if api == "chat":
            words = " ".join(draw.choices(WORDS.split(), k=input_len))
            prompt: dict[str, Any] = {"messages": [{"role": "user", "content": words}]}
        else:
            prompt = {"prompt": [draw.randrange(min(vocab_size, HIGHEST_TOKEN + 1)) for _ in range(input_len)]}
        asked = {"max_tokens": output_len, "stream": True, "stream_options": {"include_usage": True}}
        made.append(msgspec.json.encode(sampling | prompt | asked))
    return made
