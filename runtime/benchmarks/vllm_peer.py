"""vLLM on a CPU as a process that cpu.py asks. It runs in vLLM's own environment and knows nothing of MiniSGL.

PYTHON vllm_peer.py MODEL_FOLDER DTYPE      stdin: {"prompts": [[ids]], "new": n}   stdout: {"tokens", "seconds"}
"""

from __future__ import annotations

import json
import os
import sys
import time

# Its log also goes to stdout: keep that for the answers alone.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def main() -> None:
    import vllm  # type: ignore[import-not-found]

    folder, dtype = sys.argv[1:]
    engine = vllm.LLM(
        model=folder,
        dtype=dtype,
        max_model_len=1024,
        max_num_seqs=8,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )
    answers.write(json.dumps({"version": vllm.__version__}) + "\n")
    for line in sys.stdin:
        asked = json.loads(line)
        sampling = vllm.SamplingParams(max_tokens=asked["new"], temperature=0, ignore_eos=True, detokenize=False)
        prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
        began = time.perf_counter()
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - began
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        answers.write(json.dumps({"tokens": tokens, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
