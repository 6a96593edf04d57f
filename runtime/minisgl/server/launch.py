"""One server from its arguments to its exit code: bind, make the private folder, run the tree, tell how it ended."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from minisgl import log
from minisgl.args import LaunchArgs
from minisgl.errors import EXIT_CHILD_DIED, EXIT_START_FAILED, EXIT_USAGE, BackendDied, StartError
from minisgl.process import ChildConfig, Role
from minisgl.server.child import MODULES
from minisgl.server.supervisor import Tree
from minisgl.server.terminal import remember
from minisgl.termination import Memory, Reason, Termination, leave

BACKLOG = 2048  # connections that the kernel holds while the front end is busy
LONGEST_SOCKET_PATH = 107  # bytes of a Unix socket's address
LONGEST_NAME = len("/tokenizer-63")

logger = logging.getLogger(__name__)


def serve(args: LaunchArgs, modules: Mapping[Role, str] = MODULES) -> int:
    """Run one server until it is told to stop or fails. Returns the exit code; an unwilling end leaves its reason."""
    started_at = time.monotonic()
    log.setup("main", quiet=args.shell_mode)
    give_back = remember(0)
    ipc: Path | None = None
    tree: Tree | None = None
    try:
        url = ""
        if args.shell_mode:
            modules = {**modules, "frontend": "minisgl.server.shell"}
            door = open_terminal()
        else:
            listener = bind(args.host, args.port)
            url, door = url_of(listener), listener.detach()
        ipc = make_private_folder()

        def announce(seconds: dict[str, float]) -> None:
            logger.info("ready url=%s seconds=%.2f", url, time.monotonic() - started_at)
            if args.shell_mode:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # from now on Ctrl-C stops an answer, not the chat
            else:
                sys.stdout.write(greeting(url, args))
                sys.stdout.flush()

        tree = Tree(args, ipc, door, started_at, modules, announce)
        tree.run()
    except StartError as error:
        code = EXIT_USAGE if error.reason is Reason.INVALID_ARGUMENTS else EXIT_START_FAILED
        return end(code, error.reason, str(error), tree.culprit if tree else None, error.memory)
    except BackendDied as error:
        return end(EXIT_CHILD_DIED, error.reason, str(error), tree.culprit if tree else None, error.memory)
    finally:
        if ipc is not None:
            shutil.rmtree(ipc, ignore_errors=True)
        give_back()  # a shell that was killed could not
    logger.info("stopped")
    return 0


def end(
    code: int, reason: Reason, message: str, culprit: ChildConfig | None = None, memory: Memory | None = None
) -> int:
    """One line on stderr, one message for Kubernetes. `culprit` is the child that ended the server, if one did."""
    left = Termination(reason=reason, message=message, memory=memory)
    if culprit is not None:
        rank = culprit.index if culprit.role == "scheduler" else None
        left = left.model_copy(update={"process": culprit.name, "rank": rank})
    leave(left)
    sys.stderr.write(f"minisgl: {message}\n")
    return code


def bind(host: str, port: int) -> socket.socket:
    """Listen before anything is loaded: a port in use is known within milliseconds."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(Reason.START_FAILED, f"--host={host} is no address of this machine: {error}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is in use; stop its owner, or give another with --port"
            raise StartError(Reason.ADDRESS_IN_USE, message) from error
        raise StartError(Reason.START_FAILED, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def open_terminal() -> int:
    """Our standard input, for the shell: its own carries the supervisor's orders."""
    try:
        return os.dup(0)
    except OSError as error:
        raise StartError(
            Reason.START_FAILED, "--shell-mode: standard input is closed; there is nobody to talk to"
        ) from error


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def make_private_folder() -> Path:
    """A fresh folder of mode 0700 for sockets and heartbeats; a random name, so that no old socket is met."""
    folder = tempfile.mkdtemp(prefix="minisgl-")
    if len(folder.encode()) + LONGEST_NAME > LONGEST_SOCKET_PATH:
        shutil.rmtree(folder)
        folder = tempfile.mkdtemp(prefix="minisgl-", dir="/tmp")
    return Path(folder)


def greeting(url: str, args: LaunchArgs) -> str:
    """What a person needs next: where, and a line to try."""
    model = args.served_model_name or args.model_path
    return (
        f"ready at {url}\n"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'\n'
    )
