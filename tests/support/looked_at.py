"""A child of the server as it is, and a window into it: on SIGUSR2 it writes how much its tables hold.

The file is `MINISGL_LOOKED_AT`/PID.json: for each container of the objects that know requests, its length.
"""

import importlib
import json
import os
import signal
from collections import deque
from pathlib import Path
from typing import Any

from minisgl.process import Supervisor, run_child
from minisgl.server.child import MODULES

KNOW_REQUESTS = {
    "frontend": ("minisgl.server.requests.RequestTable",),
    "detokenizer": ("minisgl.tokenizer.detokenizer.Detokenizer",),
    "scheduler": (
        "minisgl.scheduler.scheduler.Scheduler",
        "minisgl.scheduler.scheduler.Queue",
        "minisgl.scheduler.pages.PageTable",
        "minisgl.scheduler.results.Results",
    ),
}
SIZED = (dict, set, list, deque)


def main(supervisor: Supervisor) -> None:
    role = supervisor.config.role
    found: list[Any] = []
    for name in KNOW_REQUESTS.get(role, ()):
        remember(name, found)

    def tell(*_: Any) -> None:
        sizes: dict[str, int] = {}
        for each in found:
            for name, value in vars(each).items():
                if isinstance(value, SIZED):
                    key = f"{role}: {type(each).__name__}.{name}"
                    sizes[key] = sizes.get(key, 0) + len(value)
        folder = Path(os.environ["MINISGL_LOOKED_AT"])
        new = folder / f"{os.getpid()}.new"
        new.write_text(json.dumps(sizes))
        new.rename(folder / f"{os.getpid()}.json")  # whole, or not there

    signal.signal(signal.SIGUSR2, tell)
    importlib.import_module(MODULES[role]).main(supervisor)


def remember(name: str, found: list[Any]) -> None:
    """Keep every instance of the class: the collector does not list what the runtime has frozen."""
    module, _, class_name = name.rpartition(".")
    kind = getattr(importlib.import_module(module), class_name)
    make = kind.__init__

    def __init__(self: Any, *args: Any, **options: Any) -> None:  # noqa: N807
        found.append(self)
        make(self, *args, **options)

    kind.__init__ = __init__


if __name__ == "__main__":
    run_child(main)
