"""A million items leave nothing behind: no object, no memory block, no reference too many or too few."""

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
    """A single object that passes through everything, so that a lost or leaked reference to it is detected."""


ITEM = Item()


def identity(item: object) -> object:
    return item


async def async_identity(item: object) -> object:
    return item


def is_item(item: object) -> bool:
    return item is ITEM


async def generate(count: int) -> AsyncIterator[object]:
    for _ in range(count):
        yield ITEM


async def through_a_pipeline(count: int) -> int:
    pipeline = SourceIterObj(ITEM for _ in range(count)).map(identity).filter(is_item)
    return await pipeline.count()


async def through_batches(count: int) -> int:
    return (
        await SourceIterObj(ITEM for _ in range(count))
        .batch(7)
        .flatten()
        .map(async_identity)
        .count()
    )


async def through_a_merge(count: int) -> int:
    parts = [generate(count // 4) for _ in range(4)]
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


async def through_a_fork(count: int) -> int:
    received = 0

    def receive(_: object) -> None:
        nonlocal received
        received += 1

    forked = (
        PushChain.start(object)
        .map(identity)
        .fork(SinkCallbackObj(receive), SinkCallbackObj(receive))
    )
    for _ in range(count // 2):
        await forked.next(ITEM)
    return received


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


PROGRAMS: list[tuple[Callable[[int], Awaitable[int]], int]] = [
    (through_a_pipeline, MANY),
    (through_batches, MANY),
    (through_a_merge, MANY),
    (through_a_buffer, MANY),
    (through_a_full_buffer, MANY // 4),
    (through_a_queue, MANY),
    (through_a_fork, MANY),
    (through_a_signal, MANY),
    (through_a_capacity, MANY),
    (through_a_pool, MANY // 10),
    (cancelled_in_a_buffer, MANY // 4),
]


def references() -> list[int]:
    """Return the reference counts of the objects that all of these programs share."""
    common = (
        ITEM,
        identity,
        async_identity,
        IteratorResult,
        StopIteration,
        StopAsyncIteration,
        Item,
        (),
    )
    return [sys.getrefcount(shared) for shared in common]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("program", "count"), PROGRAMS, ids=[program.__name__ for program, _ in PROGRAMS]
)
def test_a_million_items_leave_nothing(program: Callable[[int], Any], count: int) -> None:
    with asyncio.Runner() as runner:
        # A first run creates whatever is created once and kept.
        runner.run(program(1_000))
        gc.collect()
        before = references(), len(gc.get_objects()), sys.getallocatedblocks()
        assert runner.run(program(count)) == count
        gc.collect()
        after = references(), len(gc.get_objects()), sys.getallocatedblocks()
    assert gc.garbage == []
    assert after[0][0] == before[0][0], "references to the item"
    for old, new in zip(before[0], after[0], strict=True):
        assert abs(new - old) < 20
    assert after[1] - before[1] < 100
    assert after[2] - before[2] < 500
