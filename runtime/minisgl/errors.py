"""The exceptions of the runtime. Each layer translates them once, for its own reader.

MiniSGLError
├── UsageError            wrong arguments            -> one line on stderr, exit 2
├── StartError            the server cannot start    -> one line, termination message, exit 1
├── BackendDied           a child or the engine died -> error to every open request, exit 70
└── RequestError          one request is wrong       -> OpenAI error object with an HTTP status
    └── Overloaded        too much waits             -> 503 with Retry-After
"""

from __future__ import annotations

from minisgl.termination import Memory, Reason

EXIT_USAGE, EXIT_START_FAILED, EXIT_CHILD_DIED = 2, 1, 70


class MiniSGLError(Exception):
    """Base of all errors that carry a sentence for their reader: what happened, with which value, what to do."""


class UsageError(MiniSGLError):
    """The launch arguments cannot work."""

    reason = Reason.INVALID_ARGUMENTS


class StartError(MiniSGLError):
    """The server cannot start; `reason` is what the operator shows, `memory` which one an OutOfMemory is about."""

    def __init__(self, reason: Reason, message: str, *, memory: Memory | None = None) -> None:
        super().__init__(message)
        self.reason, self.memory = reason, memory


class BackendDied(MiniSGLError):
    """A process of the tree ended without being told to."""

    def __init__(self, message: str, reason: Reason = Reason.CHILD_DIED, *, memory: Memory | None = None) -> None:
        super().__init__(message)
        self.reason, self.memory = reason, memory


class RequestError(MiniSGLError):
    """One request cannot be served. `param` names the JSON field, `code` is stable for programs."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class Overloaded(RequestError):
    """The queue is full, or the server is draining: try again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int, code: str = "overloaded") -> None:
        super().__init__(message, status=503, code=code)
        self.retry_after = retry_after
