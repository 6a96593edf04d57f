"""The shell process: a chat in the terminal, in the place of the HTTP front end and under the same supervisor.

One conversation, one request at a time. It owns the conversation and its commands; requests go through the same table
and the same processes as a server's. No socket but the private ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from minisgl.errors import BackendDied, MiniSGLError, RequestError
from minisgl.info import EngineFacts
from minisgl.messages import TO_FRONTEND, DecodeParams, Finish, SamplingParams, Text, Tokenize
from minisgl.metrics import Metrics
from minisgl.process import Break, Drain, Open, Order, Progress, Supervisor, run_child
from minisgl.server.requests import RequestTable
from minisgl.server.terminal import Terminal
from minisgl.sockets import Inbox, Outbox

BEAT_SECONDS = 1.0
TEMPERATURE = 0.6  # what most chat models of today recommend
ROOM_TOKENS = 256  # that an answer should have before the conversation is shortened for it
MOST_TOKENS = 2048  # of one answer; a small model that repeats itself ends here

HELP = """\
/reset   forget the conversation and begin anew
/help    this list
/exit    end the chat (or Ctrl-D)
Ctrl-C   stop the answer that is being written; what it said so far stays in the conversation"""
COMMANDS = ("/reset", "/help", "/exit")


class Shell:
    """One chat. Everything runs in the event loop; orders come in from the watching thread."""

    def __init__(self, supervisor: Supervisor) -> None:
        config = supervisor.config
        assert config.listen_fd is not None, "the terminal is handed over like a server's socket"
        self._supervisor, self._args = supervisor, config.launch_args
        self._terminal = Terminal(config.listen_fd, COMMANDS)
        ipc = Path(config.ipc)
        scheduler = Outbox(ipc, "scheduler", unbounded=True)
        tokenizers = itertools.cycle(
            [Outbox(ipc, f"tokenizer-{index}", unbounded=True) for index in range(max(1, self._args.num_tokenizer))]
        )
        self._table = RequestTable(
            self._args.max_running_requests + self._args.max_queued_requests,
            Metrics(self._args.model_path),
            lambda message: next(tokenizers).put(message),
            scheduler.put,
        )
        self._inbox: Inbox[TO_FRONTEND] = Inbox(ipc, "frontend", TO_FRONTEND)
        self._messages: list[dict[str, Any]] = []
        self._opened: asyncio.Future[Open] = asyncio.get_running_loop().create_future()
        self._chatting: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._is_interrupted = False
        self._context_length = 0  # known when all others have loaded

    async def run(self) -> None:
        """Until the person leaves, the lines end, or the supervisor says so."""
        loop = asyncio.get_running_loop()
        self._inbox.listen(loop, self._table.receive)

        def pass_on(order: Order) -> None:
            loop.call_soon_threadsafe(self._obey, order)

        self._supervisor.listen(pass_on)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        beating = asyncio.create_task(self._beat())
        self._chatting = asyncio.create_task(self._chat())
        with contextlib.suppress(asyncio.CancelledError, BrokenPipeError):  # told to end; nobody reads any more
            await self._chatting
        beating.cancel()

    def _obey(self, order: Order) -> None:
        match order:
            case Progress():
                percent = f" {100 * (order.done or 0) // order.total}%" if order.total else ""
                self._terminal.status(f"loading: {order.process} {order.phase}{percent}")
            case Open():
                self._opened.set_result(order)
            case Break():
                self._table.fail_all(order.message)
                self._end()
            case Drain():
                self._end()

    def _end(self) -> None:
        assert self._chatting is not None
        self._chatting.cancel()

    def _interrupt(self) -> None:
        if self._answering is not None:
            self._is_interrupted = True
            self._answering.cancel()

    async def _beat(self) -> None:
        while True:
            self._supervisor.beat()
            await asyncio.sleep(BEAT_SECONDS)

    # ---- the chat

    async def _chat(self) -> None:
        facts = EngineFacts.model_validate((await self._opened).facts)
        self._context_length = min(facts.context_length, facts.kv_cache.tokens)
        self._supervisor.ready()
        self._terminal.status("")
        if self._terminal.is_interactive:
            self._terminal.note(f"{self._args.model_path} on {facts.device}, {self._context_length} tokens of context")
            self._terminal.note("/help lists what you can do besides talking")
        while (line := await self._terminal.line()) is not None:
            match line.strip():
                case "":
                    continue
                case "/exit":
                    return
                case "/reset":
                    self._messages.clear()
                    self._terminal.note("the conversation is forgotten")
                case "/help":
                    self._terminal.note(HELP)
                case command if command.startswith("/") and " " not in command and command.count("/") == 1:
                    self._terminal.note(f"{command} is no command; /help lists them")
                case _:
                    await self._answer(line)

    async def _answer(self, line: str) -> None:
        """One turn. An answer that fails takes its question out of the conversation again."""
        self._is_interrupted = False
        self._messages.append({"role": "user", "content": line})
        self._answering = asyncio.create_task(self._generate())
        try:
            await self._answering
        except asyncio.CancelledError:
            if not self._is_interrupted:
                raise
            self._terminal.note("stopped")
        except BackendDied:
            raise  # the supervisor says what happened
        except MiniSGLError as error:
            self._terminal.note(str(error))
        finally:
            self._answering = None

    async def _generate(self) -> None:
        asked_at = time.monotonic()
        said: list[str] = []
        try:
            ids = await self._fitting_ids()
            max_tokens = min(MOST_TOKENS, self._context_length - len(ids))
            with self._table.open() as ticket:
                self._table.generate(ticket, ids, SamplingParams(max_tokens, TEMPERATURE), DecodeParams())
                text = await ticket.next_text()
                began_at = time.monotonic()
                first = text.num_tokens
                while True:
                    said.append(text.text)
                    await self._terminal.say(text.text)
                    if text.finish:
                        break
                    text = await ticket.next_text()
        finally:
            if answer := "".join(said):
                self._messages.append({"role": "assistant", "content": answer})
                await self._terminal.say("" if answer.endswith("\n") else "\n")
            else:
                self._messages.pop()
        self._terminal.note(figures(text, len(ids), began_at - asked_at, first, time.monotonic() - began_at))

    async def _fitting_ids(self) -> NDArray[np.int32]:
        """The conversation as ids; its oldest turns are forgotten where they leave too little room for an answer."""
        context = self._context_length
        forgotten = 0
        while True:
            turns = self._messages[2 * forgotten :]
            with self._table.open() as ticket:
                ids = await self._table.tokenize(ticket, Tokenize(0, messages=turns))
            if len(ids) + min(ROOM_TOKENS, context // 4) <= context or (len(turns) == 1 and len(ids) < context):
                break
            if len(turns) == 1:
                raise RequestError(f"this message has {len(ids)} tokens, the model's context {context}; shorten it")
            forgotten += 1
        if forgotten:
            self._messages = turns
            self._terminal.note(f"the context is full: the oldest {forgotten} of our turns are forgotten")
        return ids


def figures(last: Text, prompt_len: int, first_seconds: float, first_tokens: int, seconds: float) -> str:
    """What one answer took, as a line. The rate counts what came after the first token, over the time it took."""
    parts = [f"{prompt_len} + {last.num_tokens} tokens"]
    if last.num_tokens > first_tokens and seconds > 0:
        parts.append(f"{(last.num_tokens - first_tokens) / seconds:.1f} tokens/s")
    parts.append(f"first token after {first_seconds:.2f} s")
    if last.cached_tokens:
        parts.append(f"{last.cached_tokens} found in the cache")
    if last.finish is Finish.LENGTH:
        parts.append("cut: the answer is at its longest")
    return ", ".join(parts)


def main(supervisor: Supervisor) -> None:
    supervisor.phase("shell")

    async def run() -> None:
        await Shell(supervisor).run()

    uvloop.run(run())


if __name__ == "__main__":
    run_child(main)
