"""Ordered runs whose tasks yield values. The consumer waits for the first task, which may need the capacity of later ones."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Rate, Retry, Task
from headrace.testing import Outcome, cancel_everywhere
from tests.pool_executors import RemoteExecutor
from tests.pool_support import Flaky, pool, quiet
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

VALUES = 10
NAMES = range(4)


class Throttled(Exception):
    status_code = 429

    def __init__(self, **headers: str) -> None:
        super().__init__(headers)
        self.headers = headers


async def values(name: int) -> AsyncIterator[tuple[int, int]]:
    for value in range(VALUES):
        yield name, value
        await asyncio.sleep(0)


class FailsOnce:
    """A task whose first call fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    async def __call__(self) -> AsyncIterator[tuple[int, int]]:
        self.calls += 1
        if self.calls == 1:
            raise self.error
        async for value in values(0):
            yield value


def fails_once(error: Exception, **options: Any) -> list[Task[Any]]:
    first = Task(FailsOnce(error), retry=Retry(2, backoff=0.02), **options)
    return [first, *(Task(values, name) for name in NAMES[1:])]


def by_priority() -> list[Task[Any]]:
    return [Task(values, name, priority=name) for name in NAMES]


LOSES_ITS_CAPACITY: dict[str, tuple[Callable[[], list[Task[Any]]], int, dict[str, Any]]] = {
    "retry": (lambda: fails_once(Flaky()), 1, {}),
    "retry at a cost": (lambda: fails_once(Flaky(), cost=2), 2, {}),
    "throttled": (lambda: fails_once(Throttled()), 1, {}),
    "priority": (by_priority, 1, {"lookahead": 4}),
    "slot": (lambda: fails_once(Flaky()), 4, {"executor": 1}),
}


@pytest.mark.parametrize("name", LOSES_ITS_CAPACITY)
@pytest.mark.parametrize("most", [2, 5])
async def test_law_7_first_task_gets_the_capacity_of_later_ones(name: str, most: int) -> None:
    tasks, limit, options = LOSES_ITS_CAPACITY[name]
    if slots := options.get("executor"):
        options = {**options, "executor": RemoteExecutor(slots)}
    runner = pool(tasks(), limit, ordered=True, max_buffered=most, **options)
    async with asyncio.timeout(20), runner.run_tasks() as progress:
        found = [envelope.value async for envelope in progress if envelope.value is not None]
    assert found == [(name, value) for name in NAMES for value in range(VALUES)]


@pytest.mark.virtual
async def test_law_6_bound_holds_until_the_first_task_lacks_capacity() -> None:
    unread: list[int] = []
    called: list[int] = []

    async def noted(name: int) -> AsyncIterator[tuple[int, int]]:
        called.append(name)
        async for value in values(name):
            unread.append(runner.snapshot().unread)
            yield value

    first, *_ = fails_once(Flaky())
    runner = pool(
        [first, *(Task(noted, name) for name in NAMES[1:])], 2, ordered=True, max_buffered=3
    )
    async with runner.run_tasks() as progress:
        reading = asyncio.ensure_future(anext(progress))
        await quiet()
        # The first task backs off. It does not need the capacity yet.
        assert runner.snapshot().backing_off == 1
        assert runner.snapshot().unread == 3
        await reading
        # It got the capacity of one of the two tasks that had been called. Until then no other was called.
        assert called == [1, 2]
        assert 3 < max(unread) <= 2 * (VALUES + 1)


HELD_UP: dict[str, Exception] = {
    "cooldown": Throttled(**{"retry-after": "5"}),
    "rate": Flaky(),
    "pause": Flaky(),
}


@pytest.mark.virtual
@pytest.mark.parametrize("name", HELD_UP)
async def test_law_6_bound_holds_while_a_release_would_not_help_the_first_task(name: str) -> None:
    loop = asyncio.get_running_loop()
    failure = loop.create_future()

    async def first() -> AsyncIterator[tuple[int, int]]:
        if not failure.done():
            await failure
        async for value in values(0):
            yield value

    # For the first task, no slot is free, except where it is to wait only for the rate.
    slots = 3 if name == "rate" else 2
    capacity = CapacitySource({"slots": slots, "calls": Rate(1, per=5)}, clock=loop.time)
    cost = {"slots": 1, "calls": 1}
    tasks = [Task(first, cost=cost, retry=Retry(2, backoff=0.02))]
    tasks += [Task(values, name) for name in NAMES[1:3]]
    runner = HierarchicalTaskPoolRunner(tasks, capacity, ordered=True, max_buffered=3)
    async with runner.run_tasks() as progress:
        reading = asyncio.ensure_future(anext(progress))
        await quiet()
        assert runner.snapshot().unread == 3
        failure.set_exception(HELD_UP[name])
        if name == "pause":
            capacity.pause()
        for _ in range(100):
            await asyncio.sleep(0.01)
            assert runner.snapshot().unread <= 3
        assert not reading.done()
        capacity.resume()
        envelopes = [await reading, *[envelope async for envelope in progress]]
    found = [envelope.value for envelope in envelopes if envelope.value is not None]
    assert found == [(name, value) for name in NAMES[:3] for value in range(VALUES)]


@pytest.mark.virtual
async def test_law_4_first_task_is_called_though_others_always_take_the_rate() -> None:
    loop = asyncio.get_running_loop()
    root = CapacitySource({"calls": Rate(1, per=0.05)}, clock=loop.time)
    capacity = CapacitySource(2, parent=root)
    cost = {"slots": 1, "calls": 1}
    tasks = [Task(FailsOnce(Flaky()), cost=cost, retry=Retry(2, backoff=0.02))]
    tasks += [Task(values, name) for name in NAMES[1:]]
    runner = HierarchicalTaskPoolRunner(tasks, capacity, ordered=True, max_buffered=3)

    async def take_the_rate() -> None:
        while True:
            async with root.acquire({"calls": 1}):
                pass

    others = [asyncio.ensure_future(take_the_rate()) for _ in range(3)]
    async with asyncio.timeout(10), runner.run_tasks() as progress:
        found = [envelope.value async for envelope in progress if envelope.value is not None]
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert found == [(name, value) for name in NAMES for value in range(VALUES)]


async def test_law_16_endless_task_beyond_the_bound_yields_to_the_loop() -> None:
    release = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        for number in count():
            if release.is_set():
                return
            yield number

    first, *_ = fails_once(Flaky())
    runner = pool([first, endless], 1, ordered=True, max_buffered=2)
    async with runner.run_tasks() as progress:
        reading = asyncio.ensure_future(anext(progress))
        await until(lambda: runner.snapshot().unread > 20)
        before = runner.snapshot().unread
        await asyncio.sleep(0)
        assert runner.snapshot().unread <= before + 2
        release.set()
        assert (await reading).value == (0, 0)


async def test_law_8_run_beyond_its_bound_cancelled_anywhere_releases_its_capacity() -> None:
    async def case() -> AsyncGenerator[Coroutine[Any, Any, list[Any]], Outcome]:
        capacity = CapacitySource(1)
        runner = HierarchicalTaskPoolRunner(
            by_priority(), capacity, ordered=True, max_buffered=2, lookahead=4
        )
        outcome = yield runner.run()
        assert outcome.cancelled or outcome.error is None
        assert (capacity.held, capacity.waiting) == (0, 0)

    assert await cancel_everywhere(case) > 0
