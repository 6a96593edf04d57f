"""`python -m minisgl.scheduler.process`: one tensor-parallel rank. Rank 0 decides and computes, the others replay.

Torch is imported only after `prepare_cpu` has set what it reads from the environment.
"""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import BaseModel

from minisgl.device import keep_kernels, prepare_cpu, resolve_device
from minisgl.errors import EXIT_CHILD_DIED
from minisgl.messages import TO_SCHEDULER, Abort, Flush, Generate
from minisgl.process import Supervisor, leave, run_child
from minisgl.sockets import Inbox, Outbox
from minisgl.termination import Reason

if TYPE_CHECKING:
    from minisgl.engine.engine import Engine
    from minisgl.scheduler.driver import Driver
    from minisgl.scheduler.scheduler import Scheduler

POLL_SECONDS = 0.2  # the heartbeat beats at least this often
STATS_SECONDS = 0.5  # gauges are never older
LOG_SECONDS = 1.0  # between log lines of decode steps
LAST_WORDS_SECONDS = 0.5  # for ZeroMQ's thread to deliver: what is unsent at exit is lost

log = logging.getLogger(__name__)


def main(supervisor: Supervisor) -> None:
    """Load, say so, work until the supervisor ends this process."""
    args, rank = supervisor.config.launch_args, supervisor.config.index
    size, ipc = args.tensor_parallel_size, Path(supervisor.config.ipc)
    supervisor.phase("import")
    prepare_cpu(size)
    keep_kernels()

    from minisgl.distributed.group import Group
    from minisgl.scheduler.driver import build_engine

    device = resolve_device(args.device)
    group = Group.join(rank, size, device, ipc, own_nccl=not args.disable_pynccl)
    engine = build_engine(args, group, supervisor.phase)
    supervisor.phase("warm-up")
    engine.warm_up()
    if rank == 0:
        decide(supervisor, engine, ipc, silent=args.silent_output)
    else:
        replay(supervisor, engine, ipc, rank)


def decide(supervisor: Supervisor, engine: Engine, ipc: Path, *, silent: bool) -> None:
    """Rank 0's loop: requests in, steps through the engine, results out."""
    from minisgl.scheduler.driver import Driver
    from minisgl.scheduler.link import ToRanks

    inbox: Inbox[TO_SCHEDULER] = Inbox(ipc, "scheduler", TO_SCHEDULER, supervisor.count_dropped)
    outbox = Outbox(ipc, "detokenizer")
    driver = Driver(engine, ToRanks(ipc, engine.group.size).send)
    scheduler = driver.scheduler
    facts = engine.facts()
    log.info("kv cache %s", _pairs(facts.kv_cache))
    log.info("ready %s", _pairs(facts, exclude={"kv_cache"}))
    supervisor.ready(facts)

    calm_the_collector()
    told = logged = 0.0
    while True:
        supervisor.beat()
        messages = inbox.drain()
        if not messages and not scheduler.has_work and (message := inbox.get(POLL_SECONDS)) is not None:
            messages = [message, *inbox.drain()]
        for message in messages:
            match message:
                case Generate():
                    admit(scheduler, message)
                case Abort():
                    scheduler.abort(message.uid)
                case Flush():
                    scheduler.flush()
        began = time.monotonic()
        try:
            batch = driver.step()
        except Exception as error:
            log.exception("the engine failed, this server ends")
            fail(driver, outbox, supervisor, error)
        now = time.monotonic()
        if scheduler.results or now - told >= STATS_SECONDS:
            outbox.put(driver.take())
            told = now
        # Every prefill, but decode steps once a second: dozens of them say the same.
        prefills = batch is not None and len(batch.tokens) > len(batch.counts)
        if batch is not None and not silent and (prefills or now - logged >= LOG_SECONDS):
            logged = now
            stats = scheduler.stats()
            log.info(
                "step=%d requests=%d tokens=%d seconds=%.4f running=%d waiting=%d kv_used=%d/%d",
                stats.steps_total,
                len(batch.counts),
                len(batch.tokens),
                now - began,
                stats.running,
                stats.waiting,
                stats.kv_used_tokens,
                stats.kv_total_tokens,
            )


def calm_the_collector() -> None:
    """A full garbage collection takes 190 ms with 600,000 pages in the prefix cache, and finds nothing: the tree's
    nodes die by their reference counts. What is loaded now stays for ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def admit(scheduler: Scheduler, message: Generate) -> None:
    """Queue a request. One that makes the scheduler stumble ends; the others know nothing of it."""
    try:
        scheduler.add(message)
    except Exception:
        log.exception("a request could not be queued uid=%d", message.uid)
        scheduler.refuse(message, "this request could not be scheduled; the server's log has the reason")


def _pairs(facts: BaseModel, exclude: set[str] | None = None) -> str:
    return " ".join(f"{key}={value}" for key, value in facts.model_dump(by_alias=False, exclude=exclude).items())


def fail(driver: Driver, outbox: Outbox, supervisor: Supervisor, error: Exception) -> NoReturn:
    """Tell every request that it is over, then end: an engine that raised once cannot be trusted again."""
    from minisgl.engine.memory import NO_ROOM_FOR_STEP, is_out_of_memory, which_memory

    driver.scheduler.fail_all("the engine failed while computing this request; the server restarts, try again")
    outbox.put(driver.take())
    time.sleep(LAST_WORDS_SECONDS)
    if is_out_of_memory(error):
        memory = which_memory(error, driver.engine.config.device)
        supervisor.fail(Reason.OUT_OF_MEMORY, NO_ROOM_FOR_STEP, memory)
    leave(EXIT_CHILD_DIED)


def replay(supervisor: Supervisor, engine: Engine, ipc: Path, rank: int) -> None:
    """Another rank's loop: compute what rank 0 decided, in its order."""
    from minisgl.scheduler.link import FromFirst

    link = FromFirst(ipc, rank)
    supervisor.ready()
    while True:
        supervisor.beat()
        if (batch := link.receive(POLL_SECONDS)) is not None:
            engine.launch(batch)()


if __name__ == "__main__":
    run_child(main)
