"""`cache=` of the pool: hits and followers hold nothing, and equal tasks of one moment are one call."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    CapacitySource,
    EnvelopeType,
    HierarchicalTaskPoolRunner,
    MapError,
    PullMapPoolObj,
    Rate,
    Retry,
    Task,
    amap,
)
from headrace.testing import VirtualClock, cancel_everywhere, shuffled_loop
from tests.cache_support import Calls, cache_of
from tests.support import collect, quiet, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from headrace.testing import Outcome


async def test_law_8_fifty_equal_tasks_are_one_call() -> None:
    node = CapacitySource(50)
    calls = Calls(is_open=False)
    async with cache_of() as cache, PullMapPoolObj(["a"] * 50, calls, node, cache=cache) as stream:
        first = asyncio.create_task(anext(stream))
        await until(lambda: stream.runner.snapshot().queued == 49)
        # Followers hold nothing, and do not wait for capacity.
        now = stream.runner.snapshot()
        assert (node.held, node.waiting, now.running, now.queued) == (1, 0, 1, 49)
        calls.open.set()
        results = [await first, *await collect(stream)]
        assert calls.begun == ["a"]
        assert results == [("a", "result")] * 50
        assert all(result is results[0] for result in results)
        assert cache.stats().flights == 1
    assert node.held == 0


@pytest.mark.virtual
async def test_hit_takes_no_slot_and_no_quota() -> None:
    loop = asyncio.get_running_loop()
    node = CapacitySource({"slots": 1, "requests": Rate(1, per=60)}, clock=loop.time)
    cost = {"slots": 1, "requests": 1}
    calls = Calls()
    async with cache_of() as cache:
        await collect(PullMapPoolObj(["a"], calls, node, cost=cost, cache=cache))
        start = loop.time()
        async with node.acquire({"slots": 1}):
            found = await collect(PullMapPoolObj(["a"] * 9, calls, node, cost=cost, cache=cache))
        assert found == [("a", "result")] * 9
        assert loop.time() == start
        await collect(PullMapPoolObj(["b"], calls, node, cost=cost, cache=cache))
        assert loop.time() == start + 60


async def test_followers_do_not_stop_other_tasks() -> None:
    node = CapacitySource(2)
    calls = Calls(is_open=False)
    async with cache_of() as cache, PullMapPoolObj("aaab", calls, node, cache=cache) as stream:
        first = asyncio.create_task(anext(stream))
        await until(lambda: len(calls.begun) == 2)
        assert calls.begun == ["a", "b"]
        calls.open.set()
        assert len([await first, *await collect(stream)]) == 4


async def test_law_6_followers_are_bounded() -> None:
    pulled: list[int] = []

    def items() -> Any:
        for number in range(100):
            pulled.append(number)
            yield "a"

    calls = Calls(is_open=False)
    stream = PullMapPoolObj(items(), calls, 5, cache=(cache := cache_of()), max_buffered=7)
    async with cache, stream:
        first = asyncio.create_task(anext(stream))
        await quiet()
        assert (len(pulled), stream.runner.snapshot().queued) == (8, 7)
        assert "tasks that wait for equal ones" in headrace.explain()
        assert "1 running, 7 following" in headrace.explain()
        assert "waits for the call of an equal task" in headrace.explain()
        calls.open.set()
        assert len([await first, *await collect(stream)]) == 100
        assert calls.begun == ["a"]


async def test_results_keep_their_order() -> None:
    async def fn(item: int) -> int:
        await asyncio.sleep(0)
        return item

    rng = random.Random(3)
    items = [rng.randrange(5) for _ in range(200)]
    async with cache_of() as cache:
        options: Any = {"ordered": True, "cache": cache, "window": 10}
        assert await collect(PullMapPoolObj(items, fn, 3, **options)) == items
        assert await amap(fn, items, limit=3, cache=cache).collect() == items
        stats = cache.stats()
        assert (stats.flights, stats.stored) == (5, 5)


async def test_events_of_hits_and_followers_have_no_attempt() -> None:
    calls = Calls()
    tasks = [Task(calls, "a", key=key) for key in ("leads", "follows")]
    hooked: list[Any] = []
    async with cache_of() as cache:
        for wanted in ([1, 0, 0], [0, 0, 0]):
            source = [*tasks, Task(calls, "a", key="third", on_complete=hooked.append)]
            async with HierarchicalTaskPoolRunner(source, 3, cache=cache).run_tasks() as run:
                events = [event async for event in run]
            assert [event.attempt for event in events] == wanted
            assert all(event.type is EnvelopeType.FINAL for event in events)
            assert [event.started is None for event in events] == [not one for one in wanted]
        assert hooked == [("a", "result")] * 2


async def test_functions_of_a_runner_are_told_apart() -> None:
    async def first(item: str) -> str:
        return f"first {item}"

    async def second(item: str) -> str:
        return f"second {item}"

    async with cache_of() as cache:
        tasks = [Task(fn, "a") for fn in (first, second, first)]
        runner = HierarchicalTaskPoolRunner(tasks, 1, ordered=True, cache=cache)
        assert await runner.run() == ["first a", "second a", "first a"]
        assert cache.stats().flights == 2


async def test_results_are_those_of_wrap() -> None:
    calls = Calls(is_open=False)
    async with cache_of() as cache:
        ask = cache.wrap(calls)
        caller = asyncio.create_task(ask("a"))
        stream = amap(calls, ["a", "b"], limit=1, cache=cache)
        results = asyncio.create_task(stream.collect())
        await until(lambda: len(calls.begun) == 2)
        follower = asyncio.create_task(ask("b"))
        await quiet()
        calls.open.set()
        wanted = [("a", "result"), ("b", "result")]
        assert await results == wanted
        assert [await caller, await follower] == wanted
        assert sorted(calls.begun) == ["a", "b"]


# A leader that has no result.


async def test_after_an_error_the_next_task_is_called() -> None:
    made: list[str] = []

    async def fn(item: str) -> int:
        made.append(item)
        number = len(made)
        await asyncio.sleep(0)
        if number == 1:
            raise ValueError("no")
        return number

    node = CapacitySource(5)
    async with cache_of() as cache:
        results = await amap(fn, ["a"] * 5, limit=node, errors="return", cache=cache).collect()
        assert [type(one).__name__ for one in results] == ["Failure", *["int"] * 4]
        assert (results[1:], made) == ([2] * 4, ["a"] * 2)
    assert node.held == node.waiting == 0


async def test_caller_of_wrap_gets_the_error_of_a_task() -> None:
    calls = Calls(is_open=False, error=ValueError("no"))
    async with cache_of() as cache:
        results = asyncio.create_task(amap(calls, ["a"], limit=1, cache=cache).collect())
        await until(lambda: calls.begun)
        caller = asyncio.create_task(cache.wrap(calls)("a"))
        await quiet()
        calls.open.set()
        with pytest.raises(ValueError, match="no"):
            await caller
        with pytest.raises(MapError):
            await results


COUNT = 4


@pytest.mark.parametrize("cancelled", range(COUNT))
@pytest.mark.parametrize("steps", range(8))
async def test_law_8_20_cancel_each_task_at_each_step(cancelled: int, steps: int) -> None:
    node = CapacitySource(1)
    calls = Calls()
    async with cache_of() as cache:
        tasks = [Task(calls, "a", key=number) for number in range(COUNT)]
        runner = HierarchicalTaskPoolRunner(tasks, node, cache=cache)
        async with runner.run_tasks() as run:
            events = asyncio.create_task(collect(run))
            for _ in range(steps):
                await asyncio.sleep(0)
            is_shared = cache.stats().misses > 1
            runner.cancel(cancelled + 1)
            for event in await events:
                is_cancelled = event.type is EnvelopeType.ERROR
                assert event.key == cancelled or not is_cancelled
        # On a slow machine, the feeder yields before it has pulled a second task.
        assert len(calls.begun) <= (1 if cancelled or is_shared else 2)
        assert calls.cleaned == calls.cancelled
        assert node.held == node.waiting == calls.running == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_law_8_20_sweep_of_cancellation(fails: bool) -> None:
    """Cancel the consumer of one of two pools at each of its steps; the other pool gets its results."""

    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        node = CapacitySource(1)
        calls = Calls(error=ValueError("no") if fails else None)
        cache = cache_of()

        async def work() -> Any:
            stream = amap(calls, "aab", limit=node, errors="skip", cache=cache)
            async with stream:
                return await stream.collect()

        async def others() -> Any:
            return await amap(calls, "ab", limit=node, errors="skip", cache=cache).collect()

        before = asyncio.create_task(others())
        outcome = yield work()
        wanted = [] if fails else [("a", "result"), ("b", "result")]
        assert await before == wanted
        assert await others() == wanted
        if not outcome.cancelled:
            assert outcome.value == ([] if fails else [("a", "result"), *wanted])
        assert calls.running == 0
        assert calls.cleaned == calls.cancelled
        assert node.held == node.waiting == 0
        assert not cache._flights._under_way
        await cache.aclose()

    assert await cancel_everywhere(case) > 0


@pytest.mark.loops("asyncio")
def test_law_8_20_random_pools() -> None:
    for seed in range(60):
        print("seed", seed)
        with asyncio.Runner(loop_factory=shuffled_loop(seed, clock=VirtualClock())) as runner:
            runner.run(_random_pools(random.Random(seed)))


async def _random_pools(rng: random.Random) -> None:
    """Let pools and callers share a cache, cancel, pause and drain them, and check the invariants."""
    node = CapacitySource(rng.randint(1, 3), clock=asyncio.get_running_loop().time)
    running: dict[int, int] = {}
    failing = rng.choice([0, 0.3])

    async def fn(item: int) -> int:
        running[item] = running.get(item, 0) + 1
        assert sum(running.values()) <= node.held <= node.limit
        try:
            await asyncio.sleep(rng.choice([0, 0.1, 1]))
            if rng.random() < failing:
                raise ValueError("no")
            return item
        finally:
            running[item] -= 1

    cache = cache_of()
    streams: list[Any] = []

    async def pool() -> None:
        items = [rng.randrange(4) for _ in range(rng.randint(1, 15))]
        tasks = [Task(fn, item, queue_timeout=rng.choice([None, None, 0.5])) for item in items]
        runner = HierarchicalTaskPoolRunner(
            tasks,
            node,
            cache=cache,
            ordered=rng.random() < 0.5,
            lookahead=rng.randint(1, 3),
            max_buffered=rng.randint(2, 9),
            retry=rng.choice([None, Retry(retries=1, backoff=0.1)]),
            timeout=rng.choice([None, 0.5]),
        )
        streams.append(runner)
        async with runner.run_tasks() as run:
            ended = [event async for event in run]
        left = await runner.drain()
        assert len(ended) + len(left) <= len(items)
        values = [event.value for event in ended if event.type is EnvelopeType.FINAL]
        assert all(value in items for value in values)

    tasks = [asyncio.create_task(pool()) for _ in range(rng.randint(1, 3))]
    for _ in range(rng.randrange(12)):
        await asyncio.sleep(rng.choice([0, 0, 0.3]))
        for runner in streams:
            act = rng.randrange(8)
            if act == 0:
                runner.cancel(rng.randint(1, 15))
            elif act == 1:
                runner.pause()
            elif act == 2 and rng.random() < 0.3:
                tasks.append(asyncio.create_task(runner.drain()))
        if rng.random() < 0.1:
            rng.choice(tasks).cancel()
    for runner in streams:
        runner.resume()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, (list, asyncio.CancelledError)), result
    assert sum(running.values()) == node.held == node.waiting == 0
    assert not cache._flights._under_way
    await cache.aclose()


async def test_drain_gives_followers_back() -> None:
    calls = Calls(is_open=False)
    async with cache_of() as cache:
        runner = HierarchicalTaskPoolRunner([Task(calls, "a")] * 3, 2, cache=cache)
        async with runner.run_tasks() as run:
            events = asyncio.create_task(collect(run))
            await until(lambda: runner.snapshot().queued == 2)
            left = asyncio.create_task(runner.drain())
            await quiet()
            calls.open.set()
            assert len(await left) == 2
            assert len(await events) == 1


async def test_paused_followers_stay() -> None:
    calls = Calls(is_open=False)
    async with cache_of() as cache:
        runner = HierarchicalTaskPoolRunner([Task(calls, "a")] * 3, 2, cache=cache)
        async with runner.run_tasks() as run:
            events = asyncio.create_task(collect(run))
            await until(lambda: runner.snapshot().queued == 2)
            runner.pause()
            await quiet()
            assert runner.snapshot().queued == 2
            runner.resume()
            calls.open.set()
            assert len(await events) == 3
        assert calls.begun == ["a"]
