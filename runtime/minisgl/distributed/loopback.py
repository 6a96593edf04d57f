"""No door to the network: ranks of one machine talk over the loopback interface, and stop listening once all have met.

gloo and NCCL would listen on the address of the host's name, which in a pod is open to the whole cluster, and nobody
has to say who he is there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def stay_on_loopback() -> None:
    """Before the first rank is met; what the user has set stands."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")


@contextmanager
def closing_listeners() -> Iterator[None]:
    """Close the TCP sockets that began to listen in the block, on leaving it: gloo keeps one that it needs no more.

    Its number then leads to /dev/null, so that gloo, which closes it at its own end, closes nobody else's.
    """
    before = listeners()
    yield
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor in listeners() - before:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def listeners() -> set[int]:
    """Descriptors of this process's listening TCP sockets."""
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd") if sys.platform == "linux" else []):
        with contextlib.suppress(OSError):  # closed since it was listed
            # Only sockets: on anything else `socket` raises, and nobody would close the copy.
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as candidate:
                    is_tcp = candidate.family in (socket.AF_INET, socket.AF_INET6)
                    if is_tcp and candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.add(descriptor)
    return found
