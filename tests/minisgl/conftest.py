"""One thread per test process, set before torch is imported: two threads on contended cores are many times slower."""

import os

from minisgl.device import prepare_cpu

os.environ.setdefault("OMP_NUM_THREADS", "1")
prepare_cpu()
