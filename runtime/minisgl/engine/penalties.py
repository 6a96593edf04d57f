"""What a request may ask to be done to its logits before a token is chosen: penalties on repetition, biases, masks.

Formulas: repetition of CTRL (arXiv:1909.05858), presence and frequency of the OpenAI API;
in this order, then biases and masks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.engine.batch import NOT_KNOWN, Extras


def apply(logits: torch.Tensor, extras: Extras, last: torch.Tensor) -> None:
    """Change `logits` [sampled, vocab] float32 in place; `last` [sampled] are the tokens that came before."""
    if len(extras.penalised_at):
        _penalise(logits, extras, last)
    if len(extras.bias_at):
        device = logits.device
        where = tuple(torch.from_numpy(index).to(device) for index in (extras.bias_at, extras.bias_token))
        logits.index_put_(where, torch.from_numpy(extras.bias).to(device), accumulate=True)
    if len(extras.held_at):
        at = torch.from_numpy(extras.held_at).to(logits.device)
        logits[at] = logits[at].masked_fill_(~_unpack(extras.masks, logits), float("-inf"))


def _unpack(masks: NDArray[np.int32], logits: torch.Tensor) -> torch.Tensor:
    """Bits to bool [rows, vocab]."""
    words = torch.from_numpy(masks).to(logits.device).unsqueeze(2)
    bits = (words >> torch.arange(32, device=logits.device, dtype=torch.int32)) & 1
    return bits.bool().flatten(1)[:, : logits.shape[1]]


def _penalise(logits: torch.Tensor, extras: Extras, last: torch.Tensor) -> None:
    device = logits.device
    at = torch.from_numpy(extras.penalised_at).to(device)
    lengths = torch.from_numpy(extras.history_len).to(device)
    owner = torch.arange(len(at), device=device).repeat_interleave(lengths)
    tokens = torch.from_numpy(extras.history).to(device)
    tokens = torch.where(tokens == NOT_KNOWN, last[at][owner], tokens)
    nth = torch.arange(len(tokens), device=device) - (lengths.cumsum(0) - lengths)[owner]
    is_answer = (nth >= torch.from_numpy(extras.prompt_len).to(device)[owner]).float()

    scores = logits[at]
    seen = torch.zeros_like(scores, dtype=torch.bool).index_put_((owner, tokens), torch.ones_like(tokens).bool())
    times = torch.zeros_like(scores).index_put_((owner, tokens), is_answer, accumulate=True)
    repetition, frequency, presence = (
        torch.from_numpy(column).to(device).unsqueeze(1)
        for column in (extras.repetition, extras.frequency, extras.presence)
    )
    scores = torch.where(seen, torch.where(scores > 0, scores / repetition, scores * repetition), scores)
    logits[at] = scores - frequency * times - presence * (times > 0)
