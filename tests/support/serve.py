"""`python -m support.serve …`: the real command line with another scheduler in its spawn table.

`MINISGL_SCHEDULER` is `fake` (no model) or `faulty` (the real one, which can be asked for faults). The termination
message goes to the file `MINISGL_TERMINATION_LOG`. With `MINISGL_LOOKED_AT` all children are real and can be looked
into (`support.looked_at`).
"""

import functools
import os
import sys
from pathlib import Path

from minisgl.argv import parse_args
from minisgl.server import launch, progress
from minisgl.server.child import MODULES
from support import faults

if __name__ == "__main__":
    if quiet := faults.asked().get("quiet"):
        progress.QUIET_SECONDS = float(quiet)
    if path := os.environ.get("MINISGL_TERMINATION_LOG"):
        launch.leave = functools.partial(launch.leave, path=Path(path))
    scheduler = f"support.{os.environ.get('MINISGL_SCHEDULER', 'fake')}_scheduler"
    modules = {**MODULES, "scheduler": scheduler}
    if os.environ.get("MINISGL_LOOKED_AT"):
        modules = dict.fromkeys(MODULES, "support.looked_at")
    sys.exit(launch.serve(parse_args(sys.argv[1:]), modules))
