"""Log lines: one JSON object each for machines, or plain text for people. Never a spec's values beyond its names."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(form: Literal["json", "text"]) -> None:
    """Send everything to stderr in this form."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Kopf tells of every event that a handler saw it; ours do nothing but offer a key.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # At each start it warns that it does not see signals, which are `__main__`'s.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
