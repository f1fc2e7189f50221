"""A simple task waits for its capacity inside the feeder that pulled it, and can be removed from there at any moment."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Task, current_lease
from tests.pool_support import ERROR, FINAL, ISOLATIONS, NO_FAST_PATH, quiet, summarize
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headrace import Lease
    from headrace.pool.progress import TaskRun


on_fast_path = pytest.mark.skipif(
    NO_FAST_PATH, reason="in asyncio's debug mode it waits in its own asyncio task"
)


@pytest.fixture(params=ISOLATIONS, ids=["alone", "shared"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen: dict[str, Any] = request.param
    return chosen


class Scene:
    """A run of three tasks, the first of which waits for a capacity that is held elsewhere."""

    def __init__(self, options: dict[str, Any], cost: Any = 1) -> None:
        self.capacity = CapacitySource(2)
        self.called: list[str] = []
        self.tasks = [Task(self.work, key, key=key, cost=cost) for key in "abc"]
        self.runner = HierarchicalTaskPoolRunner(self.tasks, self.capacity, **options)
        self.lease: Lease

    async def work(self, key: str) -> str:
        self.called.append(key)
        return key

    @asynccontextmanager
    async def started(self) -> AsyncGenerator[TaskRun]:
        lease = self.capacity.acquire_nowait(2)
        assert lease is not None
        self.lease = lease
        async with self.runner.run_tasks() as progress:
            await until(lambda: self.capacity.waiting == 1)
            yield progress
        assert self.capacity.held == (0 if lease.is_released else 2)
        assert self.capacity.waiting == 0
        lease.release()


@on_fast_path
async def test_waiting_task_needs_no_asyncio_task(options: dict[str, Any]) -> None:
    scene = Scene(options)
    async with scene.started() as progress:
        await quiet()
        assert scene.runner.snapshot().queued == 1
        assert scene.runner.snapshot().running == 0
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not [name for name in names if "capacity" in name]
        scene.lease.release()
        found = [envelope async for envelope in progress]
    assert summarize(found) == ["a", "b", "c"]
    assert [envelope.task_id for envelope in found] == [1, 2, 3]
    assert scene.runner.snapshot().queued == 0


@pytest.mark.virtual
async def test_queued_time_is_that_of_the_pull(options: dict[str, Any]) -> None:
    scene = Scene(options)
    started = asyncio.get_running_loop().time()
    async with scene.started() as progress:
        await asyncio.sleep(5)
        scene.lease.release()
        first, *_ = [envelope async for envelope in progress]
    assert first.queued - started < 1
    assert first.started is not None
    assert first.started - started == pytest.approx(5, abs=0.1)


@on_fast_path
@pytest.mark.parametrize("granted", [False, True])
async def test_waiting_task_can_be_cancelled(options: dict[str, Any], granted: bool) -> None:
    scene = Scene(options)
    async with scene.started() as progress:
        if granted:
            # The capacity is granted here, but the feeder has not resumed yet.
            scene.lease.release()
            assert scene.capacity.held == 1
        assert scene.runner.cancel(1)
        assert not scene.runner.cancel(1)
        assert scene.capacity.held == (0 if granted else 2)
        assert scene.capacity.waiting == 0
        first = await anext(progress)
        scene.lease.release()
        rest = [envelope async for envelope in progress]
    assert (first.type, first.key, first.task_id) == (ERROR, "a", 1)
    assert (first.attempt, first.started) == (0, None)
    assert isinstance(first.error, asyncio.CancelledError)
    assert summarize(rest) == ["b", "c"]
    assert scene.called == ["b", "c"]


@on_fast_path
@pytest.mark.parametrize("granted", [False, True])
async def test_pause_withdraws_the_request(options: dict[str, Any], granted: bool) -> None:
    scene = Scene(options)
    async with scene.started() as progress:
        if granted:
            scene.lease.release()
        scene.runner.pause()
        assert scene.capacity.waiting == 0
        assert scene.capacity.held == (0 if granted else 2)
        assert scene.runner.snapshot().queued == 1
        scene.lease.release()
        await quiet()
        assert scene.called == []
        scene.runner.resume()
        found = [envelope async for envelope in progress]
    assert [(envelope.task_id, envelope.value) for envelope in found] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]


@pytest.mark.parametrize("granted", [False, True])
async def test_drain_returns_the_waiting_task(options: dict[str, Any], granted: bool) -> None:
    scene = Scene(options)
    async with scene.started() as progress:
        if granted:
            scene.lease.release()
        returned = await scene.runner.drain()
        assert returned == scene.tasks[:1]
        assert summarize([envelope async for envelope in progress]) == []
    assert scene.called == []
    scene.lease.release()
    assert await scene.runner.run() == ["b", "c"]


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("ending", ["leave", "abort"])
async def test_waiting_task_stays_for_the_next_run(
    options: dict[str, Any], granted: bool, ending: str
) -> None:
    scene = Scene(options)
    async with scene.started():
        if granted:
            scene.lease.release()
        if ending == "abort":
            await scene.runner.abort()
            assert scene.runner.snapshot().queued == 1
    assert scene.called == []
    scene.lease.release()
    assert await scene.runner.run() == ["a", "b", "c"]


async def test_waiting_task_fails_when_capacity_is_closed(options: dict[str, Any]) -> None:
    scene = Scene(options)
    async with scene.started() as progress:
        scene.capacity.close()
        found = [envelope async for envelope in progress]
    assert summarize(found) == ["ClosedError"] * 3
    assert [envelope.attempt for envelope in found] == [0] * 3


async def test_lease_is_available_after_waiting(options: dict[str, Any]) -> None:
    async def work() -> float:
        await asyncio.sleep(0)
        return current_lease().cost["slots"]

    capacity = CapacitySource({"slots": 2})
    tasks = [Task(work, cost={"slots": 2}) for _ in range(3)]
    runner = HierarchicalTaskPoolRunner(tasks, capacity, **options)
    assert await runner.run() == [2, 2, 2]
    assert capacity.held == {"slots": 0}


async def test_two_runners_alternate_at_one_slot(options: dict[str, Any]) -> None:
    """Two runners at one leaf are granted its slot alternately."""
    capacity = CapacitySource(1)
    order: list[str] = []

    async def work(name: str) -> None:
        order.append(name)
        await asyncio.sleep(0)

    async def run(name: str) -> None:
        tasks = [Task(work, name) for _ in range(20)]
        await HierarchicalTaskPoolRunner(tasks, capacity, **options).run()

    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(run(name))
    # From the moment when both wait.
    assert order[2:-2] in (["a", "b"] * 18, ["b", "a"] * 18)


async def test_many_tasks_wait_one_after_another(options: dict[str, Any]) -> None:
    capacity = CapacitySource(3)
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert running <= capacity.held <= 3
        for _ in range(number % 4):
            await asyncio.sleep(0)
        running -= 1
        return number

    tasks = [Task(work, number, key=number) for number in range(300)]
    runner = HierarchicalTaskPoolRunner(tasks, capacity, **options)
    async with runner.run_tasks() as progress:
        found = [envelope async for envelope in progress]
    assert sorted(envelope.value for envelope in found) == list(range(300))
    assert all(envelope.type is FINAL for envelope in found)
    assert sorted(envelope.task_id for envelope in found) == list(range(1, 301))
    # Off the fast path, one task at a time waits, and is called some loop iterations later.
    assert most == 3 or NO_FAST_PATH


async def test_drain_returns_the_waiting_task_at_once(options: dict[str, Any]) -> None:
    gate = asyncio.Event()
    capacity = CapacitySource(1)
    runner = HierarchicalTaskPoolRunner([gate.wait] * 3, capacity, **options)
    async with runner.run_tasks() as progress:
        await until(lambda: capacity.waiting == 1)
        assert runner.snapshot().queued == 1
        draining = asyncio.ensure_future(runner.drain())
        await quiet()
        assert (runner.snapshot().queued, runner.snapshot().running) == (0, 1)
        assert capacity.waiting == 0
        gate.set()
        assert await draining == [gate.wait]
        assert summarize([envelope async for envelope in progress]) == [True]


async def test_grant_at_queue_timeout_is_consistent() -> None:
    called: list[str] = []
    notified: list[object] = []

    async def first() -> None:
        await asyncio.sleep(0)

    async def second() -> str:
        called.append("second")
        return "value"

    def block_loop(_: object) -> None:
        # The loop is late: at its next iteration the capacity is free and the timeout is over.
        time.sleep(0.06)

    tasks = [
        Task(first, on_complete=block_loop),
        Task(second, queue_timeout=0.05, on_complete=notified.append, on_error=notified.append),
    ]
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(1))
    async with runner.run_tasks() as progress:
        found = [envelope async for envelope in progress]
    assert len(found) == 2
    if found[1].type is FINAL:
        assert (called, notified, found[1].attempt) == (["second"], ["value"], 1)
    else:
        assert (called, notified, found[1].attempt) == ([], [found[1].error], 0)
    assert runner.snapshot().running == runner.capacity.held == 0
