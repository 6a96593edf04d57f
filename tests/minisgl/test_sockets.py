"""Pipes between processes: order, deadlines, and what a broken message does (nothing)."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from minisgl.errors import StartError
from minisgl.messages import TO_SCHEDULER, Abort, Generate, SamplingParams, Step, Tokenize
from minisgl.messages import DecodeParams as Decode
from minisgl.sockets import Inbox, Outbox, address
from minisgl.termination import Reason


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
    inbox._on_drop = lambda: None
    assert inbox._decode(data) is None
    assert inbox.dropped == 1


def test_an_address_that_somebody_holds_is_not_taken_over(inbox: Inbox[TO_SCHEDULER], tmp_path: Path) -> None:
    with pytest.raises(StartError) as raised:
        Inbox(tmp_path, "scheduler", TO_SCHEDULER)
    assert raised.value.reason is Reason.ADDRESS_IN_USE
    sentence = str(raised.value)
    assert str(tmp_path / "scheduler") in sentence
    assert "another server" in sentence
    assert "\n" not in sentence


def test_a_folder_in_the_addresss_place_is_in_use_too(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    with pytest.raises(StartError, match="is in use") as raised:
        Inbox(tmp_path, "scheduler", TO_SCHEDULER)
    assert raised.value.reason is Reason.ADDRESS_IN_USE


def test_what_a_dead_process_left_is_no_hindrance(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "scheduler"))
    Inbox(tmp_path, "scheduler", TO_SCHEDULER).close()


def test_an_address_that_cannot_be_bound_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be bound: No such file"):
        Inbox(tmp_path / "nowhere", "scheduler", TO_SCHEDULER)


def test_a_message_that_its_receiver_cannot_take_costs_no_other_message(tmp_path: Path) -> None:
    async def hear() -> list[int]:
        heard: list[int] = []
        last = asyncio.Event()
        inbox: Inbox[Abort] = Inbox(tmp_path, "front", Abort, lambda: heard.append(-1))
        outbox = Outbox(tmp_path, "front")

        def receive(message: Abort) -> None:
            heard.append(10 // message.uid)
            if message.uid == 2:
                last.set()

        for uid in (1, 0, 2):
            outbox.put(Abort(uid))
        inbox.listen(asyncio.get_running_loop(), receive)
        await asyncio.wait_for(last.wait(), 5)
        inbox.close()
        outbox.close()
        return heard

    assert asyncio.run(hear()) == [10, -1, 5]


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
