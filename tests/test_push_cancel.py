"""Guarantee 2, for pushes: wherever a push is cancelled, its item is in exactly one place.

Each push is cancelled at its first suspension, at its second, and so on, and then repaired as a producer would:
the sinks that the error names in `accepted_by` have the item, all others do not.
"""

from __future__ import annotations

import asyncio
import operator
import random
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    PushBufferObj,
    PushCallbackObj,
    PushDedupeObj,
    PushDistributeObj,
    PushFilterObj,
    PushFlatMapObj,
    PushFlattenObj,
    PushForkObj,
    PushLabeledDistributeObj,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    PushReduceObj,
    PushRoundRobinObj,
    PushSerialObj,
    PushSignalObj,
    PushTakeObj,
    PushWindowObj,
    PushWindowTimeoutObj,
    SinkCallbackObj,
    SinkCapacityObj,
    SinkCollectObj,
    SinkObj,
    SourceIterObj,
    WaitObject,
)
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable


@types.coroutine
def cancel_at(awaitable: Awaitable[Any], at: int) -> Generator[Any, Any, Any]:
    """Await, and cancel the current task at suspension number `at`."""
    inner: Any = awaitable.__await__()
    suspensions = 0
    step: Callable[[Any], Any] = inner.send
    sent: Any = None
    while True:
        try:
            yielded = step(sent)
        except StopIteration as stop:
            return stop.value
        suspensions += 1
        if suspensions == at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            step, sent = inner.send, (yield yielded)
        except BaseException as error:
            step, sent = inner.throw, error


def accepted_by(cancelled: asyncio.CancelledError) -> tuple[Any, ...]:
    """Return the sinks that accepted the item despite the cancellation."""
    names: tuple[Any, ...] = getattr(cancelled, "accepted_by", ())
    return names


Inject = Callable[["Awaitable[Any]", int], "Awaitable[asyncio.CancelledError | None]"]


async def at_suspension(awaitable: Awaitable[Any], at: int) -> asyncio.CancelledError | None:
    """Return the cancellation, or None if the awaitable ended before that suspension."""
    return await asyncio.create_task(run(cancel_at(awaitable, at)))


async def after_turns(awaitable: Awaitable[Any], at: int) -> asyncio.CancelledError | None:
    """Cancel from outside, after `at` event-loop iterations."""
    task = asyncio.create_task(run(awaitable))
    if at > 0:
        await yield_to_loop(at)
        task.cancel()
    return await task


async def run(awaitable: Awaitable[Any]) -> asyncio.CancelledError | None:
    try:
        await awaitable
    except asyncio.CancelledError as error:
        return error
    return None


injections = pytest.mark.parametrize("inject", [at_suspension, after_turns])


class Slow(SinkObj[Any]):
    """Needs two event-loop iterations to accept an item."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await yield_to_loop(2)
        self.items.append(item)


async def delayed(n: Any) -> Any:
    await yield_to_loop(1)
    return n


async def is_even(n: int) -> bool:
    await yield_to_loop(1)
    return n % 2 == 0


async def is_last_even(items: list[int]) -> bool:
    return await is_even(items[-1])


async def add(a: int, b: int) -> int:
    await yield_to_loop(1)
    return a + b


def stream(n: int) -> Any:
    """Return an async iterable that survives a cancellation."""
    return SourceIterObj([n, n, n]).map(delayed)


@dataclass
class Pipeline:
    """A pipeline, its sinks, and for each sink the push objects between it and a fork."""

    top: Any
    ends: list[Any]
    above: list[list[Any]] = field(default_factory=list)
    items: list[Any] = field(default_factory=lambda: list(range(6)))

    def lacking(self, names: tuple[Any, ...]) -> list[Any]:
        """Return the sinks that are covered neither by their own name nor by that of an object above them."""
        covers = self.above or [[] for _ in self.ends]
        return [
            end
            for end, above in zip(self.ends, covers, strict=True)
            if not any(name is one for name in names for one in (end, *above))
        ]


def single(make: Callable[[Any], Any], items: list[Any] | None = None) -> Callable[[], Pipeline]:
    def build() -> Pipeline:
        end = Slow()
        top = make(end)
        return Pipeline(top, [end], [[top]], *(() if items is None else (items,)))

    return build


SINGLE: dict[str, Callable[[], Pipeline]] = {
    "map": single(lambda end: PushMapObj(end, delayed)),
    "three maps": single(
        lambda end: PushMapObj(PushMapObj(PushMapObj(end, delayed), str), delayed)
    ),
    "filter": single(lambda end: PushFilterObj(end, is_even)),
    "dedupe": single(lambda end: PushDedupeObj(end, key=delayed), [1, 2, 1, 3, 2, 4]),
    "dedupe below map": single(
        lambda end: PushMapObj(PushDedupeObj(PushMapObj(end, delayed)), delayed), [1, 2, 1, 3]
    ),
    "accumulate": single(lambda end: PushReduceObj(end, add, 10)),
    "sync accumulate": single(lambda end: PushReduceObj(end, operator.add)),
    "batch": single(lambda end: PushWindowObj(end, 2)),
    "partial window": single(lambda end: PushWindowObj(end, 4)),
    "window, then map": single(lambda end: PushWindowObj(PushMapObj(end, delayed), 2)),
    "two windows": single(lambda end: PushWindowObj(PushMapObj(PushWindowObj(end, 2), delayed), 2)),
    "buffer": single(lambda end: PushBufferObj[Any](PushMapObj(end, delayed), is_last_even)),
    "signal": single(lambda end: PushSignalObj(end, WaitObject())),
    "signal before": single(lambda end: PushSignalObj(end, WaitObject(), when="before")),
    "take": single(lambda end: PushTakeObj(PushMapObj(end, delayed), 3)),
    "flatten": single(
        lambda end: PushFlattenObj(PushMapObj(end, delayed)), [[1, 2, 3], [], [4], [5, 6]]
    ),
    "flat_map": single(lambda end: PushFlatMapObj(end, lambda n: iter([n] * 3))),
    "async flat_map": single(lambda end: PushFlatMapObj(PushMapObj(end, delayed), stream)),
    "flatten, then window": single(
        lambda end: PushFlattenObj(PushWindowObj(end, 2)), [[1, 2, 3], [4, 5], [6]]
    ),
    "flat_map in flat_map": single(
        lambda end: PushFlatMapObj[Any, Any](PushFlatMapObj(end, stream), lambda n: [n, n])
    ),
    "flatten, then take": single(
        lambda end: PushFlattenObj(PushTakeObj(end, 4)), [[1, 2, 3], [4, 5, 6], [7]]
    ),
    "capacity": single(lambda end: SinkCapacityObj(PushMapObj(end, delayed), CapacitySource(1))),
    "serial": single(lambda end: PushSerialObj(PushMapObj(end, delayed))),
    "window, then serial": single(lambda end: PushWindowObj(PushSerialObj(end), 2)),
    "callback before": single(lambda end: PushCallbackObj(end, before=delayed)),
    "callback after": single(lambda end: PushCallbackObj(end, after=delayed)),
    "window by time": single(lambda end: PushWindowTimeoutObj(end, 2, 1000)),
    "window by time below window": single(
        lambda end: PushWindowObj(PushWindowTimeoutObj(end, 2, 1000), 2)
    ),
    "distribute": single(lambda end: PushDistributeObj([end], lambda _: 0)),
    "async distribute": single(
        lambda end: PushDistributeObj([PushMapObj(end, delayed)], lambda _: delayed(0))
    ),
    "labeled": single(lambda end: PushLabeledDistributeObj({"a": end}, lambda _: delayed("a"))),
    "ring of one": single(lambda end: PushRoundRobinObj([end])),
    "window, then ring": single(lambda end: PushWindowObj(PushRoundRobinObj([end]), 2)),
    "fork of one": single(lambda end: PushForkObj([PushMapObj(end, delayed)])),
}


async def push_uncancelled(build: Callable[[], Pipeline]) -> list[list[Any]]:
    pipeline = build()
    for item in pipeline.items:
        await pipeline.top.next(item)
    await pipeline.top.return_()
    return [end.items for end in pipeline.ends]


async def push_all(pipeline: Pipeline, victim: int, at: int, inject: Inject) -> bool:
    """Push all items, cancelling the push of item `victim`; return whether it was cancelled."""
    was_cancelled = False
    for number, item in enumerate(pipeline.items):
        if number != victim:
            await pipeline.top.next(item)
            continue
        cancelled = await inject(pipeline.top.next(item), at)
        if cancelled is None:
            continue
        was_cancelled = True
        if not accepted_by(cancelled):
            await pipeline.top.next(item)
        elif len(pipeline.ends) > 1:
            for end in pipeline.lacking(accepted_by(cancelled)):
                await end.next(item)
    return was_cancelled


@injections
@pytest.mark.parametrize("name", SINGLE)
async def test_law_2_cancelled_push_can_be_repaired(name: str, inject: Inject) -> None:
    expected = await push_uncancelled(SINGLE[name])
    for victim in range(len(SINGLE[name]().items)):
        at, was_cancelled = 0, True
        while was_cancelled:
            at += 1
            pipeline = SINGLE[name]()
            was_cancelled = await push_all(pipeline, victim, at, inject)
            await pipeline.top.return_()
            assert [end.items for end in pipeline.ends] == expected, (victim, at)
        assert at < 100


@injections
@pytest.mark.parametrize("name", SINGLE)
async def test_law_2_cancelled_return_can_be_repeated(name: str, inject: Inject) -> None:
    expected = await push_uncancelled(SINGLE[name])
    victim = len(SINGLE[name]().items) - 1
    for push_at in range(1, 6):
        at, was_cancelled = 0, True
        while was_cancelled:
            at += 1
            pipeline = SINGLE[name]()
            # If possible, an item of the last push is still held by a stage.
            for number, item in enumerate(pipeline.items):
                cancelled = await inject(
                    pipeline.top.next(item), push_at if number == victim else -1
                )
                if cancelled is not None and not accepted_by(cancelled):
                    await pipeline.top.next(item)
            was_cancelled = await inject(pipeline.top.return_(), at) is not None
            await pipeline.top.return_()
            assert [end.items for end in pipeline.ends] == expected, (push_at, at)
            assert all(end.closed for end in pipeline.ends)
        assert at < 100


def fork_of(*makes: Callable[[Any], Any], concurrent: bool = True) -> Callable[[], Pipeline]:
    def build() -> Pipeline:
        ends = [Slow() for _ in makes]
        branches = [make(end) for make, end in zip(makes, ends, strict=True)]
        above = [[branch, getattr(branch, "sink", None)] for branch in branches]
        return Pipeline(PushForkObj(branches, concurrent=concurrent), list(ends), above)

    return build


def identity(end: Any) -> Any:
    return end


def nested() -> Pipeline:
    ends = [Slow() for _ in range(4)]
    maps = [PushMapObj(end, delayed) for end in ends[2:]]
    inner = PushForkObj([ends[1], maps[0]])
    outer = PushForkObj([ends[0], inner, maps[1]])
    return Pipeline(outer, list(ends), [[], [inner], [inner, maps[0]], [maps[1]]])


def with_ready_sinks() -> Pipeline:
    end = Slow()
    collected: SinkCollectObj[Any] = SinkCollectObj()
    called: list[Any] = []
    callback: SinkCallbackObj[Any] = SinkCallbackObj(called.append)
    fork = PushForkObj([collected, end, callback])
    vars(collected)["items"] = collected.buffer
    vars(callback)["items"] = called
    return Pipeline(fork, [collected, end, callback])


FORKS: dict[str, Callable[[], Pipeline]] = {
    "two": fork_of(identity, identity),
    "one after the other": fork_of(identity, identity, identity, concurrent=False),
    "maps": fork_of(
        lambda end: PushMapObj(end, delayed), identity, lambda end: PushMapObj(end, str)
    ),
    "maps, one after the other": fork_of(
        lambda end: PushMapObj(end, delayed), lambda end: PushMapObj(end, delayed), concurrent=False
    ),
    "nested": nested,
    "beside ready ones": with_ready_sinks,
}


@injections
@pytest.mark.parametrize("name", FORKS)
async def test_law_2_cancelled_fork_names_accepting_branches(name: str, inject: Inject) -> None:
    expected = await push_uncancelled(FORKS[name])
    partial = 0
    for victim in (0, 3):
        at, was_cancelled = 0, True
        while was_cancelled:
            at += 1
            pipeline = FORKS[name]()
            for item in pipeline.items[:victim]:
                await pipeline.top.next(item)
            cancelled = await inject(pipeline.top.next(pipeline.items[victim]), at)
            was_cancelled = cancelled is not None
            if cancelled is not None:
                lacking = pipeline.lacking(accepted_by(cancelled))
                item = pipeline.items[victim]
                for end, complete in zip(pipeline.ends, expected, strict=True):
                    has_it = end.items[victim:] == complete[victim : victim + 1]
                    assert has_it == (end not in lacking), (at, end, accepted_by(cancelled))
                partial += 0 < len(lacking) < len(pipeline.ends)
                if lacking:
                    notes = getattr(cancelled, "__notes__", [])
                    assert bool(notes) == (len(lacking) < len(pipeline.ends))
            await pipeline.top.return_()
        assert at < 100
    if inject is after_turns and name != "two":
        assert partial, "no push was delivered to only some of the branches"


ENDS: dict[str, Callable[[Any], PushObj[Any]]] = {
    "map": lambda end: PushMapObj(end, str),
    "filter, then map": lambda end: PushFilterObj(PushMapObj(end, str), lambda _: True),
    "fork": lambda end: PushForkObj([end]),
    "distribute": lambda end: PushDistributeObj([end], lambda _: 0),
}


@pytest.mark.parametrize("name", ENDS)
async def test_law_2_push_cancelled_at_yield_names_no_sink(
    name: str,
) -> None:
    end: SinkCollectObj[Any] = SinkCollectObj()
    pipeline = ENDS[name](end)
    for number in range(10_000):
        push: Any = pipeline.next(number)
        try:
            assert push.send(None) is None
        except StopIteration:
            continue
        break
    else:
        pytest.fail("the push never yielded to the event loop")
    with pytest.raises(asyncio.CancelledError) as caught:
        push.throw(asyncio.CancelledError())
    assert accepted_by(caught.value) == ()
    assert not hasattr(caught.value, "__notes__")
    assert len(end.buffer) == number
    await pipeline.next(number)
    assert len(end.buffer) == number + 1


def batch_then(*makes: Callable[[Any], Any], concurrent: bool = True) -> Callable[[], Pipeline]:
    def build() -> Pipeline:
        pipeline = fork_of(*makes, concurrent=concurrent)()
        return Pipeline(PushWindowObj(pipeline.top, 2), pipeline.ends)

    return build


def batches_in_branches() -> Pipeline:
    ends = [Slow(), Slow(), Slow()]
    batches = [PushWindowObj(ends[0], 2), PushWindowObj(PushMapObj(ends[1], delayed), 3)]
    return Pipeline(PushForkObj([*batches, ends[2]]), list(ends), [[batches[0]], [batches[1]], []])


HELD: dict[str, Callable[[], Pipeline]] = {
    "window, then fork": batch_then(identity, identity),
    "window, then maps": batch_then(
        lambda end: PushMapObj(end, delayed), identity, lambda end: PushMapObj(end, str)
    ),
    "window, then one after the other": batch_then(identity, identity, concurrent=False),
    "windows in branches": batches_in_branches,
}


@injections
@pytest.mark.parametrize("name", HELD)
async def test_law_2_batch_reaches_each_branch_once(name: str, inject: Inject) -> None:
    expected = await push_uncancelled(HELD[name])
    for victim in range(6):
        at, was_cancelled = 0, True
        while was_cancelled:
            at += 1
            pipeline = HELD[name]()
            if name == "windows in branches":
                was_cancelled = await push_to_missing_branches(pipeline, victim, at, inject)
            else:
                was_cancelled = False
                for number, item in enumerate(pipeline.items):
                    cancelled = await inject(
                        pipeline.top.next(item), at if number == victim else -1
                    )
                    if cancelled is not None:
                        was_cancelled = True
                        # Named is the batch, or all branches if the cancellation came too late. Nothing is named if the push
                        # # was cancelled while it yielded to the event loop on a slow machine: the producer pushes the item again.
                        if not (names := accepted_by(cancelled)):
                            await pipeline.top.next(item)
                        else:
                            assert pipeline.top in names or len(names) == len(pipeline.ends)
            await pipeline.top.return_()
            assert [end.items for end in pipeline.ends] == expected, (victim, at)
        assert at < 100


async def push_to_missing_branches(
    pipeline: Pipeline, victim: int, at: int, inject: Inject
) -> bool:
    was_cancelled = False
    for number, item in enumerate(pipeline.items):
        cancelled = await inject(pipeline.top.next(item), at if number == victim else -1)
        if cancelled is None:
            continue
        was_cancelled = True
        for branch in pipeline.top.sinks:
            if branch not in accepted_by(cancelled):
                await branch.next(item)
    return was_cancelled


@pytest.mark.parametrize("seed", range(20))
async def test_law_2_many_producers_cancelled_at_random(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    end = Slow()
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(2)
    pipeline: PushObj[Any] = PushMapObj(
        PushWindowObj(PushMapObj(PushForkObj([end, buffer.sink]), delayed), 3), delayed
    )
    pulled: list[Any] = []

    async def consume() -> None:
        async for item in buffer.source:
            pulled.append(item)
            await yield_to_loop(rng.randrange(4))

    consumer = asyncio.create_task(consume())

    async def produce(first: int) -> None:
        for item in range(first, first + 20):
            while True:
                inject = rng.choice([at_suspension, after_turns])
                cancelled = await inject(pipeline.next(item), rng.randrange(1, 12))
                if cancelled is None or accepted_by(cancelled):
                    break

    await asyncio.gather(*(produce(first) for first in range(0, 100, 20)))
    await pipeline.return_()
    await consumer
    everything = list(range(100))
    assert sorted(n for items in end.items for n in items) == everything
    assert sorted(n for items in pulled for n in items) == everything
