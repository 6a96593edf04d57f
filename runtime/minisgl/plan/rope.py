"""Rotary positions as config.json describes them, in its two spellings: flat `rope_theta`/`rope_scaling`, and
`rope_parameters`. `models.frequencies` turns these settings into numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minisgl.errors import StartError
from minisgl.termination import Reason


@dataclass(frozen=True)
class RopeConfig:
    """Plain rotary positions: dimension pair i turns by theta^(-2i / head_dim) radians per position."""

    theta: float = 10000.0

    @property
    def attention_factor(self) -> float:
        """Cosine and sine are multiplied by it, so attention's scores by its square."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Llama3Rope(RopeConfig):
    """Llama 3.1: pairs with fewer turns than `low` in the original context are stretched, above `high` they are not."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True, kw_only=True)
class YarnRope(RopeConfig):
    """YaRN (arXiv:2309.00071): the band is given in turns too, but the share moves linearly with the pair's index."""

    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True  # the band's ends to whole indices
    given_attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None

    @property
    def attention_factor(self) -> float:
        """The given one, else the paper's 0.1 ln(factor) + 1, else DeepSeek's ratio of two of those."""
        if self.given_attention_factor is not None:
            return self.given_attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._scale(self.mscale) / self._scale(self.mscale_all_dim)
        return self._scale(1.0)

    def _scale(self, mscale: float) -> float:
        return 0.1 * mscale * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


def read_rope(settings: Mapping[str, Any]) -> RopeConfig:
    """The rotary settings of a config.json; KeyError or ValueError where they are incomplete."""
    rope: Mapping[str, Any] = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    theta = float(rope.get("rope_theta") or settings.get("rope_theta") or 10000.0)
    share = rope.get("partial_rotary_factor", settings.get("partial_rotary_factor"))
    if share is not None and share != 1:
        raise _unsupported(f"rotary positions on a share of {share} of each head", "all of it")
    if kind == "default":
        return RopeConfig(theta)
    if kind not in ("llama3", "yarn"):
        raise _unsupported(f"rotary positions of type {kind!r}", "default, llama3 and yarn")
    original = int(rope.get("original_max_position_embeddings") or settings["max_position_embeddings"])
    if kind == "llama3":
        return Llama3Rope(
            theta,
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_context=original,
        )
    return YarnRope(
        theta,
        factor=float(rope.get("factor") or settings["max_position_embeddings"] / original),
        original_context=original,
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        truncate=bool(rope.get("truncate", True)),
        given_attention_factor=_optional(rope.get("attention_factor")),
        mscale=_optional(rope.get("mscale")),
        mscale_all_dim=_optional(rope.get("mscale_all_dim")),
    )


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)


def _unsupported(what: str, instead: str) -> StartError:
    return StartError(
        Reason.UNSUPPORTED_MODEL, f"the model has {what}, which cannot be served; this version computes {instead}"
    )
