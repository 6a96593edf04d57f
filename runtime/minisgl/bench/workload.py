"""The offline workload that mini-sglang, nano-vllm and vLLM are compared on, and prompts of one length for latencies.

The numbers come from Python's own generator with seed 0, in a fixed order of drawing: every engine's benchmark that
draws so computes the same 142,827 prompt and 133,966 answer tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

HIGHEST_TOKEN = 10_000  # below the vocabulary of every model that is compared
SHORTEST = 100  # tokens of a prompt, and of an answer


@dataclass(frozen=True)
class Workload:
    """Prompts, and how many tokens each is answered with."""

    prompts: list[list[int]]
    output_lens: list[int]

    @property
    def num_input_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def num_output_tokens(self) -> int:
        return sum(self.output_lens)

    def of_round(self, number: int, vocab_size: int) -> list[list[int]]:
        """The prompts of a round: the same lengths, other tokens, so that no prefix is found in the cache."""
        size = min(HIGHEST_TOKEN + 1, vocab_size)
        return [[(token + number) % size for token in prompt] for prompt in self.prompts]


def comparison(num_prompts: int, max_input: int, max_output: int, vocab_size: int) -> Workload:
    """Lengths uniform from SHORTEST up; the tokens of one prompt are drawn after its length."""
    draw = random.Random(0).randint  # noqa: S311  a fixed sequence is the point
    highest = min(HIGHEST_TOKEN, vocab_size - 1)
    prompts = []
    for _ in range(num_prompts):
        length = draw(min(SHORTEST, max_input), max_input)
        prompts.append([draw(0, highest) for _ in range(length)])
    return Workload(prompts, [draw(min(SHORTEST, max_output), max_output) for _ in range(num_prompts)])


def equal_prompts(num_prompts: int, length: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Prompts of one length that share no prefix with those of another seed."""
    draw = random.Random(seed)  # noqa: S311
    return [[draw.randrange(min(HIGHEST_TOKEN, vocab_size)) for _ in range(length)] for _ in range(num_prompts)]
