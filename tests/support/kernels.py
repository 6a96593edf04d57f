"""Every fused kernel against its twin in plain torch, over shapes: on a GPU, or on a CPU in Triton's interpreter.

TRITON_INTERPRET=1 python -m support.kernels        prints what went wrong, by check, as JSON
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable

import torch

Check = Callable[[str], None]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def is_interpreted(device: str) -> bool:
    return device == "cpu"


@check
def draw_equals_its_twin(device: str) -> None:
    from minisgl.kernels.draw import draw, twin_scores

    shapes = [(1, 5), (3, 2500), (12, 9000)]
    if not is_interpreted(device):
        shapes += [(1, 151936), (256, 151936), (9, 128256)]
    for rows, vocab in shapes:
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(rows)
            logits = (torch.randn(rows, vocab + 16, device=device) * 4).to(dtype)[:, :vocab]
            temperature = torch.rand(rows, device=device) * 2
            temperature[::3] = 0
            seeds = torch.randint(-(2**62), 2**62, (rows,), device=device)
            positions = torch.arange(rows, device=device) * 100
            owners = torch.randperm(rows + 3, device=device)[:rows]
            last = torch.full((rows + 3,), -7, device=device)
            tokens, failed = draw(logits, temperature, seeds, positions, last, owners).long()
            scores, expected_failed = twin_scores(logits, temperature, seeds, positions)
            assert not failed.any()
            assert not expected_failed.any()
            # Logarithms differ in their last bits: another token may win where two are as good.
            best, chosen = scores.amax(dim=1), scores.gather(1, tokens.unsqueeze(1)).squeeze(1)
            assert (best - chosen).abs().max() < 1e-4
            greedy = temperature == 0
            assert torch.equal(tokens[greedy], logits[greedy].float().argmax(dim=1))
            assert torch.equal(last[owners], tokens)
            assert int((last == -7).sum()) == 3


@check
def draw_depends_on_nothing_but_its_row(device: str) -> None:
    from minisgl.kernels.draw import draw

    rows, vocab = 11, 6000
    logits = torch.randn(rows, vocab, device=device).bfloat16()
    columns = [
        torch.full((rows,), 0.8, device=device),
        torch.arange(rows, device=device),
        torch.full((rows,), 9, device=device),
    ]
    last, owners = torch.zeros(rows, dtype=torch.int64, device=device), torch.arange(rows, device=device)
    together = draw(logits, *columns, last, owners)[0].tolist()  # cut into large chunks
    alone = [
        int(draw(logits[i : i + 1], *(x[i : i + 1] for x in columns), last, owners[:1])[0, 0]) for i in range(rows)
    ]
    whole = draw(logits.float(), *columns, last, owners)[0].tolist()
    assert together == alone == whole


@check
def draw_tells_which_rows_failed(device: str) -> None:
    from minisgl.kernels.draw import draw, draw_twin

    rows, vocab = 6, 2100
    logits = torch.randn(rows, vocab, device=device)
    logits[1, 2050] = float("nan")
    logits[2, 17] = float("inf")
    logits[3] = float("-inf")
    logits[4, 1:] = float("-inf")  # ruled out: fine
    logits[5] = float("nan")
    for heat in (0.0, 0.7):
        columns = (
            torch.full((rows,), heat, device=device),
            torch.arange(rows, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
        )
        owners = torch.arange(rows, device=device)
        drawn = [f(logits, *columns, owners.clone(), owners) for f in (draw, draw_twin)]
        for tokens, failed in drawn:
            assert failed.tolist() == [0, 1, 1, 1, 0, 1]
            assert tokens[4] == 0
            assert ((tokens >= 0) & (tokens < vocab)).all(), "an embedding is looked up for it, whatever it is"


def main() -> None:
    wrong = {}
    for name, function in CHECKS.items():
        try:
            function("cpu")
        except Exception:
            wrong[name] = traceback.format_exc()
    json.dump(wrong, sys.stdout)


if __name__ == "__main__":
    main()
