"""What a KV cache in fp8 does to a real model's answers: SmolLM2-135M, on a CPU (plain torch, float32 otherwise).

    .venv/bin/python runtime/benchmarks/fp8.py

20 prompts are answered with 48 greedy tokens by each cache: how many answers are equal, and how long they stay so. Then
the plain cache's prompts with their answers are scored by both: the mean log-probability of their tokens, and how far
one token's moves. Prints a table, writes results/fp8.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import MODEL, write
from tokenizers import Tokenizer

from minisgl.args import LaunchArgs
from minisgl.engine.batch import Batch, Scoring
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

ANSWER = 48
PAGE = 16
QUESTIONS = (
    "What is the capital of France?",
    "Explain gravity to a child.",
    "Why is the sky blue?",
    "Give me a recipe for pancakes.",
    "Name the planets of the solar system.",
    "Write a Python function that adds two numbers.",
    "What does HTTP stand for?",
    "How do I boil an egg?",
    "Tell me about the history of Rome.",
    "What is photosynthesis?",
)
TEXTS = (
    "Once upon a time there was a king",
    "The quick brown fox",
    "In 1969, the first",
    "def fibonacci(n):",
    "1, 2, 3, 4, 5,",
    "Dear Sir or Madam,",
    "The theory of evolution says that",
    "To make bread, you need",
    "The largest city in Japan is",
    "Water boils when",
)


def build(cache: str) -> Driver:
    args: dict[str, Any] = {"model_path": str(MODEL), "device": "cpu", "num_tokens": 8192, "page_size": PAGE}
    return Driver(build_engine(LaunchArgs(**args, attention_backend="torch", kv_cache_dtype=cache)))


def scores(driver: Driver, ids: list[int]) -> NDArray[np.float32]:
    """Log-probability of each token but the first."""
    count = len(ids)
    batch = Batch(
        rows=np.zeros(1, np.int32),
        tokens=np.array(ids, np.int32),
        starts=np.zeros(1, np.int32),
        counts=np.array([count], np.int32),
        pages=np.arange(-(-count // PAGE), dtype=np.int32)[None],
        sampled=np.empty(0, np.int32),
        scrub=np.empty(0, np.int32),
        scored=np.arange(count - 1, dtype=np.int32),
        scoring=Scoring(np.array(ids[1:], np.int64), 1),
    )
    found = driver.engine.launch(batch)().scores
    assert found is not None
    return found.logprobs


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    chats = [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS]
    prompts = [tokenizer.encode(text).ids for text in [*chats, *TEXTS]]
    plain, narrow = build("auto"), build("fp8")
    greedy = SamplingParams(ANSWER, temperature=0, ignore_eos=True)
    answers, others = plain.generate(prompts, greedy), narrow.generate(prompts, greedy)
    same = [
        next((i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b), ANSWER)
        for one, two in zip(answers, others, strict=True)
    ]
    whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    wide, rounded = (np.concatenate([scores(driver, ids) for ids in whole]) for driver in (plain, narrow))
    row = {
        "answers": len(prompts),
        "equal_answers": sum(n == ANSWER for n in same),
        "equal_tokens_at_the_begin": round(float(np.mean(same)), 1),
        "of_tokens": ANSWER,
        "tokens_scored": len(wide),
        "mean_logprob": round(float(wide.mean()), 4),
        "mean_logprob_fp8": round(float(rounded.mean()), 4),
        "mean_move_of_a_logprob": round(float(np.abs(wide - rounded).mean()), 4),
    }
    print(json.dumps(row, indent=2))
    write(Path(__file__), {"what": f"{MODEL.name} with its KV cache in float32 and in fp8", "rows": [row]}, ("torch",))


if __name__ == "__main__":
    main()
