"""The choices of one answer, each a request of its own, and what comes of them in one stream of news.

    prompt 0 ── choice 0 ──► scheduler          index = prompt * n + number
             └─ choice 1 …   when choice 0 has a token: then the prompt's pages are in the prefix cache for it
    prompt 1 ── choice 2 ──► scheduler

Knows neither HTTP nor JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minisgl.messages import Text
from minisgl.server.requests import Ticket

Launch = Callable[[], None]


class Choices:
    """Tickets that were opened together. `lasts` has the latest text of each."""

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self._bell = tickets[0].bell
        self._open = dict(enumerate(tickets))
        self._behind: dict[int, list[Launch]] = {}
        self.lasts: dict[int, Text] = {}

    @property
    def are_open(self) -> bool:
        return bool(self._open)

    def follow(self, leader: int, launch: Launch) -> None:
        """Launch a choice as soon as another one has a token."""
        self._behind.setdefault(leader, []).append(launch)

    async def news(self) -> list[tuple[int, Text]]:
        """Index and new text of every choice that has some; waits for the first. Raises the error that ends one."""
        while not (found := [(i, text) for i, ticket in self._open.items() if (text := ticket.poll()) is not None]):
            await self._bell.wait()
        for index, text in found:
            for launch in self._behind.pop(index, ()):
                launch()
            if text.finish:
                del self._open[index]
            self.lasts[index] = text
        return found
