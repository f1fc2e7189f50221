"""`cancel()` of single tasks of a run."""

from __future__ import annotations

import asyncio

import pytest

from headrace import Retry, Task
from tests.pool_support import envelopes, fail, hang, pool, quiet, summarize
from tests.support import until, wrong

pytestmark = pytest.mark.usefixtures("task_path")


async def test_cancel_stops_running_and_queued_tasks() -> None:
    gate = asyncio.Event()
    called: list[int] = []

    async def work(index: int) -> int:
        called.append(index)
        await gate.wait()
        return index

    runner = pool([Task(work, index) for index in (1, 2, 3, 4)], 2, lookahead=2)
    async with runner.run_tasks() as progress:
        await until(lambda: runner.capacity.waiting == 2)
        assert runner.cancel(1)
        assert runner.cancel(4)
        assert not runner.cancel(17)
        cancelled = [await anext(progress) for _ in range(2)]
        assert {envelope.task_id: envelope.attempt for envelope in cancelled} == {4: 0, 1: 1}
        assert not runner.cancel(1)
        assert not runner.cancel(4)
        gate.set()
        assert sorted(summarize([envelope async for envelope in progress])) == [2, 3]
    assert not runner.cancel(2)
    assert called == [1, 2, 3]


@pytest.mark.virtual
async def test_cancel_ends_a_back_off() -> None:
    runner = pool([fail], retry=Retry(backoff=60))
    async with runner.run_tasks() as progress:
        await until(lambda: runner.snapshot().backing_off)
        assert runner.cancel(1)
        [found] = [envelope async for envelope in progress]
    assert (type(found.error), found.attempt) == (asyncio.CancelledError, 1)


async def test_cancelled_task_is_not_retried() -> None:
    async def work() -> None:
        try:
            await hang()
        finally:
            raise ValueError

    runner = pool([work], retry=Retry(backoff=0))
    async with runner.run_tasks() as progress:
        await until(lambda: runner.capacity.held)
        await quiet()
        assert runner.cancel(1)
        [found] = [envelope async for envelope in progress]
    assert (type(found.error), found.attempt) == (ValueError, 1)


async def test_task_can_cancel_itself_by_id() -> None:
    async def work() -> None:
        assert runner.cancel(1)
        await asyncio.sleep(0)

    runner = pool([work])
    assert summarize(await envelopes(runner)) == ["CancelledError"]


async def test_cancel_needs_the_id_of_a_task() -> None:
    runner = pool([hang, Task(hang, timeout=3600)])

    def check() -> None:
        for other in (-1, 0, 3, 2**63, 2**64, -(2**64), 10**400):
            assert runner.cancel(other) is False
        for odd in (None, "1", 1.0, True):
            with pytest.raises(TypeError, match="task_id must be an integer, not"):
                runner.cancel(wrong(odd))

    check()
    async with runner.run_tasks():
        await until(lambda: runner.snapshot().running == 2)
        check()
        assert runner.snapshot().running == 2
    check()
