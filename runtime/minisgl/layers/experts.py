"""A mixture of experts: a router chooses a few of many small MLPs for each token. Every rank holds all experts, each
with its share of their width, so that ranks have equal work whatever the router chooses.

Tokens are computed expert by expert, never one by one:

chosen      token 0: 2, 0    token 1: 2, 1       pairs of (token, expert)
sorted      0  1  2  2                           the pairs' experts
            t0 t1 t0 t1                          their tokens: one slice per expert
"""

from __future__ import annotations

import torch
from torch.nn import functional

from minisgl.layers.weight import Matrix, Place, Slot, Weighted


class Experts(Weighted):
    """sum over a token's experts of weight * down(silu(gate(x)) * up(x)).

    Weights of all experts lie in two stacks: gate and up [experts, 2 * width / ranks, hidden], down [experts, hidden,
    width / ranks]; in the checkpoint each expert's three are tensors of their own.
    """

    def __init__(
        self, name: str, hidden_size: int, width: int, *, num: int, per_token: int, normalised: bool, place: Place
    ) -> None:
        """`width`: of one expert, over all ranks. `normalised`: a token's weights are scaled to the sum 1."""
        mine = width // place.group.size
        start = place.group.rank * mine
        self.group, self.per_token, self.normalised = place.group, per_token, normalised
        self.router = place.empty(num, hidden_size)
        self.gate_up = [Matrix(weight) for weight in place.empty(num, 2 * mine, hidden_size)]
        self.down = [Matrix(weight) for weight in place.empty(num, hidden_size, mine)]
        self.parts: list[Weighted] = [self]
        self.slots = [Slot(f"{name}.gate.weight", self.router)]
        for i, (gate_up, down) in enumerate(zip(self.gate_up, self.down, strict=True)):
            expert = f"{name}.experts.{i}"
            self.slots += [
                Slot(f"{expert}.gate_proj.weight", gate_up.weight[:mine], 0, start),
                Slot(f"{expert}.up_proj.weight", gate_up.weight[mine:], 0, start),
                Slot(f"{expert}.down_proj.weight", down.weight, 1, start),
            ]

    def loaded(self) -> int:
        # Packed, they leave their stack, which is freed with the last of them.
        return super().loaded() + sum(matrix.pack() for matrix in (*self.gate_up, *self.down))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.route(x)
        pairs = chosen.flatten()
        order = pairs.argsort(stable=True)
        # The sizes of the products must be known here: free on a CPU, while a GPU is waited for once per layer.
        counts = pairs.bincount(minlength=len(self.router)).tolist()
        tokens = torch.split(order // self.per_token, counts)
        shares = torch.split(weights.flatten()[order].unsqueeze(1), counts)
        y = torch.zeros_like(x)
        for expert in (i for i, count in enumerate(counts) if count):
            mine = tokens[expert]
            gate, up = self.gate_up[expert](x[mine]).chunk(2, dim=-1)
            z = self.down[expert](functional.silu(gate).mul_(up))
            y.index_add_(0, mine, z.mul_(shares[expert]))
        return self.group.sum(y)

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and numbers [tokens, per_token] of each token's experts, the best first."""
        probs = functional.linear(x, self.router).softmax(dim=-1, dtype=torch.float32)
        weights, chosen = probs.topk(self.per_token, dim=-1)
        if self.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights.to(x.dtype), chosen
