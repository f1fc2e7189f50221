from __future__ import annotations

import asyncio
import inspect
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    SKIP,
    CapacitySource,
    Final,
    HierarchicalTaskPoolRunner,
    Retry,
    SourceBufferObj,
    SourceCancelledError,
    SourceIterObj,
)
from headrace.pool import PullMapPoolObj, RunnerOptions
from headrace.testing import Delay, ScriptedSource
from tests.support import Gate, quiet, until, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.usefixtures("task_path")

where: ContextVar[str] = ContextVar("where", default="nowhere")


async def double(item: int) -> int:
    await asyncio.sleep(0)
    return item * 2


async def test_map_pool_returns_all_results() -> None:
    capacity = CapacitySource(3)
    async with SourceIterObj(range(20)).map_pool(double, capacity) as results:
        assert sorted([item async for item in results]) == list(range(0, 40, 2))
        with pytest.raises(StopAsyncIteration):
            await anext(results)
    assert capacity.held == 0


async def test_map_pool_accepts_any_iterable_and_function() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def final(item: int) -> AsyncIterator[Any]:
        yield "on the way"
        yield Final(item)

    def blocks(item: int) -> int:
        return item + 1

    capacity = CapacitySource(2)
    assert await PullMapPoolObj([1, 2], blocks, capacity, ordered=True).collect() == [2, 3]
    ends: PullMapPoolObj[Any] = PullMapPoolObj(numbers(), final, capacity, ordered=True)
    assert await ends.collect() == [1, 2]
    assert await PullMapPoolObj([1], blocks, capacity, thread=True).collect() == [2]


async def test_number_is_short_for_a_capacity() -> None:
    results = SourceIterObj(range(5)).map_pool(double, 2, ordered=True)
    assert results.runner.capacity.limit == 2
    assert await results.collect() == [0, 2, 4, 6, 8]
    runner = HierarchicalTaskPoolRunner([lambda: 1], 3)
    assert runner.capacity.limit == 3
    assert await runner.run() == [1]


@pytest.mark.virtual
async def test_number_uses_the_clock_of_the_loop() -> None:
    capacity = HierarchicalTaskPoolRunner([], 3).capacity
    capacity.cool_down(10)
    await asyncio.sleep(10)
    assert not capacity.cooling


@pytest.mark.parametrize("callable_", [PullMapPoolObj.__init__, SourceIterObj.map_pool])
def test_options_are_real_parameters(callable_: Callable[..., object]) -> None:
    parameters = inspect.signature(callable_).parameters
    defaults = inspect.signature(HierarchicalTaskPoolRunner).parameters
    for name in RunnerOptions.__annotations__:
        assert parameters[name].default == defaults[name].default


async def test_ordered_results_follow_their_items() -> None:
    async def work(item: int) -> int:
        for _ in range(10 - item):
            await asyncio.sleep(0)
        return item

    results = SourceIterObj(range(10)).map_pool(work, CapacitySource(5), ordered=True, window=6)
    assert await results.collect() == list(range(10))


async def test_law_3_error_costs_one_item() -> None:
    failed: list[str] = []

    async def work(item: int) -> int:
        if item % 3 == 1:
            raise ValueError(item)
        return item

    def record(error: Exception) -> Any:
        failed.append(f"{error} {getattr(error, '__notes__', [])}")
        return SKIP

    results = SourceIterObj(range(7)).map_pool(work, CapacitySource(1), name="mill").catch(record)
    assert await results.collect() == [0, 2, 3, 5, 6]
    assert failed == [
        "1 ['raised in mill: item 1, 1']",
        "4 ['raised in mill: item 4, 4']",
    ]


async def test_cancelled_call_does_not_cancel_the_consumer() -> None:
    async def work(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    results = SourceIterObj(range(3)).map_pool(work, CapacitySource(1), ordered=True)
    assert await anext(results) == 0
    with pytest.raises(SourceCancelledError):
        await anext(results)
    assert await results.collect() == [2]


async def test_law_1_nothing_is_called_before_a_pull() -> None:
    gate = Gate()
    async with SourceIterObj([1]).map_pool(gate, CapacitySource(1)):
        await quiet()
    assert gate.calls == []


async def test_law_2_cancelled_pull_loses_nothing() -> None:
    gate = Gate()
    async with SourceIterObj(range(5)).map_pool(gate, CapacitySource(2)) as results:
        for _ in range(3):
            pulling = asyncio.ensure_future(anext(results))
            await quiet()
            pulling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pulling
        gate.open.set()
        assert sorted(await results.collect()) == [0, 10, 20, 30, 40]


async def test_law_4_closing_stops_calls_and_closes_source() -> None:
    ended: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            ended.append("source")

    async def work(item: int) -> int:
        try:
            if item:
                await asyncio.Event().wait()
        finally:
            if item:
                ended.append("call")
        return item

    capacity = CapacitySource(3)
    async with PullMapPoolObj(numbers(), work, capacity) as results:
        async for _ in results:
            await until(lambda: capacity.held == 3)
            await quiet()
            break
    assert ended == ["call"] * 3 + ["source"]
    assert capacity.held == 0
    await results.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_restart_needs_an_idle_stream() -> None:
    source = SourceBufferObj([1, 2])
    gate = Gate()
    results = source.map_pool(gate, CapacitySource(1))
    pulling = asyncio.ensure_future(anext(results))
    await quiet()
    with pytest.raises(RuntimeError, match="a pull is pending"):
        results.restart()
    pulling.cancel()
    await asyncio.wait([pulling])
    with pytest.raises(RuntimeError, match=r"the calls of pool-.* are under way"):
        results.restart()
    pulling = asyncio.ensure_future(anext(results))
    gate.open.set()
    assert [await pulling, *await results.collect()] == [10, 20]
    source.buffer.extend([3])
    results.restart()
    assert await results.collect() == [30]


async def test_cost_can_depend_on_the_item() -> None:
    capacity = CapacitySource(4)
    held: list[int] = []

    async def work(item: int) -> int:
        held.append(capacity.held)
        return item

    def cost(item: int) -> int:
        return item

    results = PullMapPoolObj([1, 2, 3, 9], work, capacity, cost=cost, max_buffered=1)
    received: list[Any] = []
    while True:
        try:
            received.append(await anext(results))
        except ValueError as error:
            received.append("9" in str(error))
        except StopAsyncIteration:
            break
    assert sorted(received) == [True, 1, 2, 3]
    assert held[0] == 1
    assert max(held) <= 4


async def test_calls_run_in_copies_of_their_pulls_context() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(4):
            where.set(f"at {number}")
            yield number

    def swap_context(item: int) -> str:
        before = where.get()
        where.set("inside")
        return before

    capacity = CapacitySource(1)
    for options in ({}, {"cost": lambda _: 1}, {"thread": True}):
        map_options: Any = options
        async with SourceIterObj(items()).map_pool(
            swap_context, capacity, ordered=True, **map_options
        ) as results:
            assert [value async for value in results] == [f"at {number}" for number in range(4)]


async def test_cost_applies_to_every_call() -> None:
    capacity = CapacitySource(4)
    held: list[Any] = []

    async def work(item: int) -> int:
        held.append(capacity.held)
        await asyncio.sleep(0)
        return item

    async with SourceIterObj(range(6)).map_pool(work, capacity, cost=3) as results:
        assert sorted([item async for item in results]) == list(range(6))
    assert held == [3] * 6


async def test_options_are_passed_to_the_runner() -> None:
    calls: list[int] = []

    async def flaky(item: int) -> int:
        calls.append(item)
        if calls.count(item) == 1:
            raise ValueError(item)
        return item

    capacity = CapacitySource(1)
    results = PullMapPoolObj([1, 2], flaky, capacity, retry=Retry(backoff=0), ordered=True)
    assert await results.collect() == [1, 2]
    assert results.runner.snapshot().done == 2
    stopped = PullMapPoolObj([1, 5, 6], flaky, capacity, on_error="stop")
    assert await anext(stopped) == 1
    with pytest.raises(ValueError, match="5"):
        await anext(stopped)
    assert await stopped.collect() == []


@pytest.mark.parametrize("seed", range(5))
async def test_cancelled_pulls_lose_no_result(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def work(item: int) -> int:
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        return item

    received: list[int] = []
    options: Any = {"max_buffered": rng.choice((1, 5)), "ordered": rng.random() < 0.5}
    async with PullMapPoolObj(range(200), work, CapacitySource(7), **options) as results:
        while len(received) < 200:
            pulling = asyncio.ensure_future(anext(results))
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            pulling.cancel()
            try:
                received.append(await pulling)
            except asyncio.CancelledError:
                pass
    assert sorted(received) == list(range(200))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], 5, CapacitySource(1)), {}, r"fn must be callable, not 5 \(int\)"),
        ((5, double, CapacitySource(1)), {}, r"source must be .*5 \(int\)"),
        (([], double, None), {}, "capacity must be a CapacitySource"),
        (([], double, CapacitySource(1)), {"cost": 0}, "cost must be positive"),
        (([], double, CapacitySource(1)), {"thread": True}, "takes a plain function"),
        (([], double, CapacitySource(1)), {"speed": 5}, "speed"),
        (([], double, CapacitySource(1)), {"window": 5}, "window needs ordered"),
    ],
)
def test_bad_input_is_refused(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        PullMapPoolObj(*arguments, **options)


async def test_law_4_source_is_closed_by_its_pulling_task() -> None:
    """A timeout that a generator holds open across items belongs to the task that entered it."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def rows() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(3600):
                for n in range(9):
                    tasks.append(asyncio.current_task())
                    yield n
        finally:
            tasks.append(asyncio.current_task())

    gate = Gate()

    async def work(item: int) -> int:
        return await gate(item) if item else 0

    async with SourceIterObj(rows()).map_pool(work, CapacitySource(2)) as results:
        assert await anext(results) == 0
        await quiet()
    assert len(tasks) > 2
    assert len(set(tasks)) == 1


async def test_law_4_run_closes_its_source_on_request() -> None:
    for swap_context, closed in ((True, 1), (False, 0)):
        source = ScriptedSource([str, Delay(3600), str], closing=1)
        runner = HierarchicalTaskPoolRunner(source, CapacitySource(2))
        async with runner.run_tasks(close_source=swap_context) as progress:
            await anext(progress)
        assert (source.closed, source.closed_by <= source.pulled_by) == (closed, True)
    idle = HierarchicalTaskPoolRunner([str], CapacitySource(2))
    with pytest.raises(TypeError, match=r"close_source must be True or False, got 1 \(int\)"):
        idle.run_tasks(close_source=wrong(1))


async def test_law_2_cancelled_collect_puts_results_back() -> None:
    gate = Gate()

    async def work(item: int) -> int:
        return await gate(item) if item == 2 else item * 10

    results = SourceIterObj(range(3)).map_pool(work, CapacitySource(3))
    collecting = asyncio.ensure_future(results.collect())
    await quiet()
    collecting.cancel()
    await asyncio.wait([collecting])
    gate.open.set()
    assert await results.collect() == [0, 10, 20]
