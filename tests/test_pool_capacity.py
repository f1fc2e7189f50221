from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Retry,
    SourceIterObj,
    SourceObj,
    Task,
)
from tests.pool_support import FINAL, one, pool, quiet
from tests.support import until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.usefixtures("task_path")


async def test_only_one_task_is_pulled_ahead() -> None:
    pulled = called = 0
    gate = asyncio.Event()

    class Counting(SourceObj[Any]):
        async def pull_impl(self) -> AsyncIterator[Any]:
            nonlocal pulled
            for _ in range(10):
                assert pulled <= called
                pulled += 1
                yield work

    async def work() -> None:
        nonlocal called
        called += 1
        await gate.wait()

    capacity = CapacitySource(3)
    async with HierarchicalTaskPoolRunner(Counting(), capacity).run_tasks() as progress:
        await until(lambda: called == 3)
        await quiet()
        assert (pulled, called, capacity.held) == (4, 3, 3)
        gate.set()
        assert len([envelope async for envelope in progress]) == 10


class Granting(CapacitySource):
    """A capacity that counts what it granted."""

    granted = 0

    def acquire_nowait(self, *args: Any, **options: Any) -> Any:
        lease = super().acquire_nowait(*args, **options)
        self.granted += lease is not None
        return lease

    def acquire(self, *args: Any, **options: Any) -> Any:
        async def counted() -> Any:
            lease = await inner
            self.granted += 1
            return lease

        inner = super().acquire(*args, **options)
        return counted()


@pytest.mark.parametrize("lookahead", [1, 5])
async def test_law_8_no_task_is_called_before_its_grant(lookahead: int) -> None:
    pulled = called = 0
    capacity = Granting(3)

    def tasks() -> Iterator[Any]:
        nonlocal pulled
        for count in range(200):
            pulled += 1
            assert pulled <= called + lookahead
            yield Task(work, count % 4)

    async def work(iterations: int) -> None:
        nonlocal called
        called += 1
        assert called <= capacity.granted
        for _ in range(iterations):
            await asyncio.sleep(0)

    runner = HierarchicalTaskPoolRunner(tasks(), capacity, lookahead=lookahead)
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            assert envelope.error is None
    assert pulled == called == capacity.granted == 200


async def test_idle_source_holds_no_capacity() -> None:
    root = CapacitySource(3)
    idle: PushPullBufferObj[Any] = PushPullBufferObj()
    first = HierarchicalTaskPoolRunner(idle.source, CapacitySource(3, root))
    gate = asyncio.Event()
    running = 0

    async def work() -> None:
        nonlocal running
        running += 1
        await gate.wait()

    second = HierarchicalTaskPoolRunner([work] * 3, CapacitySource(3, root))
    async with first.run_tasks(), second.run_tasks() as progress:
        await until(lambda: running == 3)
        gate.set()
        assert len([envelope async for envelope in progress]) == 3


def competing_runners(root: CapacitySource, source: Any) -> tuple[Any, ...]:
    """Create a runner of the source and a runner with endless tasks, under one capacity."""

    async def wait_long() -> None:
        await yield_to_loop(100)

    endless = iter(lambda: wait_long, None)
    return tuple(
        HierarchicalTaskPoolRunner(tasks, CapacitySource(20, root)) for tasks in (source, endless)
    )


@pytest.mark.parametrize("fails", [False, True])
async def test_no_prefetched_permits_while_source_is_idle(
    fails: bool,
) -> None:
    """Permits that are freed in one loop iteration go to requests that are made ahead of their tasks, which must not be visible."""
    root = CapacitySource(20)
    buffer: PushPullBufferObj[Any] = PushPullBufferObj()
    called = 0
    most = 0

    async def work() -> None:
        nonlocal called
        called += 1
        await yield_to_loop(100)

    for _ in range(500):
        buffer.sink.next_nowait(work)
    if fails:
        # The source is pulled no further until a consumer has read the error.
        await buffer.sink.throw(OSError("torn"))
    first, second = competing_runners(root, buffer.source)
    async with second.run_tasks() as others:
        reading = asyncio.ensure_future(others.count())
        await until(lambda: second.capacity.waiting)
        async with first.run_tasks():

            def all_ended() -> bool:
                nonlocal most
                most = max(most, first.capacity.waiting)
                return bool(first.snapshot().done == 500)

            await until(all_ended, 100_000)
            await quiet()
            assert called == 500
            assert most > 1
            assert (first.capacity.waiting, first.capacity.held) == (0, 0)
        reading.cancel()
        await asyncio.wait([reading])
    assert (root.held, root.waiting) == (0, 0)


def test_law_15_requests_of_stopped_loop_go_to_others() -> None:
    root = CapacitySource(20)
    rest = [root.acquire_nowait() for _ in range(19)]
    loops = [asyncio.new_event_loop() for _ in range(2)]

    async def start_runs() -> Any:
        async def work() -> None:
            await yield_to_loop(100)

        first, second = competing_runners(root, iter(lambda: work, None))
        runs = [first.run_tasks(), second.run_tasks()]
        for run in runs:
            await run.__aenter__()
        tasks = [asyncio.ensure_future(run.collect()) for run in runs]
        await until(lambda: first.capacity.waiting > 1 or second.capacity.waiting > 1)
        return first, second, runs, tasks

    *_, runs, tasks = loops[0].run_until_complete(start_runs())
    # The loop is stopped: its tasks keep what they hold and must be granted no more.
    held = root.held
    for lease in rest:
        assert lease is not None
        lease.release()

    async def acquire_rest() -> None:
        async with asyncio.timeout(30), root.acquire(20 - (held - 19)):
            pass

    loops[1].run_until_complete(acquire_rest())

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for run in runs:
            await run.aclose()

    loops[0].run_until_complete(end())
    assert (root.held, root.waiting) == (0, 0)
    for loop in loops:
        loop.close()


async def test_simple_tasks_do_not_wait_for_others_prefetch() -> None:
    """Simple and general tasks alternate; each kind requests permits ahead for itself."""
    root = CapacitySource(2)

    async def work() -> None:
        await yield_to_loop(3)

    tasks = (Task(work, timeout=3600) if number % 3 else work for number in range(1_000))
    first, second = competing_runners(root, tasks)
    async with second.run_tasks() as others:
        reading = asyncio.ensure_future(others.count())
        await until(lambda: second.capacity.waiting)
        async with asyncio.timeout(30), first.run_tasks() as progress:
            assert await progress.count() == 1_000
        reading.cancel()
        await asyncio.wait([reading])
    assert (root.held, root.waiting) == (0, 0)


async def test_retried_task_requests_only_its_own_permit() -> None:
    root = CapacitySource(20)
    buffer: PushPullBufferObj[Any] = PushPullBufferObj()
    failures = 30

    async def work() -> None:
        nonlocal failures
        await yield_to_loop(3)
        if failures:
            failures -= 1
            raise OSError

    for _ in range(3):
        buffer.sink.next_nowait(Task(work, retry=Retry(49, backoff=0)))
    first, second = competing_runners(root, buffer.source)
    async with second.run_tasks() as others:
        reading = asyncio.ensure_future(others.count())
        await until(lambda: second.capacity.waiting)
        async with first.run_tasks():
            await until(lambda: first.snapshot().done == 3, 100_000)
            await quiet()
            assert (first.capacity.waiting, first.capacity.held) == (0, 0)
        reading.cancel()
        await asyncio.wait([reading])
    assert (root.held, root.waiting) == (0, 0)


async def test_yielding_source_counts_as_idle() -> None:
    root = CapacitySource(20)

    async def work() -> None:
        await yield_to_loop(100)

    async def tasks() -> AsyncIterator[Any]:
        for _ in range(300):
            yield work
        while True:
            await yield_to_loop(1)

    first, second = competing_runners(root, SourceIterObj(tasks()))
    async with second.run_tasks() as others:
        reading = asyncio.ensure_future(others.count())
        await until(lambda: second.capacity.waiting)
        async with first.run_tasks():
            await until(lambda: first.snapshot().done == 300, 100_000)
            await quiet()
            assert (first.capacity.waiting, first.capacity.held) == (0, 0)
        reading.cancel()
        await asyncio.wait([reading])
    assert (root.held, root.waiting) == (0, 0)


@pytest.mark.parametrize("task_options", [None, {"timeout": 3600}, {"retry": Retry(2, backoff=0)}])
@pytest.mark.parametrize("action", ["pause", "drain", "abort", "leave"])
async def test_no_permit_prefetch_after_pause_or_end(
    action: str, task_options: dict[str, Any] | None
) -> None:
    root = CapacitySource(20)

    async def work() -> None:
        await yield_to_loop(3)

    tasks = iter(lambda: work if task_options is None else Task(work, **task_options), None)
    first, second = competing_runners(root, tasks)
    async with second.run_tasks() as others:
        reading = asyncio.ensure_future(others.count())
        await until(lambda: second.capacity.waiting)
        async with first.run_tasks() as progress:
            await until(lambda: first.capacity.waiting > 1)
            if action == "pause":
                first.pause()
                ending = None
            else:
                ending = {"drain": first.drain, "abort": first.abort, "leave": progress.aclose}[
                    action
                ]()
                # The part that runs before it waits.
                ending.send(None)
            # Only the request of the task that was already pulled may remain.
            assert first.capacity.waiting <= 1
            if ending is not None:
                ending.close()
        reading.cancel()
        await asyncio.wait([reading])
    assert (root.held, root.waiting) == (0, 0)


async def test_envelopes_come_in_order_of_completion() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(index: int) -> int:
        await gates[index].wait()
        return index

    received: list[int] = []
    async with pool([Task(work, index) for index in range(3)]).run_tasks() as progress:
        for index in (2, 0, 1):
            gates[index].set()
            received.append((await anext(progress)).value)
    assert received == [2, 0, 1]


async def test_law_8_capacity_is_held_until_work_has_stopped() -> None:
    capacity = CapacitySource(1)
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    async def leave() -> None:
        async with HierarchicalTaskPoolRunner([work], capacity).run_tasks():
            await until(lambda: capacity.held)
            await quiet()

    leaving = asyncio.create_task(leave())
    await cleaning.wait()
    await quiet()
    assert (capacity.held, leaving.done()) == (1, False)
    cleaned.set()
    await leaving
    assert capacity.held == 0


async def test_impossible_cost_is_an_error_at_once() -> None:
    async with pool([Task(one, cost=5), one]).run_tasks() as progress:
        refused, after = [envelope async for envelope in progress]
    assert isinstance(refused.error, ValueError)
    assert "5" in str(refused.error)
    assert (refused.attempt, refused.started) == (0, None)
    assert (after.type, after.value) == (FINAL, 1)


async def test_law_6_work_continues_up_to_max_buffered() -> None:
    called = 0

    async def work() -> int:
        nonlocal called
        called += 1
        return called

    async with pool([work] * 100, 2, max_buffered=10).run_tasks() as progress:
        await until(lambda: called >= 10)
        await quiet()
        # One more for each task that ran when the tenth envelope was put. No capacity is held without need.
        assert 10 <= called <= 12
        received = [(await anext(progress)).value for _ in range(3)]
        await quiet()
        assert 13 <= called <= 15
        received += [envelope.value async for envelope in progress]
    assert sorted(received) == list(range(1, 101))


async def test_law_6_unread_is_max_buffered_plus_running() -> None:
    gate = asyncio.Event()
    most = 0
    runner = pool([gate.wait] * 200, 50, max_buffered=10)
    async with runner.run_tasks() as progress:
        # max_buffered does not limit how many tasks run.
        await until(lambda: runner.snapshot().running == 50)
        gate.set()
        await quiet()
        async for _ in progress:
            now = runner.snapshot()
            most = max(most, now.unread + now.running + 1)
    assert 50 <= most <= 60


@pytest.mark.virtual
async def test_stopped_consumer_stops_run_and_loses_nothing() -> None:
    called = 0
    loop = asyncio.get_running_loop()

    async def work() -> int:
        nonlocal called
        called += 1
        number = called
        await asyncio.sleep(1)
        return number

    runner = pool([work] * 1_000, 5, max_buffered=100)
    async with runner.run_tasks() as progress:
        received = [(await anext(progress)).value]
        await asyncio.sleep(3600)
        # The tasks that ran when the hundredth envelope was put have ended too. No task was called since.
        assert 101 <= called <= 101 + 5
        assert runner.snapshot().unread == called - 1
        assert (runner.snapshot().running, runner.capacity.held) == (0, 0)
        resumed_at = loop.time()
        received += [envelope.value async for envelope in progress]
    assert sorted(received) == list(range(1, 1_001))
    assert loop.time() - resumed_at == pytest.approx((1_000 - 105) / 5, abs=2)


@pytest.mark.virtual
async def test_slow_consumer_stalls_no_task_below_the_bound() -> None:
    ended: list[float] = []
    loop = asyncio.get_running_loop()

    async def work() -> None:
        await asyncio.sleep(1)
        ended.append(loop.time())

    async def yields() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0.2)
            yield number
        ended.append(loop.time())

    start = loop.time()
    runner = pool([work, yields] * 25, 5, max_buffered=200)
    async with runner.run_tasks() as progress:
        async for _ in progress:
            await asyncio.sleep(100)
    # Ten rounds of five, as if each envelope had been read at once.
    rounds = [start + 1 + number // 5 for number in range(50)]
    assert ended == pytest.approx(rounds)


async def test_no_capacity_is_held_while_consumer_is_behind() -> None:
    capacity = CapacitySource(2)
    runner = HierarchicalTaskPoolRunner([one] * 100, capacity, max_buffered=5)
    async with runner.run_tasks():
        await quiet()
        assert capacity.held == 0


async def test_yielding_tasks_wait_for_space_in_order() -> None:
    yielded = 0

    async def work(name: str) -> AsyncIterator[str]:
        nonlocal yielded
        for _ in range(20):
            yielded += 1
            yield name

    tasks = [Task(work, "a"), Task(work, "b"), Task(work, "c")]
    async with pool(tasks, max_buffered=4).run_tasks() as progress:
        await quiet()
        # Four in the buffer, and one held by each task that waits.
        assert yielded <= 4 + 3
        values = Counter([envelope.value async for envelope in progress])
    assert values == {"a": 20, "b": 20, "c": 20, None: 3}
