"""Pipes between processes: order, deadlines, and what a broken message does (nothing)."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from minisgl.messages import TO_SCHEDULER, Abort, Generate, SamplingParams, Step, Tokenize
from minisgl.messages import DecodeParams as Decode
from minisgl.sockets import Inbox, Outbox, address


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox[TO_SCHEDULER]]:
    inbox: Inbox[TO_SCHEDULER] = Inbox(tmp_path, "scheduler", TO_SCHEDULER)
    yield inbox
    inbox.close()


def test_messages_arrive_in_order(inbox: Inbox[TO_SCHEDULER], tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "scheduler")
    sent = [Generate(1, b"\1\0\0\0", SamplingParams(4), Decode()), Abort(1), Abort(2)]
    for message in sent:
        outbox.put(message)
    assert [inbox.get(5) for _ in sent] == sent
    outbox.close()


def test_a_sender_may_come_before_its_receiver(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "late")
    outbox.put(Abort(7))
    inbox: Inbox[Abort] = Inbox(tmp_path, "late", Abort)
    assert inbox.get(5) == Abort(7)
    inbox.close()
    outbox.close()


def test_an_empty_inbox_gives_none_in_time(inbox: Inbox[TO_SCHEDULER]) -> None:
    started = time.monotonic()
    assert inbox.get(0.02) is None
    assert inbox.drain() == []
    assert time.monotonic() - started < 1


WRONG = [b"", b"\xc1", b"\x93\xa5Abort", msgspec.msgpack.encode(["Abort", "x"]), msgspec.msgpack.encode(["Quit", 1])]


def test_a_broken_message_is_dropped_and_counted(
    inbox: Inbox[TO_SCHEDULER], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = zmq.Context.instance().socket(zmq.PUSH)
    raw.connect(address(tmp_path, "scheduler"))
    with caplog.at_level(logging.WARNING):
        for data in [*WRONG, msgspec.msgpack.encode(Step()), msgspec.msgpack.encode(Abort(3))]:
            raw.send(data)
        received = [message for _ in range(len(WRONG) + 2) if (message := inbox.get(5))]
    assert received == [Abort(3)]
    assert inbox.dropped == len(WRONG) + 1
    assert "message dropped inbox=scheduler" in caplog.text
    raw.close(linger=0)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64) | st.recursive(st.none() | st.text(), st.lists).map(msgspec.msgpack.encode))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    inbox: Inbox[Tokenize] = Inbox.__new__(Inbox)
    inbox.name, inbox.dropped, inbox._decoder = "fuzz", 0, msgspec.msgpack.Decoder(Tokenize)
    assert inbox._decode(data) is None
    assert inbox.dropped == 1


def test_an_event_loop_hears_every_message(inbox: Inbox[TO_SCHEDULER], tmp_path: Path) -> None:
    async def hear() -> list[TO_SCHEDULER]:
        heard: list[TO_SCHEDULER] = []
        complete = asyncio.Event()

        def receive(message: TO_SCHEDULER) -> None:
            heard.append(message)
            if len(heard) == 1000:
                complete.set()

        inbox.listen(asyncio.get_running_loop(), receive)
        outbox = Outbox(tmp_path, "scheduler", unbounded=True)
        for burst in range(20):
            for uid in range(burst * 50, burst * 50 + 50):
                outbox.put(Abort(uid))
            await asyncio.sleep(0.001)
        await asyncio.wait_for(complete.wait(), 5)
        outbox.close()
        return heard

    assert asyncio.run(hear()) == [Abort(uid) for uid in range(1000)]
