"""`python -m cluster.forward INIT_PID FOLDER`: carries connections from 127.0.0.1 of the machine to the API server
inside the sandbox. One process may hold sockets of two network namespaces: it opens its listener, moves itself into
the sandbox's, and connects from there. Knows nothing of HTTP or TLS; ends when the sandbox does."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
from pathlib import Path

from cluster.address import API_PORT, NODE_IP, OUTSIDE_PORT

CLONE_NEWNET = 0x40000000
CHUNK_BYTES = 1 << 16
CONNECT_SECONDS = 10


def listen() -> socket.socket:
    """The usual port, or any free one when something else has it."""
    for port in (OUTSIDE_PORT, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            continue
        listener.listen(512)
        return listener
    raise OSError("no free port on 127.0.0.1")


def enter_network(pid: int) -> None:
    """Move this (still single-threaded) process into the network namespace of `pid`; Python 3.11 has no os.setns."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(namespace, CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, f"setns: {os.strerror(error)}")
    finally:
        os.close(namespace)


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copy until the source says it has no more, then say the same to the target: the other direction goes on."""
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()
    if target.can_write_eof():
        target.write_eof()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, both ways, until both ends are done or one breaks."""
    try:
        opening = asyncio.open_connection(NODE_IP, API_PORT)
        far_reader, far_writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
    except (OSError, TimeoutError):
        writer.transport.abort()  # a reset, as a client sees it from a port nobody serves
        return
    ways = [asyncio.ensure_future(copy(reader, far_writer)), asyncio.ensure_future(copy(far_reader, writer))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        broken = any(way.exception() for way in done)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    for end in (writer, far_writer):
        if broken:
            end.transport.abort()
        else:
            end.close()


async def serve(listener: socket.socket, init: int) -> None:
    """Carry connections until the sandbox is gone."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(os.pidfd_open(init), gone.set)
    async with await asyncio.start_server(carry, sock=listener):
        await gone.wait()


def main() -> None:
    """Open the port, tell it, serve."""
    init, folder = int(sys.argv[1]), Path(sys.argv[2])
    listener = listen()
    enter_network(init)
    fresh = folder / ".port"
    fresh.write_text(f"{listener.getsockname()[1]}\n")
    fresh.replace(folder / "port")
    asyncio.run(serve(listener, init))


if __name__ == "__main__":
    main()
