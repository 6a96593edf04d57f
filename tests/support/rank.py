"""One tensor-parallel rank as a process, for a test of its steps: MODEL IPC SIZE OVERLAP PROMPTS DEVICE RANK.

Digests cover what decides the next token: the geometry that was received, and the token ids that went into the model.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from minisgl.args import LaunchArgs
from minisgl.distributed.group import Group
from minisgl.engine.batch import Batch
from minisgl.engine.engine import Engine
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine
from minisgl.scheduler.link import FromFirst, ToRanks

END = "end"  # a file that rank 0 leaves when it has all answers


def watch(engine: Engine) -> list[str]:
    """Note a digest of every step that the model computes, in order."""
    digests: list[str] = []
    hidden = engine.model.hidden

    def noting(tokens: torch.Tensor, positions: torch.Tensor, *rest: object) -> torch.Tensor | None:
        digest = hashlib.sha256(tokens.cpu().numpy().tobytes() + positions.cpu().numpy().tobytes())
        digests.append(digest.hexdigest())
        return hidden(tokens, positions, *rest)  # type: ignore[arg-type]

    engine.model.hidden = noting  # type: ignore[method-assign,assignment]
    return digests


def main() -> None:
    model, folder, size, overlap, prompts, device, rank = sys.argv[1:]
    ipc = Path(folder)
    group = Group.join(int(rank), int(size), device, ipc, own_nccl="NO_PYNCCL" not in os.environ)
    args = LaunchArgs(
        model_path=model,
        device=device,  # type: ignore[arg-type]
        dtype="float32",
        page_size=4,
        num_pages=24,  # so few that requests are preempted
        max_prefill_length=16,
        tensor_parallel_size=int(size),
        overlap=overlap,  # type: ignore[arg-type]
    )
    engine = build_engine(args, group)
    digests = watch(engine)
    answers = None
    if group.rank == 0:
        driver = Driver(engine, ToRanks(ipc, group.size).send)
        answers = driver.generate(json.loads(prompts), SamplingParams(12, temperature=0, ignore_eos=True))
        (ipc / END).touch()
    else:
        link = FromFirst(ipc, group.rank)
        batch: Batch | None = None
        while batch is not None or not (ipc / END).exists():
            if (batch := link.receive(0.2)) is not None:
                engine.launch(batch)()
    group.minimum(0, device)  # nobody leaves while another still sends
    sys.stdout.write(json.dumps({"digests": digests, "answers": answers}))
    sys.stdout.flush()
    os._exit(0)  # as a server's ranks end: gloo's threads must not see another rank's connection close


if __name__ == "__main__":
    main()
