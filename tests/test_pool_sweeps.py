from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    DependencyGraph,
    DependencySourceObj,
    Final,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Retry,
    SourceBufferObj,
    Task,
)
from headrace.testing import Outcome, cancel_everywhere
from tests.pool_support import INTERMEDIATE, envelopes
from tests.support import yield_to_loop as loop_iterations

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

pytestmark = pytest.mark.usefixtures("task_path")


class Work:
    """Tasks of all kinds, which count their calls and ends."""

    def __init__(self, capacity: CapacitySource) -> None:
        self.capacity = capacity
        self.running = 0
        self.called: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()

    def enter(self, index: int) -> None:
        self.called[index] += 1
        self.running += 1
        assert self.running <= self.capacity.held <= self.capacity.limit

    def leave(self, index: int) -> None:
        self.ended[index] += 1
        self.running -= 1

    async def waits(self, index: int, iterations: int) -> int:
        self.enter(index)
        try:
            for _ in range(iterations):
                await asyncio.sleep(0)
            return index
        finally:
            self.leave(index)

    async def yields(self, index: int, iterations: int) -> AsyncIterator[int | Final[int]]:
        self.enter(index)
        try:
            for iteration in range(iterations):
                yield iteration
                if iteration % 2:
                    await asyncio.sleep(0)
            yield Final(index)
        finally:
            self.leave(index)

    async def raises(self, index: int, iterations: int) -> None:
        await self.waits(index, iterations)
        raise ValueError(index)

    async def cancels_itself(self, index: int, iterations: int) -> None:
        await self.waits(index, iterations)
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    async def raises_cancelled(self, index: int, iterations: int) -> None:
        await self.waits(index, iterations)
        raise asyncio.CancelledError

    def plain(self, index: int, iterations: int) -> int:
        self.enter(index)
        self.leave(index)
        return index + iterations

    def in_thread(self, index: int, iterations: int) -> int:
        # Runs in a thread, so that it must not count as running.
        self.called[index] += 1
        self.ended[index] += 1
        return index + iterations

    KINDS = (waits, yields, raises, cancels_itself, raises_cancelled, plain)


@pytest.mark.parametrize("kind", range(2))
async def test_law_4_cancelled_consumer_leaves_nothing(kind: int) -> None:
    for iterations in count():
        root = CapacitySource(3)
        capacity = CapacitySource(2, root)
        work = Work(capacity)
        source = SourceBufferObj(
            [Task((work.waits, work.yields)[(index + kind) % 2], index, 3) for index in range(6)]
        )
        runner = HierarchicalTaskPoolRunner(source, capacity, max_buffered=4)
        ended_tasks: Counter[int] = Counter()

        async def consume(runner: HierarchicalTaskPoolRunner, ended_tasks: Counter[int]) -> None:
            async with runner.run_tasks() as progress:
                async for envelope in progress:
                    if envelope.type is not INTERMEDIATE:
                        ended_tasks[envelope.task_id] += 1

        consumer = asyncio.ensure_future(consume(runner, ended_tasks))
        for _ in range(iterations):
            await asyncio.sleep(0)
        consumer.cancel()
        try:
            await consumer
        except asyncio.CancelledError:
            pass
        else:
            # The consumer ended before the cancellation: there is no later moment.
            assert iterations > 5
            break
        assert (root.held, work.running, len(asyncio.all_tasks())) == (0, 0, 1)
        assert work.called == work.ended
        assert len(work.called) + len(source.buffer) in (5, 6)
        assert set(ended_tasks.values()) <= {1}
        # Tasks that were not called are called now; none is called again.
        await envelopes(runner)
        assert work.called == Counter(range(6)) == work.ended
        assert root.held == 0


async def _reads(runner: HierarchicalTaskPoolRunner) -> None:
    async with runner.run_tasks() as progress:
        async for _ in progress:
            pass


async def _runs(runner: HierarchicalTaskPoolRunner) -> None:
    with suppress(ValueError):
        await runner.run()


async def _drains(runner: HierarchicalTaskPoolRunner) -> None:
    async with runner.run_tasks() as progress:
        await anext(progress)
        await runner.drain()
        async for _ in progress:
            pass


async def _aborts(runner: HierarchicalTaskPoolRunner) -> None:
    async with runner.run_tasks() as progress:
        await anext(progress)
        await runner.abort()
        async for _ in progress:
            pass


async def _pauses(runner: HierarchicalTaskPoolRunner) -> None:
    async with runner.run_tasks() as progress:
        await anext(progress)
        try:
            runner.pause()
            await loop_iterations(3)
        finally:
            runner.resume()
        async for _ in progress:
            pass


@pytest.mark.parametrize(
    "consume", [_reads, _runs, _drains, _aborts, _pauses], ids=lambda fn: fn.__name__
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lookahead": 3},
        {"ordered": True, "window": 3, "max_buffered": 2},
        {"retry": Retry(1, backoff=0), "timeout": 60},
        {"on_error": "stop"},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
async def test_law_4_run_cancelled_anywhere_holds_nothing(
    options: dict[str, Any],
    consume: Callable[[HierarchicalTaskPoolRunner], Coroutine[Any, Any, Any]],
) -> None:
    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        root = CapacitySource(3)
        capacity = CapacitySource(2, root)
        work = Work(capacity)
        kinds = (work.waits, work.yields, work.raises, work.plain)
        tasks = [Task(kinds[index % 4], index, 2, priority=index % 3) for index in range(6)]
        runner = HierarchicalTaskPoolRunner(tasks, capacity, **options)
        outcome = yield consume(runner)
        assert outcome.error is None
        assert (root.held, root.waiting, work.running) == (0, 0, 0)
        assert work.called == work.ended
        # The sweep checks that no task is left. The runner can run again.
        await _reads(runner)
        assert root.held == 0

    assert await cancel_everywhere(case) > 0


def _timing_out(work: Work) -> list[Task]:
    """Create tasks in threads and on the loop, some of which time out in the queue."""
    return [
        Task(work.in_thread, 0, 2, thread=True),
        Task(work.waits, 1, 3, queue_timeout=3600),
        Task(work.raises, 2, 2, queue_timeout=1e-9),
        Task(work.in_thread, 3, 2, thread=True, queue_timeout=1e-9),
        Task(work.yields, 4, 2, queue_timeout=1e-9),
        Task(work.in_thread, 5, 2, thread=True, timeout=3600),
    ]


def _dependencies(work: Work) -> DependencySourceObj:
    """Create a graph: three nodes depend on one, others on them; one of those fails, and its dependent is aborted."""
    graph = DependencyGraph()
    graph.add("first", Task(work.waits, 0, 2))
    for index, fn in enumerate((work.yields, work.waits, work.plain), 1):
        graph.add(index, Task(fn, index, 2), ["first"])
    graph.add("fails", Task(work.raises, 4, 1), [1, 2])
    graph.add("aborted", Task(work.waits, 5, 1), ["fails", 3])
    return DependencySourceObj(graph)


@pytest.mark.parametrize("consume", [_reads, _drains, _aborts, _pauses], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("make", [_timing_out, _dependencies], ids=lambda fn: fn.__name__)
async def test_law_4_run_of_any_tasks_cancelled_anywhere(
    make: Callable[[Work], Any],
    consume: Callable[[HierarchicalTaskPoolRunner], Coroutine[Any, Any, Any]],
) -> None:
    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        root = CapacitySource(3)
        capacity = CapacitySource(2, root)
        work = Work(capacity)
        source = make(work)
        runner = HierarchicalTaskPoolRunner(source, capacity, lookahead=2)
        outcome = yield consume(runner)
        assert outcome.error is None
        assert (root.held, root.waiting, work.running) == (0, 0, 0)
        assert work.called == work.ended
        if isinstance(source, DependencySourceObj) and consume is _drains:
            # Tasks that were handed out are settled elsewhere; until then the source does not end.
            return
        await _reads(runner)
        assert root.held == 0
        assert set(work.called.values()) <= {1}
        if isinstance(source, DependencySourceObj):
            assert source.graph.finished

    assert await cancel_everywhere(case) > 0


@pytest.mark.parametrize("seed", range(3))
async def test_each_called_task_ends_exactly_once(seed: int) -> None:
    rng = random.Random(seed)
    root = CapacitySource(9)
    capacity = CapacitySource(7, root)
    work = Work(capacity)
    queue: PushPullBufferObj[Task] = PushPullBufferObj()
    indices = iter(range(2_000))
    remaining = 1

    def add_one() -> None:
        nonlocal remaining
        if (index := next(indices, None)) is not None:
            remaining += 1
            fn = rng.choice(Work.KINDS).__get__(work)
            queue.sink.next_nowait(
                Task(fn, index, rng.randrange(4), key=index, cost=rng.choice((1, 1, 2, 7)))
            )

    def spawn() -> None:
        for _ in range(2_000):
            add_one()

    queue.sink.next_nowait(Task(spawn, key="spawn"))
    ended_tasks: Counter[Any] = Counter()
    kinds: Counter[str] = Counter()
    runner = HierarchicalTaskPoolRunner(queue.source, capacity, max_buffered=50)
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            if rng.random() < 0.05:
                await asyncio.sleep(0)
            if envelope.type is INTERMEDIATE:
                continue
            ended_tasks[envelope.key] += 1
            kinds[type(envelope.error).__name__] += 1
            remaining -= 1
            if not remaining:
                await queue.sink.return_()
    assert set(ended_tasks.values()) == {1}
    assert len(ended_tasks) == 2_001
    assert work.called == Counter(range(2_000)) == work.ended
    assert set(kinds) == {"NoneType", "ValueError", "CancelledError"}
    assert (root.held, work.running) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_interrupted_runs_call_each_task_once(seed: int) -> None:
    rng = random.Random(seed)
    root = CapacitySource(rng.randint(1, 6))
    capacity = CapacitySource(rng.randint(1, 4), root)
    work = Work(capacity)
    kinds = (work.waits, work.yields, work.raises)
    source = SourceBufferObj(
        [Task(rng.choice(kinds), index, rng.randrange(5), key=index) for index in range(60)]
    )
    runner = HierarchicalTaskPoolRunner(source, capacity, max_buffered=rng.choice((1, 2, 5, 100)))
    ended_tasks: Counter[Any] = Counter()

    async def consume(stop: int) -> bool:
        async with runner.run_tasks() as progress:
            async for envelope in progress:
                ended_tasks[envelope.key] += envelope.type is not INTERMEDIATE
                stop -= 1
                if not stop:
                    return False
                if rng.random() < 0.1:
                    await asyncio.sleep(0)
        return True

    finished = False
    while not finished:
        consumer = asyncio.ensure_future(consume(rng.randint(1, 40)))
        if rng.random() < 0.5:
            for _ in range(rng.randrange(40)):
                await asyncio.sleep(0)
            for _ in range(rng.randint(1, 2)):
                consumer.cancel()
                await asyncio.sleep(0)
        try:
            finished = await consumer
        except asyncio.CancelledError:
            pass
        assert (root.held, work.running, len(asyncio.all_tasks())) == (0, 0, 1)
    assert work.called == Counter(range(60)) == work.ended
    assert set(ended_tasks.values()) <= {0, 1}
