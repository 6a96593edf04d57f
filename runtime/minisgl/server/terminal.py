"""The two ends of a chat in a terminal: lines that a person types (or a pipe brings), and text that comes back.

Answers go to standard output; everything about them goes to standard error, dim where that is a terminal.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import threading
from collections.abc import Awaitable, Callable, Sequence

# What a model says is text: no escape sequence of its own may move the cursor or rename the window.
CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
ERASE_LINE = "\r\x1b[2K"


def remember(fd: int) -> Callable[[], None]:
    """The settings of the terminal behind `fd`, if it is one; call the result to put them back."""
    try:
        settings = termios.tcgetattr(fd)
    except (termios.error, OSError):
        return lambda: None
    return lambda: termios.tcsetattr(fd, termios.TCSADRAIN, settings)


class Terminal:
    """Reads from the descriptor `fd`, which it owns. `words` are offered while a person types."""

    def __init__(self, fd: int, words: Sequence[str]) -> None:
        self._file = os.fdopen(fd, encoding="utf-8", errors="replace")
        self.is_interactive = self._file.isatty() and sys.stdout.isatty()
        self._is_dim = sys.stderr.isatty()
        self._words = words
        self._next_line: Callable[[], Awaitable[str | None]] | None = None

    async def line(self) -> str | None:
        """The next line, without its end; None when no more will come."""
        if self._next_line is None:
            self._next_line = self._typed() if self.is_interactive else self._piped()
        return await self._next_line()

    async def say(self, text: str) -> None:
        """A piece of an answer. In a thread: a reader that stops (Ctrl-S, a pager) must not stop the heartbeat."""
        await asyncio.to_thread(self._write, text.translate(CONTROLS) if sys.stdout.isatty() else text)

    def note(self, text: str) -> None:
        """One line about the chat."""
        sys.stderr.write(f"{DIM}{text}{PLAIN}\n" if self._is_dim else f"{text}\n")
        sys.stderr.flush()

    def status(self, text: str) -> None:
        """A line that the next one replaces; only for eyes. An empty one erases it."""
        if self._is_dim:
            sys.stderr.write(f"{ERASE_LINE}{DIM}{text}{PLAIN}")
            sys.stderr.flush()

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _typed(self) -> Callable[[], Awaitable[str | None]]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.input import create_input

        # Lines are remembered for the arrow keys, and not written to disk: they are private.
        session: PromptSession[str] = PromptSession(
            input=create_input(self._file),
            completer=WordCompleter(list(self._words), sentence=True),
            reserve_space_for_menu=0,  # three commands are not worth eight empty lines
        )

        async def line() -> str | None:
            while True:
                try:
                    return await session.prompt_async("> ", handle_sigint=False)
                except KeyboardInterrupt:
                    self.note("Ctrl-D or /exit ends the chat")
                except EOFError:
                    return None

        return line

    def _piped(self) -> Callable[[], Awaitable[str | None]]:
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def read() -> None:
            for line in self._file:
                loop.call_soon_threadsafe(lines.put_nowait, line.rstrip("\n"))
            loop.call_soon_threadsafe(lines.put_nowait, None)

        # No executor: one that waits for a line would hold the end of the process.
        threading.Thread(target=read, name="lines", daemon=True).start()
        return lines.get
