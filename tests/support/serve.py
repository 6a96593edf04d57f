"""`python -m support.serve …`: the real command line with the fake scheduler in its spawn table."""

import sys

from minisgl.argv import parse_args
from minisgl.server.child import MODULES
from minisgl.server.launch import serve

if __name__ == "__main__":
    sys.exit(serve(parse_args(sys.argv[1:]), {**MODULES, "scheduler": "support.fake_scheduler"}))
