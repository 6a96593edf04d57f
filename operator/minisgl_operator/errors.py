"""What can go wrong while a model is reconciled, and who deals with it.

OperatorError
├── SpecError          the spec cannot become pods        -> condition InvalidSpec, no retry
├── NameTaken          a child's name is somebody else's  -> condition NameConflict, looked at again
├── Leftover           a child of a deleted namesake      -> condition Replacing, looked at again soon
├── NoCluster          nothing to connect to              -> one line, and the process ends
├── NotHolder          another operator holds the Lease   -> nothing is written, its turn
├── Paused             spec.pause, and children differ    -> condition Paused, nothing is written
└── ApiError           the API server answered no
    ├── Refused        400, 422: the child is not valid   -> condition InvalidSpec
    ├── Forbidden      403: a right is missing            -> condition Forbidden, looked at again
    ├── Rejected       403, 500: admission says no        -> condition QuotaExceeded or PodRejected, looked at again
    ├── Conflict       409: somebody else was faster      -> retried with fresh eyes
    ├── NotFound       404                                -> mostly None where objects are read
    │   └── UnknownKind  404 for the whole kind           -> an optional child is left out, status says so
    └── Unavailable    429, 5xx, time-out, no connection  -> retried with back-off, nothing is written
"""

from __future__ import annotations

import json
import re
from typing import Any

from minisgl_operator.objects import Child


class OperatorError(Exception):
    """Base of all errors that the reconciler expects."""


class SpecError(OperatorError):
    """The spec cannot become pods; the text says which value is wrong and what to use."""


class NameTaken(OperatorError):
    """An object of a child's kind and name exists and is not ours."""

    action = "delete it, or give this model another name"

    def __init__(self, child: Child, message: str) -> None:
        super().__init__(message)
        self.child = child


class Leftover(OperatorError):
    """A child belongs to a deleted model of the same name, and is being collected."""


class NoCluster(OperatorError):
    """Neither a service account nor a kubeconfig names an API server."""


class NotHolder(OperatorError):
    """This operator does not hold the Lease (any more), so it does not write."""


class Paused(OperatorError):
    """The model is paused, and its children are not what its spec says."""


class ApiError(OperatorError):
    """The API server answered with an error. `where` is the verb and the resource; `status` 0: no answer came."""

    def __init__(self, where: str, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Refused(ApiError):
    """The object is not valid (400, 422)."""


class Forbidden(ApiError):
    """A right is missing (403)."""


class Rejected(ApiError):
    """Admission does not let an object in: a quota, a policy, a webhook that says no (403) or nothing (500)."""


class Conflict(ApiError):
    """Another writer was faster, or owns a field (409)."""


class NotFound(ApiError):
    """No such object or resource (404)."""


class UnknownKind(NotFound):
    """The cluster does not know this kind of object: its CustomResourceDefinition is not installed."""


class Unavailable(ApiError):
    """The API server is overloaded, failing or out of reach."""


MISSING_RIGHT = re.compile(r'\bUser ".*" cannot ')
SILENT_WEBHOOK = "failed calling webhook"
CLASSES: dict[int, type[ApiError]] = {400: Refused, 403: Forbidden, 404: NotFound, 409: Conflict, 422: Refused}


def api_error(where: str, status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """Make the error that belongs to an HTTP answer; the sentence is the server's own."""
    found = CLASSES.get(status, Unavailable)
    try:
        parsed: Any = json.loads(body)
        message = str(parsed["message"])
    except (ValueError, KeyError, TypeError):
        message = body[:300].decode(errors="replace") or f"HTTP {status}"
        # A missing object is told as a Status that names it; for an unknown kind no handler speaks.
        found = UnknownKind if found is NotFound else found
    else:
        found = Rejected if _is_admissions(found, message) else found
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return found(where, status, message, seconds)


def _is_admissions(found: type[ApiError], message: str) -> bool:
    """Whether these words are admission's. RBAC's own 403 names the user, what it may not do, and the resource."""
    if found is Forbidden:
        return ("is forbidden: " in message or "denied the request" in message) and not MISSING_RIGHT.search(message)
    return found is Unavailable and SILENT_WEBHOOK in message
