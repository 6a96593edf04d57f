"""The real model: greedy answers of SmolLM2 against transformers, in float32."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from minisgl.args import LaunchArgs
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

pytestmark = pytest.mark.cpu

ROOT = Path(__file__).resolve().parents[3]
NUM_TOKENS = 64
TIE = 1e-4  # two logits closer than this may swap places by rounding alone

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain gravity to a child.",
    "List three prime numbers larger than 10.",
    "Translate 'good morning' into Spanish.",
    "Who wrote Romeo and Juliet?",
    "Give me a recipe for pancakes.",
    "What is 12 times 12?",
    "Why is the sky blue?",
    "Name the planets of the solar system.",
    "Write a Python function that adds two numbers.",
    "What does HTTP stand for?",
    "Tell me a joke.",
    "How do I boil an egg?",
]
TEXTS = [
    "Once upon a time there was a king",
    "The quick brown fox",
    "In 1969, the first",
    "def fibonacci(n):",
    "1, 2, 3, 4, 5,",
    "Dear Sir or Madam,",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    command = [sys.executable, "-m", "models"]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.mark.timeout(600)
def test_greedy_answers_are_those_of_transformers(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    chats = [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS]
    prompts = [tokenizer.encode(text).ids for text in chats + TEXTS]
    driver = Driver(build_engine(LaunchArgs(model_path=str(folder), device="cpu", num_tokens=8192)))
    answers = driver.generate(prompts, SamplingParams(NUM_TOKENS, temperature=0, ignore_eos=True))

    oracle = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ties: list[str] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        assert len(answer) == NUM_TOKENS
        # One pass over prompt and answer: if every token is the oracle's choice after those before it, then the
        # oracle, choosing one by one, gives this answer.
        with torch.inference_mode():
            logits = oracle(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        for position, (token, row) in enumerate(zip(answer, logits, strict=True)):
            best = int(row.argmax())
            if token != best:
                gap = float(row[best] - row[token])
                assert gap < TIE, f"{tokenizer.decode(prompt)!r} position {position}: {token} instead of {best}, {gap=}"
                ties.append(f"position {position}: tokens {token} and {best} tie within {gap:.1e}")
    if ties:
        print("\n".join(ties))
