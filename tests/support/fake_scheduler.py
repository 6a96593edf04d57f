"""A scheduler process without a model: it answers each prompt with the prompt itself, over and over.

What stands between `SAY` and `STOP` in a prompt is said once instead, and then the answer ends.

Speaks the real sockets and messages. A request's seed may ask for a fault of its own: 666 fails it, 670 never gets a
first token. `support.faults` names what the whole process can be asked for.
"""

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from minisgl.errors import StartError
from minisgl.info import CacheFacts, EngineFacts
from minisgl.messages import TO_SCHEDULER, Abort, Finish, Generate, Logprobs, Opened, PromptLogprobs, Stats, Step
from minisgl.process import Supervisor, run_child
from minisgl.sockets import Inbox, Outbox
from minisgl.termination import Reason
from support import faults
from support.words import CONTEXT, EOS

FAILS, STAYS = 666, 670  # seeds
SAY, STOP = 2, 3  # token ids, and bytes: ASCII's start and end of a text


class Running:
    """One request and how far it is."""

    def __init__(self, request: Generate) -> None:
        self.request = request
        self.ids = np.frombuffer(request.ids, "<i4")
        self.ends = False  # after its ids, by itself
        if SAY in self.ids and STOP in self.ids:
            first, last = list(self.ids).index(SAY) + 1, list(self.ids).index(STOP)
            self.ids, self.ends = np.append(self.ids[first:last], EOS), True
        self.num_tokens = 0


def main(supervisor: Supervisor) -> None:
    asked = faults.asked()
    faults.hold_phases()
    supervisor.phase("weights", 0, 100)
    for done in range(round(2 * float(asked.get("creep", "0")))):
        supervisor.phase("weights", 1 + done, 100)
        time.sleep(0.5)
    if reason := asked.get("fail"):
        raise StartError(Reason(reason), "the fake was told to fail")
    if "die" in asked:
        os._exit(9)
    supervisor.phase("warm-up")
    args, ipc = supervisor.config.launch_args, Path(supervisor.config.ipc)
    if supervisor.config.index > 0:
        supervisor.ready()
        while True:
            supervisor.beat()
            time.sleep(0.2)
    inbox: Inbox[TO_SCHEDULER] = Inbox(ipc, "scheduler", TO_SCHEDULER, supervisor.count_dropped)
    outbox = Outbox(ipc, "detokenizer")
    supervisor.ready(facts(args.max_running_requests))
    requests: dict[int, Running] = {}
    steps = 0
    while True:
        supervisor.beat()
        aborted = []
        first = None if requests else inbox.get(0.2)
        for message in ([first] if first else []) + inbox.drain():
            if isinstance(message, Generate):
                requests[message.uid] = Running(message)
            elif isinstance(message, Abort) and requests.pop(message.uid, None):
                aborted.append(message.uid)
        *step, logprobs = one_step(requests, aborted, args.max_running_requests)
        steps += 1
        running = min(len(requests), args.max_running_requests)
        stats = Stats(running, len(requests) - running, running * 16, 0, CONTEXT, steps)
        outbox.put(Step(*step, stats, logprobs))
        if requests:
            time.sleep(faults.step_seconds() or 0.001)


def one_step(requests: dict[int, Running], aborted: list[int], limit: int) -> tuple[bytes, bytes, bytes, Any, Any, Any]:
    rows = [(uid, -1, Finish.ABORT) for uid in aborted]
    opened, errors, logprobs = [], {}, {}
    for uid, running in list(requests.items())[:limit]:
        sampling = running.request.sampling
        if sampling.seed == STAYS:
            continue
        if sampling.seed == FAILS:
            rows.append((uid, -1, Finish.ERROR))
            errors[uid] = "the fake was told to fail this request"
            del requests[uid]
            continue
        if running.num_tokens == 0:
            opened.append(Opened(uid, 3, running.request.decode, of_prompt(running.ids, sampling.prompt_logprobs)))
        if sampling.max_tokens == 0:
            rows.append((uid, -1, Finish.LENGTH))
            del requests[uid]
            continue
        token = int(running.ids[running.num_tokens % len(running.ids)])
        running.num_tokens += 1
        finish = Finish.LENGTH if running.num_tokens == sampling.max_tokens else Finish.RUNNING
        may_end = running.num_tokens > sampling.min_tokens
        finish = Finish.STOP if may_end and token in sampling.stop_token_ids else finish
        finish = Finish.STOP if running.ends and running.num_tokens == len(running.ids) else finish
        rows.append((uid, token, finish))
        if sampling.logprobs is not None:
            logprobs[uid] = (report(token, sampling.logprobs),)
        if finish:
            del requests[uid]
    uids, tokens, finishes = zip(*rows, strict=True) if rows else ((), (), ())
    arrays = np.array(uids, "<i8"), np.array(tokens, "<i4"), np.array(finishes, "u1")
    return (*(array.tobytes() for array in arrays), tuple(opened), errors, logprobs)


def report(token: int, num_top: int) -> Logprobs:
    """The chosen token is twice as likely as the next one, and so on; its neighbours by number follow it."""
    likeliest = [((token + i) % 256, -math.log(2) * (i + 1)) for i in range(num_top)]
    return Logprobs(token, -math.log(2), tuple(likeliest))


def of_prompt(ids: Any, num_top: int | None) -> PromptLogprobs | None:
    """Each token of the prompt as `report` would tell it."""
    if num_top is None:
        return None
    reports = [report(token, num_top) for token in ids[1:].tolist()]
    tops = np.array([r.top for r in reports], "f8").reshape(len(reports), num_top, 2)
    logprobs, ranks = np.array([r.logprob for r in reports], "<f4"), np.ones(len(reports), "<i4")
    columns = logprobs, ranks, tops[:, :, 0].astype("<i4"), tops[:, :, 1].astype("<f4")
    return PromptLogprobs(ids.tobytes(), *(column.tobytes() for column in columns))


def facts(max_running_requests: int) -> EngineFacts:
    cache = CacheFacts(pages=CONTEXT // 16, page_size=16, tokens=CONTEXT, bytes=0, limited_by="numTokens")
    return EngineFacts(
        architecture="Echo",
        device="cpu",
        dtype="float32",
        attention_backend="torch",
        tensor_parallel_size=1,
        context_length=CONTEXT,
        max_running_requests=max_running_requests,
        cache_type="naive",
        weight_bytes=0,
        kv_cache=cache,
    )


if __name__ == "__main__":
    run_child(main)
