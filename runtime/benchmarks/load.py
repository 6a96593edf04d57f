"""How fast weights come from a disk, beside the disk's own speed.

    python runtime/benchmarks/load.py [--gigabytes 1.5] [--rounds 5] [--readers N ...] [--piece-mib N]

A checkpoint of random bfloat16 numbers in two files, in a temporary folder, taken out of the page cache before every
reading. Rounds of: a plain read by 1, 2 and 8 readers, each into one small buffer; our loader into bfloat16 and into
float32, on the GPU where there is one; and the same from the page cache. --readers and --piece-mib try other numbers
than the loader's own. Prints a row a round, writes the medians to results/load.json (on a GPU gpu_load.json).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from disk import forget, is_forgotten, plain_rate
from report import write

from minisgl.device import prepare_cpu

prepare_cpu()

import torch
from safetensors.torch import save_file

from minisgl.layers.weight import Slot
from minisgl.models import pieces, reader
from minisgl.models.weights import INDEX, load

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, COLUMNS = 8192, 1024  # 16 MiB a tensor, as in a model of a few billion
PLAIN = 1, 2, 8


def save(folder: Path, num_bytes: int) -> int:
    """Tensors in two files; returns their bytes."""
    where = {}
    for part in range(2):
        numbers = [torch.randn(ROWS, COLUMNS, device=DEVICE).bfloat16().cpu() for _ in range(num_bytes // 2**25)]
        tensors = {f"{part}.{i}": tensor for i, tensor in enumerate(numbers)}
        save_file(tensors, folder / f"{part}.safetensors")
        where |= dict.fromkeys(tensors, f"{part}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    return len(where) * ROWS * COLUMNS * 2


def loading_rate(folder: Path, dtype: torch.dtype) -> float:
    """GB/s of the files."""
    names = json.loads((folder / INDEX).read_text())["weight_map"]
    # Touched: that the kernel has yet to give their memory is not the loader's work.
    slots = [Slot(name, torch.ones(ROWS, COLUMNS, dtype=dtype, device=DEVICE)) for name in names]
    began = time.perf_counter()
    load(slots, folder)
    return len(names) * ROWS * COLUMNS * 2 / 1e9 / (time.perf_counter() - began)


def measure(folder: Path, readers: list[int]) -> dict[str, float]:
    files = sorted(folder.glob("*.safetensors"))
    row = {f"plain_{n}": plain_rate(files, n) for n in PLAIN}
    disk = max(row.values())
    for n in readers or [0]:
        if n:
            reader.FEWEST = reader.MOST = n
        name = f"_{n}" if n else ""
        for dtype in (torch.bfloat16, torch.float32):
            forget(files)
            row[f"{str(dtype)[6:]}{name}"] = loading_rate(folder, dtype)
            row[f"{str(dtype)[6:]}_cached{name}"] = loading_rate(folder, dtype)
        row[f"share_of_the_disk{name}"] = row[f"bfloat16{name}"] / disk
    return {name: round(value, 2) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, nargs="*", default=[])
    parser.add_argument("--piece-mib", type=int)
    asked = parser.parse_args()
    if asked.piece_mib:
        pieces.PIECE_BYTES = asked.piece_mib * 2**20
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = save(folder, int(asked.gigabytes * 1e9))
        forget(folder.glob("*.safetensors"))
        cold = is_forgotten(folder / "0.safetensors")
        for _ in range(asked.rounds):
            rows.append(measure(folder, asked.readers))
            print(json.dumps(rows[-1]), flush=True)
    medians = {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    what = "weights from a disk into memory, GB/s of the files; nothing in the page cache unless named cached"
    result = {"what": what, "gigabytes": round(size / 1e9, 2), "from_disk": cold, "median": medians, "rounds": rows}
    script = Path(__file__)
    if DEVICE == "cuda":
        script = script.with_stem("gpu_load")
        result["gpu"] = torch.cuda.get_device_name()
    write(script, result, ("torch", "safetensors"))


if __name__ == "__main__":
    main()
