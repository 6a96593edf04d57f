"""How often the kernel has ended a process of this container for its memory limit: what tells an out-of-memory kill
from any other SIGKILL. Reads the control group's counter, version 2 or 1.
"""

from __future__ import annotations

import re
from pathlib import Path

# The file of the container's own group, as a container sees it; each holds a line `oom_kill NUMBER`.
COUNTERS = ("memory.events", "memory/memory.oom_control")
GROUPS = Path("/sys/fs/cgroup")


def num_oom_kills(groups: Path = GROUPS) -> int:
    """The counter; 0 where there is none to read (no control group of our own, no Linux)."""
    for name in COUNTERS:
        try:
            text = (groups / name).read_text()
        except OSError:
            continue
        if found := re.search(r"^oom_kill (\d+)$", text, re.MULTILINE):
            return int(found[1])
    return 0
