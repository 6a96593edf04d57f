"""The table of open requests: every path ends once and leaves nothing behind."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minisgl.errors import BackendDied, Overloaded, RequestError
from minisgl.messages import (
    Abort,
    DecodeParams,
    Finish,
    Generate,
    SamplingParams,
    Text,
    Texts,
    Tokenize,
    Tokenized,
)
from minisgl.metrics import Metrics
from minisgl.server.requests import RequestTable, Ticket

IDS = np.array([1, 2, 3], "<i4")


class Tree:
    """A table and what it sent into its pipes."""

    def __init__(self, limit: int = 4) -> None:
        self.tokenize: list[Tokenize] = []
        self.scheduler: list[Generate | Abort] = []
        self.metrics = Metrics("tiny")
        self.table = RequestTable(limit, self.metrics, self.tokenize.append, self.scheduler.append)

    def text(self, uid: int, text: str = "", num_tokens: int = 0, **fields: Any) -> None:
        self.table.receive(Texts((Text(uid, text, num_tokens, 0, **fields),)))

    def generate(self, ticket: Ticket) -> None:
        self.table.generate(ticket, IDS, SamplingParams(8), DecodeParams())

    def ended(self, reason: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "minisgl_requests_total", {"model_name": "tiny", "finish_reason": reason}
        )
        assert value is not None
        return value


def run(scene: Callable[[Tree], Awaitable[None]], limit: int = 4) -> Tree:
    tree = Tree(limit)

    async def play() -> None:
        await scene(tree)

    asyncio.run(play())
    return tree


async def tokenizing(tree: Tree, ticket: Ticket) -> "asyncio.Task[Any]":
    task = asyncio.ensure_future(tree.table.tokenize(ticket, Tokenize(0, text="x")))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("error", [OverflowError, RecursionError])
def test_words_that_cannot_be_sent_are_refused_and_leave_nothing(error: type[Exception]) -> None:
    async def scene(tree: Tree) -> None:
        def refuse(message: Tokenize) -> None:
            raise error

        tree.table = RequestTable(4, tree.metrics, refuse, tree.scheduler.append)
        with pytest.raises(RequestError, match="64 bits"), tree.table.open() as ticket:
            await tree.table.tokenize(ticket, Tokenize(0, text="x"))
        assert len(tree.table) == 0

    run(scene)


def test_a_request_goes_through_and_is_forgotten() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open() as ticket:
            task = await tokenizing(tree, ticket)
            tree.table.receive(Tokenized(ticket.uid, IDS.tobytes()))
            assert (await task).tolist() == [1, 2, 3]
            tree.generate(ticket)
            tree.text(ticket.uid, "a", 1)
            tree.text(ticket.uid, "b", 2, finish=Finish.LENGTH)
            assert len(tree.table) == 0
            merged = await ticket.next_text()  # a slow reader finds what came, merged
            assert (merged.text, merged.num_tokens, merged.finish) == ("ab", 2, Finish.LENGTH)

    tree = run(scene)
    assert [type(message) for message in tree.scheduler] == [Generate]
    assert tree.ended("length") == 1


def test_a_client_that_leaves_while_generating_aborts_and_keeps_its_place_until_the_end() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open() as ticket:
            tree.generate(ticket)
        assert tree.scheduler[-1] == Abort(ticket.uid)
        assert len(tree.table) == 1
        tree.text(ticket.uid, finish=Finish.ABORT)
        assert len(tree.table) == 0

    assert run(scene).ended("abort") == 1


def test_a_client_that_leaves_while_tokenizing_never_reaches_the_scheduler() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open() as ticket:
            (await tokenizing(tree, ticket)).cancel()
        assert len(tree.table) == 1  # its words are still in the pipe
        tree.table.receive(Tokenized(ticket.uid, IDS.tobytes()))
        assert len(tree.table) == 0

    assert run(scene).scheduler == []


def test_a_prompt_that_cannot_be_tokenized_is_the_clients_error() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open() as ticket:
            task = await tokenizing(tree, ticket)
            tree.table.receive(Tokenized(ticket.uid, error="no template"))
            with pytest.raises(RequestError, match="no template"):
                await task
        assert len(tree.table) == 0

    run(scene)


def test_a_failed_request_is_a_500_for_itself() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open() as ticket:
            tree.generate(ticket)
            tree.text(ticket.uid, finish=Finish.ERROR, error="NaN in the logits")
            with pytest.raises(RequestError, match="NaN") as caught:
                await ticket.next_text()
        assert caught.value.status == 500

    assert run(scene).ended("error") == 1


def test_a_stop_string_tells_the_scheduler() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open() as ticket:
            tree.generate(ticket)
            tree.text(ticket.uid, "a", 1, finish=Finish.STOP, stopped_by="b")
        assert tree.scheduler[1:] == [Abort(ticket.uid)]
        assert len(tree.table) == 0

    run(scene)


def test_a_full_table_refuses_with_a_time_to_come_back() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open(), pytest.raises(Overloaded) as caught, tree.table.open():
            pass
        assert caught.value.retry_after >= 1
        with tree.table.open():
            pass

    run(scene, limit=1)


def test_a_dead_backend_ends_every_request() -> None:
    async def scene(tree: Tree) -> None:
        with tree.table.open() as waiting, tree.table.open() as generating:
            task = await tokenizing(tree, waiting)
            tree.generate(generating)
            tree.table.fail_all("gone")
            assert len(tree.table) == 0
            with pytest.raises(BackendDied):
                await task
            with pytest.raises(BackendDied):
                await generating.next_text()
        assert Abort(generating.uid) not in tree.scheduler

    run(scene)


def test_messages_about_unknown_requests_are_ignored() -> None:
    async def scene(tree: Tree) -> None:
        tree.table.receive(Tokenized(99, b""))
        tree.text(99, "x", 1, finish=Finish.STOP)

    assert run(scene).ended("stop") == 0


class Clients(RuleBasedStateMachine):
    """Any order of openings, answers and departures: never more than the limit, never a leak, one end each."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree(limit=3)
        self.loop = asyncio.new_event_loop()
        self.open: dict[int, tuple[Any, Ticket]] = {}
        self.in_words: set[int] = set()
        self.in_scheduler: dict[int, int] = {}

    def teardown(self) -> None:
        for uid in list(self.open):
            self.leave_one(uid)
        while self.in_words:
            self.words_answer()
        while self.in_scheduler:
            self.scheduler_ends()
        assert len(self.tree.table) == 0
        self.loop.close()

    @rule()
    def arrive(self) -> None:
        opening = self.tree.table.open()
        try:
            ticket = opening.__enter__()
        except Overloaded:
            assert len(self.tree.table) == 3
            return
        self.open[ticket.uid] = opening, ticket
        coroutine = self.tree.table.tokenize(ticket, Tokenize(0, text="x"))
        task = self.loop.create_task(coroutine)
        self.loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.in_words.add(ticket.uid)

    @precondition(lambda self: self.in_words)
    @rule()
    def words_answer(self) -> None:
        uid = min(self.in_words)
        self.in_words.remove(uid)
        self.tree.table.receive(Tokenized(uid, IDS.tobytes()))
        if uid in self.open:
            self.tree.generate(self.open[uid][1])
            self.in_scheduler[uid] = 0

    @precondition(lambda self: self.in_scheduler)
    @rule()
    def a_token_comes(self) -> None:
        uid = max(self.in_scheduler)
        self.in_scheduler[uid] += 1
        self.tree.text(uid, "x", self.in_scheduler[uid])

    @precondition(lambda self: self.in_scheduler)
    @rule()
    def scheduler_ends(self) -> None:
        uid = min(self.in_scheduler)
        num_tokens = self.in_scheduler.pop(uid)
        self.tree.text(uid, "", num_tokens, finish=Finish.LENGTH if uid in self.open else Finish.ABORT)

    @precondition(lambda self: self.open)
    @rule()
    def leave(self) -> None:
        self.leave_one(min(self.open))

    def leave_one(self, uid: int) -> None:
        opening, _ = self.open.pop(uid)
        opening.__exit__(None, None, None)
        expected = uid in self.in_scheduler
        assert (Abort(uid) in self.tree.scheduler) == expected

    @invariant()
    def the_table_holds_what_is_in_the_pipes(self) -> None:
        assert len(self.tree.table) == len(self.in_words | set(self.in_scheduler))


Clients.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestClients = Clients.TestCase
