"""Which of several operators acts: the one whose name stands in a Lease (coordination.k8s.io/v1).

    holder   renews every 2 s, and stops writing 7 s after its last renewal ──┐ always before
    others   take a Lease that has not changed for 10 s of their own clock  ◄─┘

No two clocks are compared: only how long this process has seen no change. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

from minisgl_operator.errors import ApiError, Conflict, NotFound
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Object

logger = logging.getLogger(__name__)

RENEW_SECONDS = 2.0
# The margin to LEASE_SECONDS is for a write that is on its way when the holder stops.
GIVE_UP_SECONDS = 7.0
LEASE_SECONDS = 10
ATTEMPT_SECONDS = 2.0  # a holder has three attempts before it gives up


class Step(Enum):
    """What to do about a Lease."""

    CREATE = "there is none"
    RENEW = "it is ours"
    TAKE = "its holder released it, or has not renewed it in time"
    WAIT = "another holds it"


class Leases(Protocol):
    """What the election needs of a cluster."""

    async def lease(self, namespace: str, name: str) -> Object | None:
        """The Lease, or None."""

    async def create_lease(self, body: Object) -> Object:
        """Create it; Conflict if somebody was faster."""

    async def replace_lease(self, body: Object) -> Object:
        """Replace it; Conflict if it is no longer the version in `body`."""


def decide(stored: Object | None, identity: str, unchanged_seconds: float) -> Step:
    """What an operator does that has seen this Lease unchanged for so long."""
    if stored is None:
        return Step.CREATE
    spec = stored.get("spec", {})
    holder = spec.get("holderIdentity")
    if holder == identity:
        return Step.RENEW
    is_over = unchanged_seconds >= spec.get("leaseDurationSeconds", LEASE_SECONDS)
    return Step.TAKE if not holder or is_over else Step.WAIT


def claimed(stored: Object | None, namespace: str, name: str, identity: str, now: str) -> Object:
    """The Lease with `identity` ("": nobody) as its holder. Carries the stored version, so that one writer wins."""
    old = (stored or {}).get("spec", {})
    same = old.get("holderIdentity") == identity
    meta = {"name": name, "namespace": namespace}
    if stored is not None:
        meta["resourceVersion"] = stored["metadata"]["resourceVersion"]
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": LEASE_SECONDS,
        "acquireTime": old.get("acquireTime", now) if same else now,
        "renewTime": now,
        "leaseTransitions": old.get("leaseTransitions", 0) + (stored is not None and not same and identity != ""),
    }
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


class Lease:
    """One operator's part in the election."""

    def __init__(self, leases: Leases, namespace: str, name: str, identity: str, metrics: Metrics) -> None:
        self._leases = leases
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._metrics = metrics
        self._held_until = 0.0
        self._version: str | None = None
        self._changed = _clock()  # when the version that we see was first seen
        self._duration: float = LEASE_SECONDS

    def is_held(self) -> bool:
        """Whether this process may write now. True for no longer than the Lease says, even after a pause of it."""
        return _clock() < self._held_until

    async def run(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run `act` while the Lease is held, for ever; it is cancelled when the Lease is lost. Releases at the end."""
        try:
            while True:
                while not await self._attempt():  # noqa: ASYNC110 (what it waits for happens in another process)
                    await asyncio.sleep(self._pause())
                logger.info("lease=%s/%s held by us (%s)", self._namespace, self._name, self._identity)
                self._metrics.is_holder.set(1)
                await self._hold(act)
                self._metrics.is_holder.set(0)
                logger.warning("lease=%s/%s lost, nothing is written until it is ours", self._namespace, self._name)
        finally:
            await self._release()

    async def _hold(self, act: Callable[[], Awaitable[None]]) -> None:
        """Act and renew until the Lease is lost; raises what `act` raises."""
        acting = asyncio.ensure_future(act())
        try:
            while self.is_held() and not acting.done():
                await asyncio.wait({acting}, timeout=min(RENEW_SECONDS, self._left()))
                if self.is_held() and not acting.done():
                    await self._attempt()
        finally:
            if not acting.done():
                acting.cancel()
                await asyncio.gather(acting, return_exceptions=True)
        if not acting.cancelled():
            acting.result()

    async def _attempt(self) -> bool:
        """Read the Lease, and write it if it is ours to write. True if it is held now."""
        began = _clock()
        limit = min(ATTEMPT_SECONDS, self._left()) if self.is_held() else ATTEMPT_SECONDS
        try:
            async with asyncio.timeout(limit):
                stored = await self._leases.lease(self._namespace, self._name)
                self._notice(stored)
                step = decide(stored, self._identity, _clock() - self._changed)
                if step is Step.WAIT:
                    self._held_until = 0.0
                    return False
                body = claimed(stored, self._namespace, self._name, self._identity, _now())
                write = self._leases.create_lease if step is Step.CREATE else self._leases.replace_lease
                self._notice(await write(body))
        except (Conflict, NotFound):
            return False  # another was faster; the next look tells who
        except (ApiError, TimeoutError) as error:
            logger.warning("lease=%s/%s: %s", self._namespace, self._name, error or f"no answer in {limit:.1f} s")
            return False
        self._held_until = began + GIVE_UP_SECONDS
        return True

    async def _release(self) -> None:
        """Let the next one in at once, if the Lease is ours."""
        held, self._held_until = self.is_held(), 0.0
        if not held:
            return
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                stored = await self._leases.lease(self._namespace, self._name)
                if decide(stored, self._identity, 0) is Step.RENEW:
                    await self._leases.replace_lease(claimed(stored, self._namespace, self._name, "", _now()))
                    logger.info("lease=%s/%s released", self._namespace, self._name)
        except (ApiError, TimeoutError) as error:
            logger.warning("lease=%s/%s runs out by itself: %s", self._namespace, self._name, error)

    def _notice(self, stored: Object | None) -> None:
        version = stored["metadata"]["resourceVersion"] if stored else None
        if version != self._version:
            self._version, self._changed = version, _clock()
        if stored:
            self._duration = float(stored.get("spec", {}).get("leaseDurationSeconds", LEASE_SECONDS))

    def _left(self) -> float:
        return max(0.0, self._held_until - _clock())

    def _pause(self) -> float:
        """Until the next look: not past the moment when the Lease can be taken."""
        runs_out = self._changed + self._duration - _clock()
        return min(RENEW_SECONDS, runs_out) if runs_out > 0.05 else RENEW_SECONDS


def _clock() -> float:
    """The loop's clock: it runs on while the process is stopped, and is not set by anybody."""
    return asyncio.get_running_loop().time()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
