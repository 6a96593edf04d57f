"""The vocabulary, divided over ranks: token ids to vectors at the door, vectors to logits at the end.

A vocabulary that does not divide is padded: the last ranks hold rows of zeros that no token names, and the logits of
those rows are cut off.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from minisgl.layers.weight import Matrix, Place, Slot, Weighted


class Vocabulary(Weighted):
    """One [vocab / ranks, hidden] weight; with tied embeddings it serves both directions.

    `embeds` and `scores` say which directions it has to serve.
    """

    def __init__(
        self, name: str, vocab_size: int, hidden_size: int, *, embeds: bool, scores: bool, place: Place
    ) -> None:
        group = place.group
        self.group, self.vocab_size = group, vocab_size
        self.per_rank = -(-vocab_size // group.size)
        self.start = group.rank * self.per_rank
        self.embeds, self.scores = embeds, scores
        self.matrix = Matrix(place.empty(self.per_rank, hidden_size).zero_())
        real = max(0, min(self.per_rank, vocab_size - self.start))
        self.slots = [Slot(f"{name}.weight", self.matrix.weight[:real], 0, self.start)] if real else []

    def loaded(self) -> int:
        return super().loaded() + (self.matrix.pack(keep=self.embeds) if self.scores else 0)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Vectors [tokens, hidden] of int64 ids."""
        if self.group.size == 1:
            return functional.embedding(tokens, self.matrix.weight)
        local = tokens - self.start
        foreign = (local < 0) | (local >= self.per_rank)
        x = functional.embedding(local.masked_fill(foreign, 0), self.matrix.weight)
        return self.group.sum(x.masked_fill_(foreign.unsqueeze(1), 0))

    def logits(self, x: torch.Tensor) -> torch.Tensor | None:
        """Scores [rows, vocab] on rank 0; None on the others, which sample nothing."""
        whole = self.group.concat_on_first(self.matrix(x))
        return None if whole is None else whole[:, : self.vocab_size]
