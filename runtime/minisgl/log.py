"""Log lines of one process: time, level, process, then an event with key=value; never a prompt's content."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s {process} %(message)s"


def setup(process: str, *, quiet: bool = False) -> None:
    """Send every log line of this process to stderr under its name; `quiet`: warnings only, beside a chat."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT.format(process=process), "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    for chatty in ("httpx", "urllib3", "asyncio", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
