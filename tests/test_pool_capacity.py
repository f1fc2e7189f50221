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
from tests.support import turns, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.usefixtures("task_path")


async def test_nothing_is_pulled_ahead_but_one() -> None:
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
async def test_law_8_nothing_is_called_before_it_was_granted(lookahead: int) -> None:
    pulled = called = 0
    capacity = Granting(3)

    def tasks() -> Iterator[Any]:
        nonlocal pulled
        for count in range(200):
            pulled += 1
            assert pulled <= called + lookahead
            yield Task(work, count % 4)

    async def work(turns: int) -> None:
        nonlocal called
        called += 1
        assert called <= capacity.granted
        for _ in range(turns):
            await asyncio.sleep(0)

    runner = HierarchicalTaskPoolRunner(tasks(), capacity, lookahead=lookahead)
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            assert envelope.error is None
    assert pulled == called == capacity.granted == 200


async def test_silent_source_holds_no_capacity() -> None:
    root = CapacitySource(3)
    silent: PushPullBufferObj[Any] = PushPullBufferObj()
    first = HierarchicalTaskPoolRunner(silent.source, CapacitySource(3, root))
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


def rivals(root: CapacitySource, source: Any) -> tuple[Any, ...]:
    """A runner of a source, and one beside it that always has more to do."""

    async def turn() -> None:
        await turns(100)

    endless = iter(lambda: turn, None)
    return tuple(
        HierarchicalTaskPoolRunner(tasks, CapacitySource(20, root)) for tasks in (source, endless)
    )


@pytest.mark.parametrize("fails", [False, True])
async def test_who_asks_for_more_than_it_has_in_hand_holds_nothing_once_its_source_is_silent(
    fails: bool,
) -> None:
    """What is freed in one turn is shared by asks that are made ahead of their tasks; nobody may see more of them than that."""
    root = CapacitySource(20)
    buffer: PushPullBufferObj[Any] = PushPullBufferObj()
    called = 0
    most = 0

    async def work() -> None:
        nonlocal called
        called += 1
        await turns(100)

    for _ in range(500):
        buffer.sink.next_nowait(work)
    if fails:
        # Nothing more is pulled before somebody has taken it.
        await buffer.sink.throw(OSError("torn"))
    first, second = rivals(root, buffer.source)
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


def test_law_15_what_a_loop_that_stopped_had_asked_for_goes_to_others() -> None:
    root = CapacitySource(20)
    rest = [root.acquire_nowait() for _ in range(19)]
    loops = [asyncio.new_event_loop() for _ in range(2)]

    async def begin() -> Any:
        async def work() -> None:
            await turns(100)

        first, second = rivals(root, iter(lambda: work, None))
        runs = [first.run_tasks(), second.run_tasks()]
        for run in runs:
            await run.__aenter__()
        tasks = [asyncio.ensure_future(run.collect()) for run in runs]
        await until(lambda: first.capacity.waiting > 1 or second.capacity.waiting > 1)
        return first, second, runs, tasks

    *_, runs, tasks = loops[0].run_until_complete(begin())
    # It stopped: whatever its tasks hold they hold, but no more than that.
    held = root.held
    for lease in rest:
        assert lease is not None
        lease.release()

    async def have() -> None:
        async with asyncio.timeout(30), root.acquire(20 - (held - 19)):
            pass

    loops[1].run_until_complete(have())

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


async def test_plain_tasks_do_not_wait_for_what_was_asked_for_ahead_of_others() -> None:
    """Tasks of both kinds in turn, of which each kind asks ahead for itself."""
    root = CapacitySource(2)

    async def work() -> None:
        await turns(3)

    tasks = (Task(work, timeout=3600) if number % 3 else work for number in range(1_000))
    first, second = rivals(root, tasks)
    async with second.run_tasks() as others:
        reading = asyncio.ensure_future(others.count())
        await until(lambda: second.capacity.waiting)
        async with asyncio.timeout(30), first.run_tasks() as progress:
            assert await progress.count() == 1_000
        reading.cancel()
        await asyncio.wait([reading])
    assert (root.held, root.waiting) == (0, 0)


async def test_a_task_that_is_called_again_asks_for_itself_alone() -> None:
    root = CapacitySource(20)
    buffer: PushPullBufferObj[Any] = PushPullBufferObj()
    failures = 30

    async def work() -> None:
        nonlocal failures
        await turns(3)
        if failures:
            failures -= 1
            raise OSError

    for _ in range(3):
        buffer.sink.next_nowait(Task(work, retry=Retry(49, backoff=0)))
    first, second = rivals(root, buffer.source)
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


async def test_source_that_lets_the_loop_turn_again_and_again_is_silent() -> None:
    root = CapacitySource(20)

    async def work() -> None:
        await turns(100)

    async def tasks() -> AsyncIterator[Any]:
        for _ in range(300):
            yield work
        while True:
            await turns(1)

    first, second = rivals(root, SourceIterObj(tasks()))
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


@pytest.mark.parametrize("terms", [None, {"timeout": 3600}, {"retry": Retry(2, backoff=0)}])
@pytest.mark.parametrize("action", ["pause", "drain", "abort", "leave"])
async def test_nothing_is_asked_for_ahead_from_the_moment_on_when_a_run_is_to_call_no_more(
    action: str, terms: dict[str, Any] | None
) -> None:
    root = CapacitySource(20)

    async def work() -> None:
        await turns(3)

    tasks = iter(lambda: work if terms is None else Task(work, **terms), None)
    first, second = rivals(root, tasks)
    async with second.run_tasks() as others:
        reading = asyncio.ensure_future(others.count())
        await until(lambda: second.capacity.waiting)
        async with first.run_tasks() as progress:
            await until(lambda: first.capacity.waiting > 1)
            if action == "pause":
                first.pause()
                ends = None
            else:
                ends = {"drain": first.drain, "abort": first.abort, "leave": progress.aclose}[
                    action
                ]()
                # What it does before it waits.
                ends.send(None)
            # No more than the one that was pulled, which may have to hear of it.
            assert first.capacity.waiting <= 1
            if ends is not None:
                ends.close()
        reading.cancel()
        await asyncio.wait([reading])
    assert (root.held, root.waiting) == (0, 0)


async def test_envelopes_come_in_order_of_completion() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(index: int) -> int:
        await gates[index].wait()
        return index

    got: list[int] = []
    async with pool([Task(work, index) for index in range(3)]).run_tasks() as progress:
        for index in (2, 0, 1):
            gates[index].set()
            got.append((await anext(progress)).value)
    assert got == [2, 0, 1]


async def test_law_8_capacity_is_held_until_the_work_has_really_stopped() -> None:
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


async def test_cost_that_can_never_be_had_is_an_error_at_once() -> None:
    async with pool([Task(one, cost=5), one]).run_tasks() as progress:
        refused, after = [envelope async for envelope in progress]
    assert isinstance(refused.error, ValueError)
    assert "5" in str(refused.error)
    assert (refused.attempt, refused.started) == (0, None)
    assert (after.type, after.value) == (FINAL, 1)


async def test_law_6_work_goes_on_without_the_consumer_up_to_max_buffered() -> None:
    called = 0

    async def work() -> int:
        nonlocal called
        called += 1
        return called

    async with pool([work] * 100, 2, max_buffered=10).run_tasks() as progress:
        await until(lambda: called >= 10)
        await quiet()
        # One more for each that ran when the tenth envelope was put, and no capacity is held for nothing.
        assert 10 <= called <= 12
        got = [(await anext(progress)).value for _ in range(3)]
        await quiet()
        assert 13 <= called <= 15
        got += [envelope.value async for envelope in progress]
    assert sorted(got) == list(range(1, 101))


async def test_law_6_unread_are_max_buffered_and_one_for_each_that_ran() -> None:
    gate = asyncio.Event()
    most = 0
    runner = pool([gate.wait] * 200, 50, max_buffered=10)
    async with runner.run_tasks() as progress:
        # It is no limit of how many run.
        await until(lambda: runner.snapshot().running == 50)
        gate.set()
        await quiet()
        async for _ in progress:
            now = runner.snapshot()
            most = max(most, now.unread + now.running + 1)
    assert 50 <= most <= 60


@pytest.mark.virtual
async def test_a_consumer_that_stops_reading_stops_the_run_and_loses_nothing() -> None:
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
        got = [(await anext(progress)).value]
        await asyncio.sleep(3600)
        # What ran when the hundredth was put has ended too, and nothing has been called since.
        assert 101 <= called <= 101 + 5
        assert runner.snapshot().unread == called - 1
        assert (runner.snapshot().running, runner.capacity.held) == (0, 0)
        again = loop.time()
        got += [envelope.value async for envelope in progress]
    assert sorted(got) == list(range(1, 1_001))
    assert loop.time() - again == pytest.approx((1_000 - 105) / 5, abs=2)


@pytest.mark.virtual
async def test_a_slow_consumer_stalls_nobody_before_the_bound() -> None:
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

    begun = loop.time()
    runner = pool([work, yields] * 25, 5, max_buffered=200)
    async with runner.run_tasks() as progress:
        async for _ in progress:
            await asyncio.sleep(100)
    # Ten rounds of five, as if it had read everything at once.
    rounds = [begun + 1 + number // 5 for number in range(50)]
    assert ended == pytest.approx(rounds)


async def test_no_capacity_is_held_while_the_consumer_is_behind() -> None:
    capacity = CapacitySource(2)
    runner = HierarchicalTaskPoolRunner([one] * 100, capacity, max_buffered=5)
    async with runner.run_tasks():
        await quiet()
        assert capacity.held == 0


async def test_tasks_that_yield_wait_for_room_in_turn() -> None:
    made = 0

    async def work(name: str) -> AsyncIterator[str]:
        nonlocal made
        for _ in range(20):
            made += 1
            yield name

    tasks = [Task(work, "a"), Task(work, "b"), Task(work, "c")]
    async with pool(tasks, max_buffered=4).run_tasks() as progress:
        await quiet()
        # Four in the buffer, and one in the hands of each of those that wait.
        assert made <= 4 + 3
        seen = Counter([envelope.value async for envelope in progress])
    assert seen == {"a": 20, "b": 20, "c": 20, None: 3}
