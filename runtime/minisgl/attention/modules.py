"""Which modules of FlashInfer's an engine asks for, as the backends of this folder call it; and how an image gets them:

    python -m minisgl.attention.modules FOLDER 9.0a

compiles all that the image is meant for, since its last stage has no compiler. It takes long, so this file imports
nothing of ours: the image's layer is made anew when this file changes, and by no other change.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HOPPER = 9  # the generation of GPUs for which FlashInfer has kernels of their own
DTYPES, NARROW = ("bfloat16", "float16"), "float8_e4m3fn"
HOPPER_DIMS = (64, 128, 256)  # that FlashInfer has kernels for Hopper for
HEAD_DIMS = (128, 64)  # of the models that are served; an image carries no others
XQA_PAGES, XQA_DIM, XQA_DTYPE = (16, 32, 64, 128), 128, "bfloat16"
# Of what XQA could serve, what an image carries; elsewhere a kernel of ours attends. The groups are those of the models
# that most are served, the pages are the default and what our figures were measured with.
XQA_GROUPS, XQA_CARRIED_PAGES = (4, 2, 5, 7, 8), (16, 64)
ARCHITECTURES = "architectures"  # a file beside the modules: the GPUs they were compiled for


class Module(NamedTuple):
    """What FlashInfer compiles as one library."""

    kernel: str  # fa2, fa3 or xqa
    dtype: str  # of queries and results
    cache_dtype: str
    head_dim: int
    group: int = 0  # query heads per KV head, and tokens in a page: only XQA is compiled for one of each
    page_size: int = 0

    def spec(self) -> Any:
        """FlashInfer's own description, which knows the library's name and sources."""
        import torch
        from flashinfer.jit.attention.modules import gen_batch_prefill_module
        from flashinfer.jit.xqa import gen_xqa_module

        dtype, cache_dtype = getattr(torch, self.dtype), getattr(torch, self.cache_dtype)
        plain = 0, False, False, False  # no rotation, no window, no cap, no sums in 16 bits
        if self.kernel == "xqa":
            return gen_xqa_module(dtype, cache_dtype, self.page_size, self.head_dim, self.group, False, dtype)
        dims = self.head_dim, self.head_dim
        return gen_batch_prefill_module(self.kernel, dtype, cache_dtype, dtype, torch.int32, *dims, *plain)


def asked(dtype: str, cache_dtype: str, head_dim: int, generation: int) -> list[Module]:
    """Those that `fi` and `frozen` cannot do without, on a GPU of this generation."""
    found = [Module("fa2", dtype, cache_dtype, head_dim)]  # single tokens; over a narrow cache, prompts instead
    if cache_dtype == dtype and generation == HOPPER and head_dim in HOPPER_DIMS:
        found.append(Module("fa3", dtype, dtype, head_dim))  # FlashInfer's choice for prompts
    return found


def xqa(dtype: str, head_dim: int, group: int, page_size: int, generation: int) -> Module | None:
    """The one that `narrow` prefers, where there is such a one."""
    if dtype != XQA_DTYPE or head_dim != XQA_DIM or page_size not in XQA_PAGES or generation != HOPPER:
        return None
    return Module("xqa", dtype, NARROW, head_dim, group, page_size)


def carried(architectures: Sequence[str]) -> list[Module]:
    """All that an image for these GPUs is meant to have."""
    found: dict[Module, None] = {}  # a set that keeps its order
    for generation in {int(name.partition(".")[0]) for name in architectures}:
        for dtype in DTYPES:
            for head_dim in HEAD_DIMS:
                for cache_dtype in (dtype, NARROW):
                    found |= dict.fromkeys(asked(dtype, cache_dtype, head_dim, generation))
        wanted = [
            xqa(XQA_DTYPE, XQA_DIM, group, size, generation) for size in XQA_CARRIED_PAGES for group in XQA_GROUPS
        ]
        found |= dict.fromkeys(module for module in wanted if module is not None)
    return list(found)


def is_never_called(source: str) -> bool:
    """Most of FlashInfer's kernels for prompts, and of the time to compile them: for keys that do not lie in pages, for
    masks that are given (2) or tell one item from the next (3), and Hopper's for no mask (0): only single tokens need
    none, and those are fa2's.
    """
    never = ("_sm90_kernel_mask_0.cu", "_mask_2.cu", "_mask_3.cu")
    return source.startswith("batch_prefill_ragged") or source.endswith(never)


def main(folder: Path, architectures: Sequence[str]) -> None:
    """Compile them, where FlashInfer always does, and copy them to `folder`, laid out as it looks for an image's."""
    os.environ["FLASHINFER_CUDA_ARCH_LIST"] = " ".join(architectures)
    # No symbols that only a debugger reads. A function that is missing is missed when it is called. And the driver's
    # library is named as needed though, where none is, an empty one was linked against.
    os.environ["FLASHINFER_EXTRA_LDFLAGS"] = "-s -Wl,-z,lazy -Wl,--no-as-needed -lcuda"
    from flashinfer.jit.core import build_jit_specs

    specs = [module.spec() for module in carried(architectures)]
    for spec in specs:
        spec.sources = [path for path in spec.sources if not is_never_called(path.name)]
    build_jit_specs(specs, skip_prebuilt=False)
    for spec in specs:
        target = folder / spec.name / spec.jit_library_path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(spec.jit_library_path, target)
    (folder / ARCHITECTURES).write_text(f"{' '.join(architectures)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split())
