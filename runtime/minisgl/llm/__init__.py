"""The offline Python API: a model in the caller's process, whole lists of prompts in, whole answers out.

    from minisgl import LLM, SamplingParams

    with LLM("Qwen/Qwen3-0.6B") as llm:
        for output in llm.generate(["Once upon a time"], SamplingParams(temperature=0, max_tokens=64)):
            print(output.text)

No server, no port, no tokenizer process. Torch is imported when an LLM is made, not before.
"""

from minisgl.llm.offline import LLM
from minisgl.llm.output import Output
from minisgl.llm.sampling import SamplingParams

__all__ = ["LLM", "Output", "SamplingParams"]
