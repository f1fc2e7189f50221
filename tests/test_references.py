"""A million items leave nothing behind: no object, no block of memory, no reference too many or too few."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    IteratorResult,
    PushChain,
    PushPullBufferObj,
    SinkCallbackObj,
    SourceIterObj,
    WaitObject,
)
from headrace.queue import Queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MANY = 1_000_000


class Item:
    """One object that goes through everything, so that a reference to it that is lost or left shows."""


ITEM = Item()


def same(item: object) -> object:
    return item


async def later(item: object) -> object:
    return item


def is_item(item: object) -> bool:
    return item is ITEM


async def give(count: int) -> AsyncIterator[object]:
    for _ in range(count):
        yield ITEM


async def through_a_line(count: int) -> int:
    line = SourceIterObj(ITEM for _ in range(count)).map(same).filter(is_item)
    return await line.count()


async def through_windows(count: int) -> int:
    return await SourceIterObj(ITEM for _ in range(count)).batch(7).flatten().map(later).count()


async def through_a_merge(count: int) -> int:
    parts = [give(count // 4) for _ in range(4)]
    return await SourceIterObj(parts[0]).merge(*parts[1:]).count()


async def through_a_buffer(count: int) -> int:
    buffer: PushPullBufferObj[object] = PushPullBufferObj(100)
    for _ in range(count // 100):
        for _ in range(100):
            await buffer.sink.next(ITEM)
        for _ in range(50):
            assert await anext(buffer.source) is ITEM
            assert (await buffer.source.next()).value is ITEM
    return count


async def through_a_full_buffer(count: int) -> int:
    buffer: PushPullBufferObj[object] = PushPullBufferObj(1)

    async def produce() -> None:
        for _ in range(count):
            await buffer.sink.next(ITEM)
        await buffer.sink.return_()

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        return await buffer.source.count()


async def through_a_queue(count: int) -> int:
    queue: Queue[object] = Queue()
    for _ in range(count):
        queue.put_nowait(ITEM)
    for _ in range(count):
        await queue.get()
    return count


async def through_a_fan(count: int) -> int:
    seen = 0

    def see(_: object) -> None:
        nonlocal seen
        seen += 1

    fan = PushChain.start(object).map(same).fork(SinkCallbackObj(see), SinkCallbackObj(see))
    for _ in range(count // 2):
        await fan.next(ITEM)
    return seen


async def through_a_signal(count: int) -> int:
    signal: WaitObject[object] = WaitObject()
    for _ in range(count):
        signal.resolve(ITEM)
        await signal.wait()
    return count


async def through_a_capacity(count: int) -> int:
    root = CapacitySource(3)
    leaf = CapacitySource(2, root)
    for _ in range(count // 2):
        async with leaf.acquire():
            pass
        with leaf.acquire_sync():
            pass
    return count


async def through_a_pool(count: int) -> int:
    def tasks() -> Any:
        for _ in range(count):
            yield task

    async def task() -> object:
        return ITEM

    runner = HierarchicalTaskPoolRunner(tasks(), CapacitySource(9))
    async with runner.run_tasks() as run:
        return await run.count()


async def cancelled_in_a_buffer(count: int) -> int:
    buffer: PushPullBufferObj[object] = PushPullBufferObj()
    for _ in range(count):
        pull = anext(buffer.source)
        pull.send(None)
        pull.close()
    return count


INTERRUPTIONS: list[tuple[Callable[[int], Awaitable[int]], int]] = [
    (through_a_line, MANY),
    (through_windows, MANY),
    (through_a_merge, MANY),
    (through_a_buffer, MANY),
    (through_a_full_buffer, MANY // 4),
    (through_a_queue, MANY),
    (through_a_fan, MANY),
    (through_a_signal, MANY),
    (through_a_capacity, MANY),
    (through_a_pool, MANY // 10),
    (cancelled_in_a_buffer, MANY // 4),
]


def references() -> list[int]:
    """How often those objects are referred to that all of this passes around."""
    common = (ITEM, same, later, IteratorResult, StopIteration, StopAsyncIteration, Item, ())
    return [sys.getrefcount(thing) for thing in common]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("way", "count"), INTERRUPTIONS, ids=[way.__name__ for way, _ in INTERRUPTIONS]
)
def test_a_million_items_leave_nothing(way: Callable[[int], Any], count: int) -> None:
    with asyncio.Runner() as runner:
        # Once for what is made once, and is kept.
        runner.run(way(1_000))
        gc.collect()
        before = references(), len(gc.get_objects()), sys.getallocatedblocks()
        assert runner.run(way(count)) == count
        gc.collect()
        after = references(), len(gc.get_objects()), sys.getallocatedblocks()
    assert gc.garbage == []
    assert after[0][0] == before[0][0], "references to the item"
    for old, new in zip(before[0], after[0], strict=True):
        assert abs(new - old) < 20
    assert after[1] - before[1] < 100
    assert after[2] - before[2] < 500
