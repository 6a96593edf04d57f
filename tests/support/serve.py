"""`python -m support.serve …`: the real command line with the fake scheduler in its spawn table.

`MINISGL_FAKE=impatient` also shortens the watchdog's minute to two seconds.
"""

import os
import sys

from minisgl.argv import parse_args
from minisgl.server import supervisor
from minisgl.server.child import MODULES
from minisgl.server.launch import serve

if __name__ == "__main__":
    if os.environ.get("MINISGL_FAKE") == "impatient":
        supervisor.HEARTBEAT_SECONDS = 2.0
    sys.exit(serve(parse_args(sys.argv[1:]), {**MODULES, "scheduler": "support.fake_scheduler"}))
