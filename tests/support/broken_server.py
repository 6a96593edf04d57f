"""A server that says to each request exactly the bytes it was given for it, however wrong: for what calls servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle

MODELS = b'{"data":[{"id":"broken"}]}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def whole(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def events(*datas: bytes) -> bytes:
    return b"".join(b"data: %s\n\n" % data for data in datas)


@contextmanager
def saying(*answers: bytes | None, models: bytes = MODELS) -> Iterator[str]:
    """Its address. POSTs get the answers in turn, from the first again after the last; None: never an answer."""
    left = cycle(answers)
    stays = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        await reader.readexactly(int(lengths[0]))
        answer = whole("200 OK", models) if head.startswith(b"GET") else next(left)
        if answer is None:
            await reader.read()  # until the client leaves
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    loop = asyncio.new_event_loop()
    address: list[str] = []
    is_up = threading.Event()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        is_up.set()
        async with server:
            await stays.wait()
            if open_ones := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(open_ones)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    is_up.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stays.set)
        thread.join()
        loop.close()
