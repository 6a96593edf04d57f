"""The libraries of FlashAttention behind one call.

The first that is installed and serves is taken: 3, for Hopper; 4, for Hopper and newer, from PyPI; 2, for Ampere and
newer. They take seconds to import; 4 compiles its kernels on first use, and keeps them where
FLASH_ATTENTION_CUTE_DSL_CACHE_DIR says.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from minisgl.errors import StartError
from minisgl.kvcache.pool import KVPool
from minisgl.plan.config import FLASH_2, FLASH_3, FLASH_4
from minisgl.termination import Reason

CACHE = "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"
PAGES_OF_2 = 256  # tokens that its pages are multiples of


class Flash(Protocol):
    """Causal attention of queries that are each request's last tokens. Lines of `out` before the first request's are
    left alone.

    q, out [tokens, heads, dim]; keys, values: one layer [pages, page_size, kv_heads, dim]; all int32: queries
    [requests + 1], lengths [requests], table [requests, widest]; most: a bound of any request's queries.
    """

    def __call__(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        queries: torch.Tensor,
        lengths: torch.Tensor,
        table: torch.Tensor,
        most: int,
        out: torch.Tensor,
    ) -> None: ...


def installed() -> list[str]:
    """What there is, best first, found without an import."""
    spec = find_spec("flash_attn")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [FLASH_3] if find_spec("flash_attn_interface") else []
    found += [FLASH_4] if any((folder / "cute").is_dir() for folder in folders) else []
    return found + [FLASH_2] * any((folder / "flash_attn_interface.py").is_file() for folder in folders)


def load(pool: KVPool) -> Flash:
    """The kernel for a pool, or one line that says what is missing."""
    major, minor = torch.cuda.get_device_capability(pool.k.device)
    tried = []
    for name in installed():
        if (found := problem(name, major, pool.page_size)) is None:
            return BUILDERS[name]()
        tried.append(f"{name} {found}")
    raise StartError(
        Reason.DEVICE_UNAVAILABLE,
        f"--attention-backend fa: {'; '.join(tried) or 'no package of FlashAttention is installed'}, and this GPU has "
        f"compute capability {major}.{minor}; use --attention-backend fi",
    )


def problem(name: str, major: int, page_size: int) -> str | None:
    """Why a library does not serve a GPU of this compute capability, or pages of this size."""
    if name == FLASH_3:
        return None if major == 9 else "serves compute capability 9 only"
    if name == FLASH_4:
        return None if major in (9, 10, 11) else "reads pages on compute capability 9 to 11 only"
    if page_size % PAGES_OF_2:
        return f"reads pages of {PAGES_OF_2} tokens (--page-size {PAGES_OF_2})"
    return None if major >= 8 else "needs compute capability 8"


def _three() -> Flash:
    from flash_attn_interface import flash_attn_with_kvcache

    from minisgl.kernels.rows import place_rows

    def attend(q: Any, keys: Any, values: Any, queries: Any, lengths: Any, table: Any, most: int, out: Any) -> None:
        given = {"cache_seqlens": lengths, "page_table": table, "cu_seqlens_q": queries, "max_seqlen_q": most}
        place_rows(flash_attn_with_kvcache(q, keys, values, causal=True, **given), out, queries, shifted=False)

    return attend


def _four() -> Flash:
    if CACHE in os.environ:  # its own choice is a folder below /tmp, whose code others could have written
        os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    warnings.filterwarnings("ignore", message="Argument aux_data", category=UserWarning)  # its own, of no consequence
    from flash_attn.cute.interface import _flash_attn_fwd  # the public one cannot write where it is told

    def attend(q: Any, keys: Any, values: Any, queries: Any, lengths: Any, table: Any, most: int, out: Any) -> None:
        # Without the bound of queries it is one kernel for all steps.
        paged = {"cu_seqlens_q": queries, "seqused_k": lengths, "page_table": table}
        _flash_attn_fwd(q, keys, values, causal=True, out=out, **paged)

    return attend


def _two() -> Flash:
    from flash_attn import flash_attn_varlen_func

    from minisgl.kernels.rows import place_rows

    def attend(q: Any, keys: Any, values: Any, queries: Any, lengths: Any, table: Any, most: int, out: Any) -> None:
        ends = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        longest = table.shape[1] * keys.shape[1]
        found = flash_attn_varlen_func(q, keys, values, queries, ends, most, longest, causal=True, block_table=table)
        place_rows(found, out, queries, shifted=False)

    return attend


BUILDERS: dict[str, Callable[[], Flash]] = {FLASH_3: _three, FLASH_4: _four, FLASH_2: _two}
