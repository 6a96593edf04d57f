"""The engine in the caller's process: one thread that loads it and runs every step, and the other ranks beside it.

    caller's thread ──job──► machine's thread: rank 0 ──decided steps──► rank 1 … N-1 (child processes)
         └── waits, looks for dead ranks, hears Ctrl-C

So Ctrl-C never tears a step apart, a collective that waits for a dead rank cannot hold the caller, and children that
end with the thread that started them (PDEATHSIG) live as long as the machine. Torch is imported in that thread.
"""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from minisgl.args import LaunchArgs
from minisgl.device import keep_kernels, prepare_cpu, resolve_device
from minisgl.errors import BackendDied, MiniSGLError
from minisgl.info import EngineFacts
from minisgl.llm.output import Answers, Indices
from minisgl.llm.prompts import Limits
from minisgl.llm.ranks import Ranks
from minisgl.messages import Generate
from minisgl.source import find_model

if TYPE_CHECKING:
    from minisgl.scheduler.driver import Driver
    from minisgl.scheduler.link import ToRanks

LOOK_SECONDS = 0.2  # between looks at the other ranks
GRACE_SECONDS = 2.0  # after a rank's death, for rank 0's own error to come up
END_SECONDS = 10.0  # for the thread to end; one that hangs in a library is left alone

T = TypeVar("T")
Listener = Callable[[Indices], None]  # hears which requests got a token, step by step


class Machine:
    """One engine of all ranks. Jobs run one after another; after an error inside a step it is of no more use."""

    def __init__(self, args: LaunchArgs) -> None:
        self._args = args
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stop = threading.Event()  # the job in progress shall end early
        self._one_at_a_time = threading.Lock()
        self._broken: MiniSGLError | None = None
        self._hangs = False  # the thread waits inside a library for a rank that is gone
        self._ranks: Ranks | None = None
        self._link: ToRanks | None = None
        self._driver: Driver | None = None
        self._thread = threading.Thread(target=self._work, name="minisgl-engine", daemon=True)
        self._thread.start()
        try:
            self.facts, self.limits = self._run(self._load)
        except BaseException:
            self.close()
            raise

    def answer(self, requests: Sequence[Generate], answers: Answers, listener: Listener) -> None:
        """Compute all requests to their ends. KeyboardInterrupt ends them early and leaves the machine usable."""
        self._run(lambda: self._answer(requests, answers, listener))

    def abort(self, uid: int) -> None:
        """End one request early; for use from within a job."""
        assert self._driver
        self._driver.scheduler.abort(uid)

    def close(self) -> None:
        """End the other ranks and the thread. May be called twice."""
        self._broken = self._broken or BackendDied("this LLM is closed; make another")
        self._stop.set()
        if self._ranks is not None:
            self._ranks.end()
        self._jobs.put(None)
        self._thread.join(0 if self._hangs else END_SECONDS)

    # ---- the caller's thread

    def _run(self, job: Callable[[], T]) -> T:
        with self._one_at_a_time:
            if self._broken is not None:
                raise self._broken
            self._stop.clear()
            done = threading.Event()
            results: list[T] = []
            errors: list[BaseException] = []

            def work() -> None:
                try:
                    results.append(job())
                except BaseException as error:  # for the caller, whatever it is
                    errors.append(error)
                done.set()

            self._jobs.put(work)
            try:
                while not done.wait(LOOK_SECONDS):
                    self._look_for_the_dead(done)
            except KeyboardInterrupt:
                self._stop.set()
                while self._driver is not None and not done.wait(LOOK_SECONDS):  # loading cannot be stopped, steps can
                    self._look_for_the_dead(done)
                raise
            if errors:
                raise self._explain(errors[0])
            return results[0]

    def _look_for_the_dead(self, done: threading.Event) -> None:
        error = self._ranks.death() if self._ranks is not None else None
        if error is not None and not done.wait(GRACE_SECONDS):
            self._broken, self._hangs = error, True
            raise error

    def _explain(self, error: BaseException) -> BaseException:
        """A rank's death is the reason of rank 0's error, which only says that a connection was closed."""
        if self._ranks is not None and (death := self._ranks.death(GRACE_SECONDS)) is not None:
            self._broken = death
            death.__cause__ = error
            return death
        if not isinstance(error, MiniSGLError):
            self._broken = BackendDied(f"the engine failed before ({type(error).__name__}: {error}); make another LLM")
        return error

    # ---- the machine's thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it holds requests and answers
        if self._driver is not None:
            self._driver.engine.group.leave()
        if self._link is not None:
            self._link.close()
        self._driver = None
        gc.collect()  # weights and cache are large, and another LLM may be made at once

    def _load(self) -> tuple[EngineFacts, Limits]:
        args = self._args
        size = args.tensor_parallel_size
        prepare_cpu(size)
        keep_kernels()

        from minisgl.distributed.group import Group
        from minisgl.plan.config import EngineConfig
        from minisgl.plan.model import ModelConfig
        from minisgl.scheduler.driver import Driver, build_engine
        from minisgl.scheduler.link import ToRanks

        if size == 1:
            engine = build_engine(args)
            driver = Driver(engine)
        else:
            # What is wrong is said here, before a process is started; and the hub is asked once.
            device = resolve_device(args.device)
            EngineConfig.resolve(args, ModelConfig.read(find_model(args.model_path)), device)
            self._ranks = ranks = Ranks(args)
            engine = build_engine(args, Group.join(0, size, device, ranks.ipc, own_nccl=not args.disable_pynccl))
            self._link = ToRanks(ranks.ipc, size)
            driver = Driver(engine, self._link.send)
        engine.warm_up()
        self._driver = driver
        return engine.facts(), Limits(engine.context_length, engine.config.model.vocab_size)

    def _answer(self, requests: Sequence[Generate], answers: Answers, listener: Listener) -> None:
        driver = self._driver
        assert driver is not None, "loading is the first job"
        scheduler = driver.scheduler
        for request in requests:
            scheduler.add(request)
        while scheduler.has_work or scheduler.results:
            driver.step()
            if scheduler.results:
                listener(answers.take(driver.take()))
            if self._stop.is_set():
                for request in requests:
                    scheduler.abort(request.uid)
