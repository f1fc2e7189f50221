"""The warnings of stuck trees and of calls without progress."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    ClosedError,
    DeadlockWarning,
    HierarchicalTaskPoolRunner,
    SourceIterObj,
    StallWarning,
    Task,
)
from headrace.pool import _stuck
from tests.pool_support import quiet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("virtual") is None:
        monkeypatch.setattr(_stuck, "INTERVAL", 0.05)


async def identity(item: int) -> int:
    return item


async def inner(capacity: CapacitySource) -> list[int]:
    """Run calls under a capacity, and wait for them."""
    async with SourceIterObj([1, 2]).map_pool(identity, capacity, name="inner") as results:
        return await results.collect()


async def run_for(seconds: float, tasks: Any, capacity: CapacitySource) -> list[str]:
    """Run tasks for a time, and return the warnings of stuck trees."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with HierarchicalTaskPoolRunner(tasks, capacity, name="outer").run_tasks():
            await asyncio.sleep(seconds)
    return [str(one.message) for one in caught if one.category is DeadlockWarning]


async def gathered(capacity: CapacitySource) -> None:
    await asyncio.gather(inner(capacity), inner(capacity))


async def waited(capacity: CapacitySource) -> None:
    task = asyncio.create_task(inner(capacity))
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
        await asyncio.wait([task])


async def grouped(capacity: CapacitySource) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(inner(capacity))


async def awaited(capacity: CapacitySource) -> None:
    await asyncio.create_task(inner(capacity))


NESTED: list[Callable[[CapacitySource], Awaitable[Any]]] = [
    inner,
    gathered,
    waited,
    grouped,
    awaited,
]


@pytest.mark.parametrize("nested", NESTED, ids=lambda one: one.__name__)
@pytest.mark.virtual
async def test_nested_runs_that_hold_all_slots(
    nested: Callable[[CapacitySource], Awaitable[Any]],
) -> None:
    capacity = CapacitySource(2, name="api", clock=asyncio.get_running_loop().time)
    hold_both = asyncio.Barrier(2)

    async def outer() -> None:
        # Otherwise, the second slot may go to the inner run of the first task.
        await hold_both.wait()
        await nested(capacity)

    found = await run_for(5, [outer] * 2, capacity)
    assert len(found) == 1
    assert found[0].startswith(
        "capacity 'api' is stuck: all of its slots are held by tasks that wait for it: "
    )
    assert "outer: task 1 waits for" in found[0]
    assert "outer: task 2 waits for" in found[0]


async def test_nested_runs_on_every_loop() -> None:
    capacity = CapacitySource(1, name="api")
    assert len(await run_for(0.5, [lambda: inner(capacity)], capacity)) == 1


@pytest.mark.virtual
async def test_a_nested_run_below_a_full_ancestor() -> None:
    root = CapacitySource(1, name="root", clock=asyncio.get_running_loop().time)
    left, right = (CapacitySource(4, root, name=name) for name in ("left", "right"))
    found = await run_for(5, [lambda: inner(right)], left)
    assert len(found) == 1
    assert "capacity 'root' is stuck" in found[0]


@pytest.mark.virtual
async def test_each_episode_warns_once() -> None:
    capacity = CapacitySource(1, name="api", clock=asyncio.get_running_loop().time)
    assert len(await run_for(100, [lambda: inner(capacity)], capacity)) == 1
    assert len(await run_for(100, [lambda: inner(capacity)], capacity)) == 1


@pytest.mark.virtual
async def test_no_warning_while_a_holder_can_continue() -> None:
    capacity = CapacitySource(2, name="api", clock=asyncio.get_running_loop().time)

    async def sleeps() -> None:
        await asyncio.sleep(1_000)

    assert not await run_for(100, [lambda: inner(capacity), sleeps, sleeps], capacity)


@pytest.mark.virtual
async def test_no_warning_for_an_unknown_holder() -> None:
    capacity = CapacitySource(2, name="api", clock=asyncio.get_running_loop().time)
    lease = await capacity.acquire(owner=None)
    assert not await run_for(100, [lambda: inner(capacity)] * 2, capacity)
    lease.release()


@pytest.mark.virtual
async def test_no_warning_for_slow_tasks_and_many_waiters() -> None:
    capacity = CapacitySource(2, name="api", clock=asyncio.get_running_loop().time)

    async def sleeps() -> None:
        await asyncio.sleep(60)

    assert not await run_for(1_000, [sleeps] * 20, capacity)


@pytest.mark.virtual
async def test_a_tree_is_watched_only_while_it_has_waiters() -> None:
    loop = asyncio.get_running_loop()
    timers: list[Any] = vars(loop)["_outside"].idle_timers
    capacity = CapacitySource(1, clock=loop.time)

    async def sleeps() -> None:
        await asyncio.sleep(1)

    runner = HierarchicalTaskPoolRunner([sleeps], capacity)
    await runner.run()
    assert not timers
    await HierarchicalTaskPoolRunner([sleeps] * 2, capacity).run()
    assert len(timers) == 1
    await asyncio.sleep(10)
    assert not timers
    await HierarchicalTaskPoolRunner([sleeps] * 2, capacity).run()
    assert len(timers) == 1
    await asyncio.sleep(10)


@pytest.mark.virtual
async def test_a_dropped_tree_is_freed_while_it_is_watched() -> None:
    loop = asyncio.get_running_loop()
    capacity = CapacitySource(1, clock=loop.time)
    lease = await capacity.acquire(owner=None)
    waiter = asyncio.create_task(_acquire(capacity))
    await quiet()
    waiter.cancel()
    await asyncio.wait([waiter])
    lease.release()
    del capacity, lease, waiter
    gc.collect()
    await asyncio.sleep(10)
    assert not vars(loop)["_outside"].idle_timers


async def _acquire(capacity: CapacitySource) -> None:
    await capacity.acquire()


# Calls without progress.


async def stalls(tasks: Any, seconds: float, **options: Any) -> list[str]:
    """Run tasks for a time, and return the warnings of calls without progress."""
    runner = HierarchicalTaskPoolRunner(
        tasks, CapacitySource(4, clock=asyncio.get_running_loop().time), name="run", **options
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with runner.run_tasks() as progress:

            async def read() -> None:
                with suppress(ClosedError):
                    async for _ in progress:
                        pass

            reader = asyncio.create_task(read())
            await asyncio.sleep(seconds)
        await asyncio.wait([reader])
    return [str(one.message) for one in caught if one.category is StallWarning]


async def hangs() -> None:
    await asyncio.Event().wait()


@pytest.mark.virtual
async def test_a_call_without_progress_is_named_once() -> None:
    assert not await stalls([Task(hangs, key="x")], 59, stall_after=60)
    found = await stalls([Task(hangs, key="x")], 76, stall_after=60)
    assert len(found) == 1
    assert found[0].startswith("run: task x has made no progress for 60 s, and still runs, at ")
    assert "in hangs" in found[0]
    assert len(await stalls([Task(hangs, key="x")], 1_000, stall_after=60)) == 1


@pytest.mark.virtual
async def test_a_yielded_value_is_progress() -> None:
    async def yields() -> AsyncGenerator[int]:
        for number in range(10):
            await asyncio.sleep(40)
            yield number
        await asyncio.sleep(1_000)

    assert not await stalls([yields], 400, stall_after=60)
    assert len(await stalls([yields], 600, stall_after=60)) == 1


@pytest.mark.virtual
async def test_no_warning_by_default_and_for_short_calls() -> None:
    async def short() -> None:
        await asyncio.sleep(30)

    assert not await stalls([hangs], 1_000)
    assert not await stalls([short] * 100, 1_000, stall_after=60)


@pytest.mark.loops("asyncio")
async def test_a_thread_without_progress_is_named() -> None:
    gate = threading.Event()
    timer = threading.Timer(0.5, gate.set)
    timer.start()
    found = await stalls([Task(gate.wait, key="x", thread=True)], 0.4, stall_after=0.1)
    timer.join()
    assert len(found) == 1
    assert found[0].startswith("run: task x has made no progress for 0.1 s, and still runs, at ")


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "60"])
def test_a_wrong_stall_after(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="stall_after"):
        HierarchicalTaskPoolRunner([], CapacitySource(1), stall_after=wrong)


@pytest.mark.virtual
async def test_a_silent_virtual_loop_still_fails_at_once() -> None:
    from headrace.testing import DeadlockError, VirtualClock

    def program() -> None:
        async def main() -> None:
            capacity = CapacitySource(1)
            async with capacity.acquire():
                await HierarchicalTaskPoolRunner([hangs], capacity, stall_after=60).run()

        with asyncio.Runner(loop_factory=VirtualClock()) as runner, pytest.raises(DeadlockError):
            runner.run(main())

    start = time.monotonic()
    await asyncio.to_thread(program)
    assert time.monotonic() - start < 30
