"""Guarantee 2, for pushes: wherever a push is cancelled, its item is in exactly one place.

Each push is cancelled at its first suspension, at its second, and so on, and then repaired as a producer would:
the sinks that the error names in `accepted_by` have the item, all others do not.
"""

from __future__ import annotations

import asyncio
import operator
import random
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
    SinkCapacityObj,
    SinkCollectObj,
    SourceIterObj,
    WaitObject,
)
from tests.push_injections import (
    Inject,
    Pipeline,
    Slow,
    accepted_by,
    after_turns,
    at_suspension,
    delayed,
    injections,
    push_uncancelled,
)
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable


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
