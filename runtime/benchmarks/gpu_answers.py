"""Whether a real model answers on a GPU as it does on a CPU: SmolLM2-135M, 50 questions, the first 32 tokens, greedy.

    python runtime/benchmarks/gpu_answers.py [folder]        the folder of `make model` unless another is named

On a CPU: the answers in float32, and for each token its logarithm, the second best token and the margin between them,
to results/answers_cpu.json. On a GPU: the same in float32 (plain torch, no TF32) and in bfloat16 (the default backend),
beside that file: equal answers, and where one parts from the CPU's, both margins of the two tokens. In float32 a
difference must be a tie. Prints a row a format, writes results/gpu_answers.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from report import MODEL, write

from minisgl.device import keep_kernels, prepare_cpu

prepare_cpu()
keep_kernels()

import torch

from minisgl import LLM, SamplingParams
from minisgl.llm.output import Output

TOKENS = 32
TOPICS = "rain", "bread", "the moon", "bicycles", "a library", "honey", "winter", "trains", "a river", "mathematics"
FORMS = (
    "What is {}?",
    "Write a short story that begins with {}.",
    "Give me three facts about {}.",
    "Explain to a child why people like {}.",
    "Translate into French: I think about {} every day.",
)
QUESTIONS = [form.format(topic) for form in FORMS for topic in TOPICS]
ON_A_CPU = Path(__file__).parent / "results" / "answers_cpu.json"
FORMATS = "float32", "bfloat16"

Step = dict[str, Any]  # token, its logarithm, the second best token, the margin between both


def answer(folder: Path, dtype: str, device: str) -> tuple[list[list[Step]], dict[str, Any]]:
    """Each answer step by step, and facts about how it came."""
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    with LLM(str(folder), device=device, dtype=dtype, num_tokens=50 * 256, max_seq_len_override=1024) as llm:
        plain = llm.chat(conversations, SamplingParams(temperature=0, max_tokens=TOKENS), progress=False)
        asked = SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=2, skip_special_tokens=False)
        told = llm.chat(conversations, asked, progress=False)
        facts = {"dtype": dtype, "attention": llm.facts.attention_backend}
    # Most users ask for no logarithms: those answers count, and the others only show how near a decision was.
    facts["same_with_logprobs"] = sum(a.token_ids == b.token_ids for a, b in zip(plain, told, strict=True))
    return [steps(a, b) for a, b in zip(plain, told, strict=True)], facts


def steps(plain: Output, told: Output) -> list[Step]:
    found: list[Step] = [{"token": token} for token in plain.token_ids]
    for step, token, logprobs in zip(found, told.token_ids, told.logprobs or [], strict=False):
        if token != step["token"]:
            break  # behind it the two are about different texts
        best, second = logprobs.top[:2]
        step |= {"logprob": round(best[1], 5), "second": second[0], "margin": round(best[1] - second[1], 5)}
    return found


def differences(ours: list[list[Step]], cpus: list[list[Step]]) -> dict[str, Any]:
    """How many answers are equal, where the others part, and how far the logarithms of equal tokens lie apart."""
    parted, furthest = [], 0.0
    for number, (here, there) in enumerate(zip(ours, cpus, strict=True)):
        for at, (a, b) in enumerate(zip(here, there, strict=False)):
            if a["token"] != b["token"]:
                parted.append({"question": number, "at": at, "here": a, "cpu": b})
                break
            if "logprob" in a and "logprob" in b:
                furthest = max(furthest, abs(a["logprob"] - b["logprob"]))
        else:
            if len(here) != len(there):
                parted.append({"question": number, "at": min(len(here), len(there)), "here": {}, "cpu": {}})
    return {
        "questions": len(cpus),
        "equal_answers": len(cpus) - len(parted),
        "equal_tokens": sum(len(there) for there in cpus) - sum(len(cpus[p["question"]]) - p["at"] for p in parted),
        "tokens": sum(len(there) for there in cpus),
        "furthest_logprob": round(furthest, 5),
        "widest_margin_that_turned": max((p["cpu"].get("margin", 0.0) for p in parted), default=0.0),
        "parted": parted,
    }


def keep(answers: list[list[Step]], facts: dict[str, Any]) -> None:
    """One line an answer, so that a change can be read."""
    columns = ("token", "logprob", "second", "margin")
    rows = [{name: [step.get(name) for step in steps] for name in columns} for steps in answers]
    head = json.dumps({"model": "SmolLM2-135M-Instruct", "device": "cpu"} | facts)
    lines = ",\n".join(json.dumps(row) for row in rows)
    ON_A_CPU.write_text(f'{{"facts": {head}, "answers": [\n{lines}\n]}}\n')


def kept() -> list[list[Step]]:
    rows = json.loads(ON_A_CPU.read_text())["answers"]
    return [[dict(zip(row, values, strict=True)) for values in zip(*row.values(), strict=True)] for row in rows]


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL
    if not torch.cuda.is_available():
        answers, facts = answer(folder, "float32", "cpu")
        if ON_A_CPU.exists():
            print(json.dumps(facts | {"against_the_file": differences(answers, kept())}))
        keep(answers, facts)
        return
    assert not torch.backends.cuda.matmul.allow_tf32, "float32 must not be TF32"
    rows = []
    for dtype in FORMATS:
        answers, facts = answer(folder, dtype, "cuda")
        rows.append(facts | differences(answers, kept()))
        print(json.dumps(rows[-1]), flush=True)
    what = f"SmolLM2-135M-Instruct on a GPU beside a CPU's float32: {len(QUESTIONS)} greedy answers of {TOKENS} tokens"
    packages = "torch", "flashinfer-python", "flash-attn-4"
    write(Path(__file__), {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}, packages)


if __name__ == "__main__":
    main()
