"""Asks pods how far they are: each at most every 10 seconds, more rarely if no answer comes, never once it serves.
One that has just become ready is asked at once: what it said before was not the end of its start.

Remembers the last answers, so that the same answer gives the same status in between. What is forgotten by a restart is
asked for again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minisgl.info import StartInfo
from minisgl_operator.api import Key
from minisgl_operator.facts import Ask
from minisgl_operator.objects import Object, is_true

EVERY_SECONDS = 10.0
LONGEST_SECONDS = 300.0  # between two questions to a pod that cannot be reached (a NetworkPolicy)


@dataclass
class Look:
    """What one pod said last, and when to ask again."""

    answer: StartInfo | None = None
    failures: int = 0
    due: float = 0.0
    was_ready: bool = False


class Looks:
    """The last look at each pod that was asked about."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._looks: dict[Key, dict[str, Look]] = {}

    async def look(self, key: Key, pods: Iterable[Object]) -> tuple[dict[str, StartInfo], float | None]:
        """Ask those of `pods` that are due, all at once. Returns the last answers by uid, and seconds until one is due.

        Other pods of the model are forgotten.
        """
        wanted = {pod["metadata"]["uid"]: pod for pod in pods}
        old = self._looks.pop(key, {})
        looks = {uid: old.get(uid) or Look() for uid in wanted}
        now = self._clock()
        for uid, look in looks.items():
            is_ready = is_true(wanted[uid], "Ready")
            if is_ready and not look.was_ready and look.due < math.inf:
                look.due = now
            look.was_ready = is_ready
        due = [uid for uid, look in looks.items() if look.due <= now]
        for uid, answer in zip(due, await asyncio.gather(*(self._ask(wanted[uid]) for uid in due)), strict=True):
            look = looks[uid]
            look.failures = 0 if answer else look.failures + 1
            look.answer = answer or look.answer
            wait = min(EVERY_SECONDS * 2.0 ** min(max(0, look.failures - 1), 10), LONGEST_SECONDS)
            look.due = math.inf if answer and answer.status == "started" else now + wait
        if looks:
            self._looks[key] = looks
        told = {uid: look.answer for uid, look in looks.items() if look.answer}
        soonest = min((look.due for look in looks.values()), default=math.inf)
        return told, None if soonest == math.inf else soonest - now

    def forget(self, key: Key) -> None:
        """The model is gone."""
        self._looks.pop(key, None)
