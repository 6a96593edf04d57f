"""`offline`: all prompts are there from the beginning; how many tokens per second come out."""

from __future__ import annotations

import argparse
import time
from typing import Any

from minisgl.args import LaunchArgs
from minisgl.bench.report import Report
from minisgl.bench.roofline import Device, Roofline, measure_device, roofline
from minisgl.bench.workload import Workload, comparison
from minisgl.device import prepare_cpu, resolve_device
from minisgl.errors import UsageError
from minisgl.llm import LLM, SamplingParams
from minisgl.plan.model import ModelConfig
from minisgl.source import SETTINGS, find_model

WARM_UP_PROMPTS, WARM_UP_TOKENS = 8, 8
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def measure(args: LaunchArgs, own: argparse.Namespace) -> Report:
    """Load the model, run the rounds, compare with the roofline."""
    prepare_cpu(args.tensor_parallel_size)
    with LLM(**args.model_dump(by_alias=False)) as llm:
        facts = llm.facts
        workload = comparison(own.num_prompts, own.max_input, own.max_output, llm.vocab_size)
        longest = max(len(prompt) + n for prompt, n in zip(workload.prompts, workload.output_lens, strict=True))
        if longest > facts.context_length:
            raise UsageError(
                f"--max-input {own.max_input} and --max-output {own.max_output} make a request of {longest} tokens, "
                f"more than the context of {facts.context_length}; lower them, or give the KV cache more memory"
            )
        llm.generate(
            [prompt[:WARM_UP_TOKENS] for prompt in workload.of_round(own.rounds, llm.vocab_size)[:WARM_UP_PROMPTS]],
            SamplingParams(max_tokens=WARM_UP_TOKENS, ignore_eos=True, temperature=own.temperature),
            progress=False,
        )
        rows = [_round(llm, workload, number, own) for number in range(own.rounds)]
    best = min(rows, key=lambda row: row["seconds"])
    notes, more = _compare(args, facts.dtype, workload, best, own)
    sizes = {
        "prompts": len(workload.prompts),
        "input_tokens": workload.num_input_tokens,
        "output_tokens": workload.num_output_tokens,
        "max_input": own.max_input,
        "max_output": own.max_output,
        "temperature": own.temperature,
    }
    sentence = (
        f"{len(workload.prompts)} prompts, {workload.num_input_tokens:,} tokens in, {workload.num_output_tokens:,} out"
    )
    return Report("offline", args.model_path, facts, sizes, rows, [sentence, *notes], {"best": best, **more})


def _round(llm: LLM, workload: Workload, number: int, own: argparse.Namespace) -> dict[str, Any]:
    prompts = workload.of_round(number, llm.vocab_size)
    params = [SamplingParams(max_tokens=n, ignore_eos=True, temperature=own.temperature) for n in workload.output_lens]
    began = time.perf_counter()
    outputs = llm.generate(prompts, params)
    seconds = time.perf_counter() - began
    if wrong := next((output.error for output in outputs if output.error), None):
        raise UsageError(f"a request failed, so the figures would mean nothing: {wrong}")
    made = sum(len(output.token_ids) for output in outputs)
    return {
        "round": number + 1,
        "seconds": round(seconds, 3),
        "output_tokens_per_s": round(made / seconds, 1),
        "all_tokens_per_s": round((made + workload.num_input_tokens) / seconds, 1),
        "requests_per_s": round(len(prompts) / seconds, 2),
    }


def _compare(
    args: LaunchArgs, dtype: str, workload: Workload, best: dict[str, Any], own: argparse.Namespace
) -> tuple[list[str], dict[str, Any]]:
    """The best round beside what the device allows; the engine is closed, so that measuring has the memory."""
    model = ModelConfig.read(find_model(args.model_path, SETTINGS))
    if getattr(model, "experts", None) is not None:
        return ["no roofline: which experts a step reads depends on its tokens"], {}
    kind = resolve_device(args.device)
    found = Device(0, 0) if own.bandwidth and own.tflops else measure_device(kind, dtype)
    ranks = args.tensor_parallel_size if kind == "cuda" else 1  # ranks on a CPU share it, GPUs bring their own
    device = Device(
        ranks * (own.bandwidth * 1e9 if own.bandwidth else found.bytes_per_second),
        ranks * (own.tflops * 1e12 if own.tflops else found.flops_per_second),
    )
    line = roofline(model, ELEMENT_BYTES[dtype], workload, device)
    share = best["output_tokens_per_s"] / line.output_tokens_per_second
    note = (
        f"roofline: {line.output_tokens_per_second:,.0f} output tokens/s "
        f"({device.bytes_per_second / 1e9:,.0f} GB/s, {device.flops_per_second / 1e12:,.2f} TFLOP/s); "
        f"the best round reached {share:.0%} of it"
    )
    return [note], {"roofline": _content(line, device, share)}


def _content(line: Roofline, device: Device, share: float) -> dict[str, float]:
    return {
        "bandwidth_gb_per_s": round(device.bytes_per_second / 1e9, 1),
        "tflops": round(device.flops_per_second / 1e12, 3),
        "kv_seconds": round(line.kv_seconds, 3),
        "decode_seconds": round(line.decode_seconds, 3),
        "prefill_seconds": round(line.prefill_seconds, 3),
        "seconds": round(line.seconds, 3),
        "output_tokens_per_s": round(line.output_tokens_per_second, 1),
        "reached": round(share, 4),
    }
