"""How fast weights come from a disk to a CPU's memory, beside the disk's own speed.

    python runtime/benchmarks/load.py [gigabytes]        1.5 unless told otherwise; in a temporary folder

A checkpoint of random bfloat16 numbers in two files, taken out of the page cache before every reading. Rounds of: a
plain read by 1 and by 2 readers, our loader into bfloat16 and into float32, and the same from the page cache; medians.
Prints a row a round, writes results/load.json.
"""

from __future__ import annotations

import json
import statistics
import sys
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
from minisgl.models.weights import INDEX, load

ROUNDS = 5
ROWS, COLUMNS = 8192, 1024  # 16 MiB a tensor, as in a model of a few billion
READERS = 1, 2


def save(folder: Path, num_bytes: int) -> int:
    """Tensors in two files; returns their bytes."""
    where = {}
    for part in range(2):
        tensors = {f"{part}.{i}": torch.randn(ROWS, COLUMNS).bfloat16() for i in range(num_bytes // 2**25)}
        save_file(tensors, folder / f"{part}.safetensors")
        where |= dict.fromkeys(tensors, f"{part}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    return len(where) * ROWS * COLUMNS * 2


def loading_rate(folder: Path, dtype: torch.dtype) -> float:
    """GB/s of the files."""
    names = json.loads((folder / INDEX).read_text())["weight_map"]
    # Touched, as weights whose memory the kernel has yet to give would be: that is not the loader's work.
    slots = [Slot(name, torch.zeros(ROWS, COLUMNS, dtype=dtype).fill_(1)) for name in names]
    began = time.perf_counter()
    load(slots, folder)
    return len(names) * ROWS * COLUMNS * 2 / 1e9 / (time.perf_counter() - began)


def measure(folder: Path) -> dict[str, float]:
    files = sorted(folder.glob("*.safetensors"))
    row = {f"plain_{readers}": plain_rate(files, readers) for readers in READERS}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        forget(files)
        row[name] = loading_rate(folder, dtype)
        row[f"{name}_cached"] = loading_rate(folder, dtype)
    row["share_of_the_disk"] = row["bfloat16"] / max(row[f"plain_{readers}"] for readers in READERS)
    return {name: round(value, 2) for name, value in row.items()}


def main() -> None:
    wanted = float(sys.argv[1]) if len(sys.argv) > 1 else 1.5
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = save(folder, int(wanted * 1e9))
        forget(folder.glob("*.safetensors"))
        cold = is_forgotten(folder / "0.safetensors")
        for _ in range(ROUNDS):
            rows.append(measure(folder))
            print(json.dumps(rows[-1]), flush=True)
    medians = {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    what = "weights from a disk into a CPU's memory, GB/s of the files; nothing in the page cache unless named cached"
    result = {"what": what, "gigabytes": round(size / 1e9, 2), "from_disk": cold, "median": medians, "rounds": rows}
    write(Path(__file__), result, ("torch", "safetensors"))


if __name__ == "__main__":
    main()
