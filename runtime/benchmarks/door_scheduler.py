"""A scheduler process without an engine, for `door.py`: every open request gets a token at every tick of a clock.

Says back the words of the first prompt. What a step costs here does not grow with its rows, so that the rest of the
server is what is measured. `DOOR_STEPS_PER_SECOND` is the clock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from minisgl.info import CacheFacts, EngineFacts
from minisgl.messages import TO_SCHEDULER, Abort, Finish, Generate, Opened, Stats, Step
from minisgl.process import Supervisor, run_child
from minisgl.sockets import Inbox, Outbox

CONTEXT = 1 << 20


class Rows:
    """All open requests, in arrays."""

    def __init__(self) -> None:
        self.uids, self.done, self.limits = (np.zeros(0, np.int64) for _ in range(3))
        self.words = np.zeros(1, np.int32)
        self.opened: list[Opened] = []

    def take(self, message: Generate | Abort) -> None:
        if isinstance(message, Abort):  # it ends at the next tick
            self.limits[self.uids == message.uid] = 0
            return
        if len(self.words) == 1:
            self.words = np.frombuffer(message.ids, "<i4").copy()
        self.uids = np.append(self.uids, message.uid)
        self.done = np.append(self.done, 0)
        self.limits = np.append(self.limits, message.sampling.max_tokens)
        self.opened.append(Opened(message.uid, 0, message.decode))

    def step(self, number: int) -> Step:
        self.done += 1
        ended = self.done >= self.limits
        tokens = self.words[self.done % len(self.words)]
        finish = np.where(ended, int(Finish.LENGTH), int(Finish.RUNNING)).astype("u1")
        stats = Stats(len(self.uids), 0, len(self.uids), 0, CONTEXT, number)
        uids, opened, self.opened = self.uids.astype("<i8").tobytes(), tuple(self.opened), []
        if ended.any():
            self.uids, self.done, self.limits = self.uids[~ended], self.done[~ended], self.limits[~ended]
        return Step(uids, tokens.astype("<i4").tobytes(), finish.tobytes(), opened, {}, stats)


def main(supervisor: Supervisor) -> None:
    seconds = 1 / float(os.environ["DOOR_STEPS_PER_SECOND"])
    args, ipc = supervisor.config.launch_args, Path(supervisor.config.ipc)
    inbox: Inbox[Generate | Abort] = Inbox(ipc, "scheduler", TO_SCHEDULER, supervisor.count_dropped)
    outbox = Outbox(ipc, "detokenizer")
    cache = CacheFacts(pages=CONTEXT // 16, page_size=16, tokens=CONTEXT, bytes=0, limited_by="numTokens")
    supervisor.ready(
        EngineFacts(
            architecture="Clock",
            device="cpu",
            dtype="float32",
            attention_backend="torch",
            tensor_parallel_size=1,
            context_length=CONTEXT,
            max_running_requests=args.max_running_requests,
            cache_type="naive",
            weight_bytes=0,
            kv_cache=cache,
        )
    )
    rows, number, due = Rows(), 0, time.monotonic()
    while True:
        supervisor.beat()
        first = None if len(rows.uids) else inbox.get(0.2)
        for message in ([first] if first else []) + inbox.drain():
            rows.take(message)
        if len(rows.uids):
            number += 1
            outbox.put(rows.step(number))
        now = time.monotonic()
        due = max(due + seconds, now - 10 * seconds)  # a late tick is made up for, a long pause is not
        if due > now:
            time.sleep(due - now)


if __name__ == "__main__":
    run_child(main)
