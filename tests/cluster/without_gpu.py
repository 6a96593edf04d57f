"""The runtime's command line on a node whose GPUs are only numbers to the scheduler: `--device=cuda` means the CPU.
Everything else is the runtime's own: start, probes, answers, drain."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    sys.argv[1:] = ["--device=cpu" if word == "--device=cuda" else word for word in sys.argv[1:]]
    runpy.run_module("minisgl", run_name="__main__", alter_sys=True)
