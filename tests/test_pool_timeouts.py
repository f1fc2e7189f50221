"""Timeouts of tasks and of their wait for capacity."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Task
from tests.pool_support import envelopes, pool, summarize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.mark.virtual
async def test_timeout_covers_the_call_only() -> None:
    async def work() -> str:
        await asyncio.sleep(3)
        return "done"

    found = await envelopes(pool([work] * 4, 1, timeout=4))
    assert summarize(found) == ["done"] * 4


@pytest.mark.virtual
async def test_timeout_is_reported_once_work_has_stopped() -> None:
    capacity = CapacitySource(1)

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            assert capacity.held == 1

    [found] = await envelopes(HierarchicalTaskPoolRunner([work], capacity, timeout=5))
    assert isinstance(found.error, TimeoutError)
    assert "timeout of 5 s" in str(found.error)
    assert isinstance(found.error.__cause__, asyncio.CancelledError)
    assert found.started is not None
    assert found.finished is not None
    assert found.finished - found.started == pytest.approx(6)


@pytest.mark.virtual
async def test_task_can_have_its_own_timeout() -> None:
    async def work() -> str:
        await asyncio.sleep(3)
        return "done"

    tasks = [work, Task(work, timeout=math.inf), Task(work, timeout=1), Task(work, timeout=4)]
    runner = pool(tasks, 1, timeout=2)
    assert summarize(await envelopes(runner)) == ["TimeoutError", "done", "TimeoutError", "done"]


@pytest.mark.virtual
async def test_result_after_a_timeout_is_kept() -> None:
    async def value() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            pass
        return "as far as it came"

    async def error() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError as cancelled:
            raise ValueError from cancelled

    assert summarize(await envelopes(pool([value, error], timeout=1))) == [
        "as far as it came",
        "ValueError",
    ]


@pytest.mark.virtual
async def test_timeout_stops_a_task_that_yields() -> None:
    async def work() -> AsyncIterator[int]:
        for number in range(100):
            try:
                await asyncio.sleep(2)
            except asyncio.CancelledError:
                # It ignores the cancellation, and is cancelled again when it yields.
                pass
            yield number

    assert summarize(await envelopes(pool([work], timeout=5))) == [0, 1, "TimeoutError"]


@pytest.mark.virtual
async def test_queue_timeout_covers_the_queue_only() -> None:
    called: list[int] = []

    async def work(index: int) -> int:
        called.append(index)
        await asyncio.sleep(3)
        return index

    tasks = [Task(work, index, queue_timeout=2) for index in range(3)]
    found = await envelopes(pool(tasks, 1))
    # The second waits for the first and times out. The third is queued then, and waits for one second.
    assert summarize(found) == ["TimeoutError", 0, 2]
    assert called == [0, 2]
    assert "queue_timeout of 2 s" in str(found[0].error)
    assert (found[0].attempt, found[0].started) == (0, None)


async def test_thread_timeout_is_reported_once_thread_ended() -> None:
    capacity = CapacitySource(1)
    loop = asyncio.get_running_loop()
    overdue = asyncio.Event()

    def work() -> int:
        # Continues only after the loop has run its timers, which is after the timeout.
        asyncio.run_coroutine_threadsafe(overdue.wait(), loop).result()
        return 1

    loop.call_later(0.03, overdue.set)
    runner = HierarchicalTaskPoolRunner([Task(work, thread=True, timeout=0.001)], capacity)
    assert summarize(await envelopes(runner)) == ["TimeoutError"]
    assert capacity.held == 0
