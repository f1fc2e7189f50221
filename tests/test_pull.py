"""The pull driver with map, filter, reduce and dedupe, by law."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import operator
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    ClosedError,
    DependencyGraph,
    DependencySourceObj,
    IteratorResult,
    PrioritySourceObj,
    PullDedupeObj,
    PullFilterObj,
    PullMapObj,
    PullObj,
    PullObj1To1Link,
    PullReduceObj,
    PushPullBufferObj,
    SourceBufferObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
    WrongLoopError,
)
from tests.support import (
    Gate,
    Heart,
    collect,
    collect_with_cancellations,
    step_into,
    until,
    wrong,
    yield_to_loop,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


async def test_map_squares_a_buffer() -> None:
    squares = PullMapObj(SourceBufferObj([1, 2, 3, 4, 5]), lambda n: n * n)
    assert await collect(squares) == [1, 4, 9, 16, 25]


async def test_next_returns_results_and_then_ends() -> None:
    stream = SourceBufferObj(["a"])
    assert await stream.next() == IteratorResult("a", False)
    assert await stream.next() == IteratorResult(None, True)
    assert await stream.next() == IteratorResult(None, True)
    value, done = IteratorResult(7, False)
    assert (value, done) == (7, False)
    match await stream.next():
        case IteratorResult(done=True):
            pass
        case other:
            pytest.fail(f"{other!r} is not the end")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_sync_and_async_callables_are_equivalent(kind: str) -> None:
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    async def even(n: int) -> bool:
        return n % 2 == 0

    source = SourceIterObj(range(10))
    stream: PullObj[int] = (
        source.filter(even).map(double)
        if kind == "async"
        else source.filter(lambda n: n % 2 == 0).map(lambda n: n * 2)
    )
    assert await collect(stream) == [0, 4, 8, 12, 16]


async def test_any_awaitable_of_a_callable_is_awaited() -> None:
    loop = asyncio.get_running_loop()

    def later(n: int) -> Awaitable[int]:
        future = loop.create_future()
        loop.call_soon(future.set_result, n + 1)
        return future

    assert await collect(SourceIterObj([1, 2]).map(later)) == [2, 3]


async def test_exceptions_and_tuples_are_valid_items() -> None:
    items: list[Any] = [None, (1, 2), ValueError("v"), StopIteration(3), StopAsyncIteration(), ()]
    received = await collect(SourceIterObj(items))
    assert all(got is item for got, item in zip(received, items, strict=True))


@pytest.mark.parametrize(
    "make", [lambda: iter(range(3)), lambda: (n for n in range(3)), lambda: range(3)]
)
async def test_any_sync_iterable_is_a_source(make: Callable[[], Any]) -> None:
    assert await collect(PullMapObj(make(), str)) == ["0", "1", "2"]


async def test_any_async_iterable_is_a_source() -> None:
    async def generator() -> AsyncIterator[int]:
        for n in range(4):
            if n % 2:
                await asyncio.sleep(0)
            yield n

    class Iterator:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Iterator:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            await asyncio.sleep(0)
            return self.left

    assert await collect(PullFilterObj(generator(), lambda n: n != 1)) == [0, 2, 3]
    assert await collect(SourceIterObj(Iterator())) == [2, 1, 0]


async def test_law_1_nothing_upstream_runs_before_a_pull() -> None:
    pulled: list[int] = []

    def source() -> Any:
        for n in range(5):
            pulled.append(n)
            yield n

    stream = SourceIterObj(source()).map(lambda n: n)
    awaitable = anext(stream)
    assert pulled == []
    assert await awaitable == 0
    assert pulled == [0]
    assert await anext(stream) == 1
    assert pulled == [0, 1]


async def test_law_1_unawaited_pull_takes_nothing() -> None:
    stream = SourceIterObj([1, 2, 3])
    never = anext(stream)
    del never
    task = asyncio.ensure_future(anext(stream))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    left = await collect(stream)
    # An eager task runs at once and receives its item before the cancellation.
    assert left == [1, 2, 3] or (
        task.done() and not task.cancelled() and [task.result(), *left] == [1, 2, 3]
    )


async def test_law_2_cancelled_callable_is_called_again() -> None:
    gate = Gate()
    stream = SourceIterObj([1, 2, 3]).map(gate)
    for _ in range(3):
        task = asyncio.ensure_future(anext(stream))
        await until(lambda: bool(gate.calls))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.open.set()
    assert await collect(stream) == [10, 20, 30]
    assert sorted(set(gate.calls)) == [1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
async def test_law_2_cancelled_at_random_loses_nothing(seed: int) -> None:
    rng = random.Random(seed)
    print("seed", seed)

    async def slow(n: int) -> int:
        await yield_to_loop(n % 4)
        return n

    async def keep(n: int) -> bool:
        await yield_to_loop(n % 3)
        return n % 5 != 0

    stream = SourceIterObj(range(60)).map(slow).filter(keep).map(slow)
    received, cancelled = await collect_with_cancellations(stream, rng, 12, spare=3)
    assert received == [n for n in range(60) if n % 5]
    assert cancelled > 10


async def test_law_2_wait_for_delivers_every_item() -> None:
    async def slow(n: int) -> int:
        await yield_to_loop(5)
        return n

    stream = SourceIterObj(range(200)).map(slow)
    received: list[int] = []
    tries = 0
    while len(received) < 200:
        tries += 1
        with contextlib.suppress(TimeoutError):
            received.append(await asyncio.wait_for(anext(stream), 0 if tries % 2 else 10))
    assert received == list(range(200))


async def test_law_2_pull_dropped_in_a_callable_keeps_its_item() -> None:
    gate = Gate()
    stream = SourceIterObj([1, 2]).map(gate)
    pull = anext(stream)
    pull.send(None)
    del pull
    gc.collect()
    gate.open.set()
    assert await collect(stream) == [10, 20]
    assert gate.calls == [1, 1, 2]


async def test_law_2_callable_may_handle_its_own_timeout() -> None:
    async def impatient(n: int) -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return f"gave up on {n}"
        return "never"

    assert await collect(SourceIterObj([1, 2]).map(impatient)) == ["gave up on 1", "gave up on 2"]


async def test_law_2_raised_cancelled_error_costs_one_item() -> None:
    calls: list[int] = []

    async def fickle(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0)
        if n == 2:
            raise asyncio.CancelledError("mine")
        return n

    stream = SourceIterObj([1, 2, 3]).map(fickle)
    assert await anext(stream) == 1
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await anext(stream)
    assert await collect(stream) == [3]
    assert calls == [1, 2, 3]


async def test_law_2_callable_may_suppress_cancellation() -> None:
    async def stubborn(n: int) -> int:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return n

    stream = SourceIterObj([1, 2]).map(stubborn)
    task = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
    task.cancel()
    assert await task == 1


async def test_law_2_cancelled_generator_raises_at_next_pull() -> None:
    closed: list[bool] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.append(True)

    stream = SourceIterObj(generator()).map(lambda n: n)
    assert await anext(stream) == 0
    task = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]
    with pytest.raises(SourceCancelledError):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_2_generator_may_survive_cancellation() -> None:
    async def generator() -> AsyncIterator[str]:
        yield "first"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "caught"
        yield "last"

    stream = SourceIterObj(generator())
    assert await anext(stream) == "first"
    task = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
    task.cancel()
    assert await task == "caught"
    assert await collect(stream) == ["last"]


@pytest.mark.parametrize("taken", [0, 1])
async def test_pull_dropped_in_a_generator_is_an_error(taken: int) -> None:
    closed: list[bool] = []

    async def generator() -> AsyncIterator[int]:
        try:
            for n in range(taken):
                yield n
            await asyncio.Event().wait()
            yield -1
        finally:
            closed.append(True)

    source = generator()
    stream = SourceIterObj(source)
    for n in range(taken):
        assert await anext(stream) == n
    pull = anext(stream)
    step_into(source, pull)
    del pull
    gc.collect()
    with pytest.raises(SourceCancelledError):
        await anext(stream)
    await stream.aclose()
    assert closed == [True]


async def test_law_3_error_costs_one_item_and_has_one_note() -> None:
    error = ValueError("bad")

    def picky(n: int) -> int:
        if n % 2:
            raise error
        return n

    stream = SourceIterObj(range(4)).map(picky)
    received: list[Any] = []
    for _ in range(4):
        try:
            received.append(await anext(stream))
        except ValueError as caught:
            received.append(caught)
    assert received == [0, error, 2, error]
    assert error.__notes__ == ["raised by transform of PullMapObj"]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
@pytest.mark.parametrize("is_async", [False, True])
async def test_law_3_iteration_error_becomes_runtime_error(
    kind: type[BaseException], is_async: bool
) -> None:
    def sync(n: int) -> int:
        raise kind

    async def asynchronous(n: int) -> int:
        await asyncio.sleep(0)
        raise kind

    stream = SourceIterObj([1]).map(asynchronous if is_async else sync)
    with pytest.raises(RuntimeError) as caught:
        await anext(stream)
    cause = caught.value.__cause__
    # A coroutine turns StopIteration into a RuntimeError by itself.
    assert isinstance(cause, kind) or isinstance(caught.value.__context__, kind)
    assert await collect(stream) == []


def test_law_3_keyboard_interrupt_propagates() -> None:
    async def main() -> None:
        def interrupt(n: int) -> int:
            raise KeyboardInterrupt

        await anext(SourceIterObj([1]).map(interrupt))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


async def test_law_4_closing_cancels_a_pull_in_its_own_task() -> None:
    cleaned: list[Any] = []

    async def stuck(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(asyncio.current_task())
        return n

    stream = SourceIterObj([1, 2]).map(stuck)
    first = asyncio.create_task(anext(stream))
    second = asyncio.create_task(anext(stream))
    await yield_to_loop(2)
    await stream.aclose()
    assert cleaned == [first]
    with pytest.raises(ClosedError):
        await first
    with pytest.raises(ClosedError):
        await second
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_4_closing_runs_from_consumer_to_source() -> None:
    order: list[str] = []

    class Noisy(PullObj1To1Link[Any, Any]):
        def __init__(self, source: Any, name: str) -> None:
            super().__init__(source)
            self.name = name

        async def pull_impl(self) -> AsyncIterator[Any]:
            try:
                async for item in self.source:
                    yield item
            finally:
                order.append(self.name)

    async def generator() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            order.append("source")

    async with Noisy(PullMapObj(Noisy(generator(), "upper"), str), "lower") as stream:
        assert await anext(stream) == "1"
    assert order == ["lower", "upper", "source"]


async def test_law_4_error_of_the_block_notes_closing_errors() -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise OSError("disk")

    stream = SourceIterObj(generator())
    with pytest.raises(KeyError) as caught:
        async with stream:
            await anext(stream)
            raise KeyError("body")
    assert caught.value.__notes__ == ["while closing: OSError('disk')"]


async def test_law_4_closing_a_middle_stage_ends_the_pull() -> None:
    cleaned: list[Any] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(asyncio.current_task())

    source = SourceIterObj(generator())
    last = source.map(lambda n: n).map(lambda n: n)
    assert await anext(last) == 1
    pull = asyncio.create_task(anext(last))
    await yield_to_loop(3)
    await source.aclose()
    assert cleaned == [pull]
    with pytest.raises(ClosedError):
        await pull
    assert await collect(last) == []


def test_law_4_interrupt_during_closing_is_raised() -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyboardInterrupt

    async def main() -> None:
        async with SourceIterObj(generator()) as stream:
            await anext(stream)
            raise ValueError("body")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


async def test_law_4_closing_from_own_callable_is_refused() -> None:
    async def close_own_stream(n: int) -> int:
        await stream.aclose()
        return n

    stream = SourceIterObj([1]).map(close_own_stream)
    with pytest.raises(RuntimeError, match="inside its own callable"):
        await anext(stream)


async def test_law_5_dropped_stream_is_freed_at_once() -> None:
    class Item:
        pass

    gc.collect()
    gc.disable()
    try:
        stream = SourceIterObj([Item() for _ in range(3)]).map(lambda item: item)
        item = await anext(stream)
        stream_ref = weakref.ref(stream)
        item_ref = weakref.ref(item)
        del stream, item
        assert stream_ref() is None
        assert item_ref() is None
    finally:
        gc.enable()


async def test_law_5_cycles_through_a_stream_are_collected() -> None:
    class Holder:
        stream: Any

        def step(self, n: int) -> int:
            return n

    holder = Holder()
    holder.stream = SourceIterObj([1, 2]).map(holder.step)
    assert await anext(holder.stream) == 1
    stream_ref = weakref.ref(holder)
    del holder
    gc.collect()
    assert stream_ref() is None


async def test_law_9_other_loop_is_refused_during_a_pull() -> None:
    gate = Gate()
    stream = SourceIterObj([1, 2]).map(gate)
    task = asyncio.ensure_future(anext(stream))
    await until(lambda: bool(gate.calls))

    def elsewhere() -> None:
        with pytest.raises(WrongLoopError):
            asyncio.run(_pull_one(stream))

    await asyncio.to_thread(elsewhere)
    gate.open.set()
    assert await task == 10


async def test_law_9_other_thread_is_refused_between_pulls() -> None:
    stream = SourceIterObj(range(3)).map(lambda n: n)
    assert await anext(stream) == 0

    def elsewhere() -> None:
        with pytest.raises(WrongLoopError):
            asyncio.run(_pull_one(stream))

    await asyncio.to_thread(elsewhere)
    assert await collect(stream) == [1, 2]
    stream.restart()
    assert await asyncio.to_thread(lambda: asyncio.run(_pull_one(stream))) == 0


async def _pull_one(stream: Any) -> Any:
    return await anext(stream)


async def test_law_11_iteration_continues_where_it_stopped() -> None:
    stream = SourceIterObj(range(6))
    assert aiter(stream) is stream
    async for item in stream:
        if item == 2:
            break
    assert await collect(stream) == [3, 4, 5]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_law_11_restart_uses_the_current_settings() -> None:
    stream = PullMapObj(range(3), lambda n: n)
    assert await collect(stream) == [0, 1, 2]
    stream.transform = lambda n: -n
    stream.restart()
    assert await collect(stream) == [0, -1, -2]


async def test_law_11_restart_refuses_an_iterator() -> None:
    once = SourceIterObj(iter([1]))
    with pytest.raises(RuntimeError, match="iterator, which runs once"):
        once.restart()


@pytest.mark.parametrize("stages_above", [0, 1, 5])
async def test_law_11_restart_during_a_pull_is_refused(stages_above: int) -> None:
    gate = Gate()
    stream: PullObj[int] = SourceIterObj([1, 2, 3]).skip(1).map(gate)
    for _ in range(stages_above):
        stream = stream.map(lambda n: n)
    task = asyncio.ensure_future(anext(stream))
    await until(lambda: bool(gate.calls))
    with pytest.raises(RuntimeError, match="a pull is pending"):
        stream.restart()
    gate.open.set()
    assert await task == 20
    # Neither the source nor the skipping starts again.
    assert await collect(stream) == [30]


async def test_law_12_pulls_are_served_in_order_of_first_step() -> None:
    async def slow(n: int) -> int:
        await yield_to_loop(3 - n % 3)
        return n

    stream = SourceIterObj(range(100)).map(slow)
    served: list[tuple[int, int]] = []

    async def puller(number: int) -> None:
        for _ in range(20):
            served.append((number, await anext(stream)))

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(puller(number))
    assert [item for _, item in served] == list(range(100))
    assert [number for number, _ in served[:5]] == [0, 1, 2, 3, 4]


async def test_law_12_cancelled_pull_leaves_the_wait_queue() -> None:
    gate = Gate()
    stream = SourceIterObj(range(4)).map(gate)
    tasks = [asyncio.create_task(anext(stream)) for _ in range(4)]
    await until(lambda: bool(gate.calls))
    tasks[1].cancel()
    tasks[0].cancel()
    await yield_to_loop(3)
    gate.open.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:2]] == [asyncio.CancelledError] * 2
    assert outcomes[2:] == [0, 10]


async def test_law_12_pull_from_own_callable_is_refused() -> None:
    async def greedy(n: int) -> int:
        await asyncio.sleep(0)
        return n + await anext(stream)

    stream: PullMapObj[int, int] = SourceIterObj(range(4)).map(greedy)
    with pytest.raises(RuntimeError, match="being pulled already"):
        await anext(stream)


async def test_law_13_new_callable_applies_from_next_item() -> None:
    first = PullMapObj(range(6), lambda n: ("old", n))
    second = PullFilterObj(first, lambda _: True)
    last = PullMapObj(second, lambda item: item)
    assert await anext(last) == ("old", 0)
    first.transform = lambda n: ("new", n)
    assert await anext(last) == ("new", 1)
    second.predicate = lambda item: item[1] > 3
    assert await anext(last) == ("new", 4)
    with pytest.raises(TypeError, match=r"transform must be callable, got 3 \(int\)"):
        first.transform = wrong(3)
    assert await anext(last) == ("new", 5)


async def test_law_16_ready_stream_yields_to_the_loop() -> None:
    async with Heart() as heart:
        count = 0
        async for _ in SourceIterObj(range(50_000)).map(lambda n: n):
            count += 1
    assert count == 50_000
    # At least once in 4,096 items, independent of the time.
    assert heart.beats >= 50_000 // 4096


async def test_law_16_budget_belongs_to_the_task() -> None:
    async with Heart() as heart:
        # Each stream yields one item, so none of them could spend a budget of its own.
        for _ in range(20_000):
            await anext(SourceBufferObj([1]))
    assert heart.beats >= 20_000 // 4096


async def test_law_17_ten_thousand_stages_run_and_close() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(10_000):
        stream = stream.map(lambda n: n + 1)
    assert await anext(stream) == 10_000
    assert await collect(stream) == [10_001, 10_002]
    stream.restart()
    assert await anext(stream) == 10_000
    await stream.return_()
    del stream
    gc.collect()


async def test_two_consumers_share_a_stage() -> None:
    source = SourceIterObj(range(6))
    tens = source.map(lambda n: n * 10)
    left, right = tens.map(lambda n: ("left", n)), tens.map(lambda n: ("right", n))
    assert await anext(left) == ("left", 0)
    assert await anext(right) == ("right", 10)
    assert await anext(tens) == 20
    assert await anext(source) == 3
    assert await collect(left) == [("left", 40), ("left", 50)]


async def test_middle_stage_of_a_pipeline_can_be_pulled() -> None:
    middle = SourceIterObj(range(6)).map(lambda n: n * 10)
    last = middle.map(lambda n: n + 1)
    assert await anext(last) == 1
    assert await anext(middle) == 10
    assert await anext(last) == 21
    assert await anext(middle) == 30
    assert await collect(last) == [41, 51]


async def test_callable_may_pull_its_own_source() -> None:
    middle = SourceIterObj(range(6)).map(lambda n: n * 10)

    async def pair(n: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return n, await anext(middle)

    assert await collect(middle.map(pair)) == [(0, 10), (20, 30), (40, 50)]


async def test_pull_of_the_middle_waits_for_a_pending_pull() -> None:
    gate = Gate()
    middle = SourceIterObj(range(3)).map(gate)
    last = middle.map(lambda n: n + 1)
    outer = asyncio.create_task(anext(last))
    await until(lambda: bool(gate.calls))
    inner = asyncio.create_task(anext(middle))
    await yield_to_loop(3)
    assert gate.calls == [0]
    gate.open.set()
    assert (await outer, await inner) == (1, 10)
    assert await collect(last) == [21]


async def test_item_kept_in_the_middle_outlives_later_stages() -> None:
    gate = Gate()
    middle = SourceIterObj([1, 2]).map(gate)
    last = middle.map(lambda n: n)
    task = asyncio.ensure_future(anext(last))
    await until(lambda: bool(gate.calls))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del last, task
    gc.collect()
    gate.open.set()
    assert await collect(middle) == [10, 20]


async def test_pull_impl_works_anywhere_in_a_pipeline() -> None:
    class Twice(PullObj1To1Link[int, int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            async for item in self.source:
                yield item
                yield item

    class Count(SourceObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            for n in range(3):
                await asyncio.sleep(0)
                yield n

    stream = Twice(Count().map(lambda n: n + 1)).filter(lambda n: n != 2).map(str)
    assert await collect(stream) == ["1", "1", "3", "3"]
    stream.restart()
    assert await collect(stream) == ["1", "1", "3", "3"]


async def test_subclass_may_extend_pull_impl() -> None:
    class Logged(PullMapObj[int, int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            async for item in super().pull_impl():
                logged.append(item)
                yield item

    logged: list[int] = []
    assert await collect(Logged([1, 2], lambda n: n * 2).map(str)) == ["2", "4"]
    assert logged == [2, 4]


async def test_overriding_next_or_anext_overrides_both() -> None:
    class ByNext(SourceObj[int]):
        left = 2

        async def next(self) -> IteratorResult[int]:
            if not self.left:
                return IteratorResult(0, True)
            self.left -= 1
            return IteratorResult(self.left, False)

    class ByAnext(SourceObj[int]):
        left = 2

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    for kind in (ByNext, ByAnext):
        assert await collect(kind().map(str)) == ["1", "0"]
        assert (await kind().next()).value == 1
        assert await anext(kind()) == 1


async def test_return_and_throw_call_a_source_override() -> None:
    class Source(SourceIterObj[int]):
        def __init__(self) -> None:
            super().__init__(range(10))
            self.ended: list[Any] = []

        async def return_(self, value: Any = None) -> IteratorResult[Any]:
            self.ended.append(value)
            return await super().return_(value)

        async def throw(self, error: BaseException) -> IteratorResult[Any]:
            self.ended.append(error)
            return await super().throw(error)

    source = Source()
    stream = source.map(str)
    assert await anext(stream) == "0"
    assert await stream.return_("enough") == IteratorResult("enough", True)
    assert await stream.next() == IteratorResult(None, True)
    error = KeyError("x")
    other = Source()
    with pytest.raises(KeyError):
        await other.map(str).throw(error)
    assert (source.ended, other.ended) == (["enough"], [error])


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: PullMapObj([1], wrong(3)),
            TypeError,
            r"transform must be callable, got 3 \(int\)",
        ),
        (
            lambda: PullFilterObj([1], wrong(None)),
            TypeError,
            r"predicate must be callable, got None \(NoneType\)",
        ),
        (
            lambda: PullMapObj(wrong(7), str),
            TypeError,
            r"source must be an iterable or an async iterable, got 7 \(int\)",
        ),
        (
            lambda: SourceBufferObj(wrong(5)),
            TypeError,
            r"items must be an iterable or an async iterable, got 5 \(int\)",
        ),
        (
            lambda: SourceIterObj(wrong(None)),
            TypeError,
            r"iterable must be an iterable or an async iterable, got None",
        ),
    ],
)
def test_law_14_bad_input_fails_at_construction(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


async def test_class_without_items_names_the_method_to_write() -> None:
    with pytest.raises(NotImplementedError, match="override pull_impl"):
        await anext(SourceObj[int]())


async def test_source_continues_after_an_iterator_error() -> None:
    class Flaky:
        def __init__(self) -> None:
            self.n = 0

        def __iter__(self) -> Flaky:
            return self

        def __next__(self) -> int:
            self.n += 1
            if self.n == 2:
                raise OSError("once")
            if self.n > 3:
                raise StopIteration
            return self.n

    stream = SourceIterObj(Flaky())
    assert await anext(stream) == 1
    with pytest.raises(OSError, match="once"):
        await anext(stream)
    assert await collect(stream) == [3]


async def test_buffer_source_accepts_items_while_running() -> None:
    stream = SourceBufferObj([1])
    assert await anext(stream) == 1
    stream.buffer.append(2)
    assert await anext(stream) == 2
    assert await collect(stream) == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_reduce_yields_each_running_result(is_async: bool) -> None:
    async def add(left: int, right: int) -> int:
        await asyncio.sleep(0)
        return left + right

    reducer: Callable[[Any, int], Any] = add if is_async else operator.add
    items = [3, 1, 4, 1, 5]
    assert await collect(PullReduceObj(items, reducer)) == list(itertools.accumulate(items))
    begun = SourceIterObj(items).accumulate(reducer, 100)
    assert await collect(begun) == list(itertools.accumulate(items, initial=100))[1:]
    begun.restart()
    assert await collect(begun) == list(itertools.accumulate(items, initial=100))[1:]
    assert await collect(PullReduceObj([], reducer, 1)) == []


async def test_reduce_law_2_cancelled_reducer_is_called_again() -> None:
    calls: list[tuple[int, int]] = []
    gate = asyncio.Event()

    async def add(left: int, right: int) -> int:
        calls.append((left, right))
        await gate.wait()
        return left + right

    stream = PullReduceObj([1, 2, 3], add, 10)
    task = asyncio.ensure_future(anext(stream))
    await until(lambda: bool(calls))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await collect(stream) == [11, 13, 16]
    assert calls == [(10, 1), (10, 1), (11, 2), (13, 3)]


async def test_reduce_law_3_error_costs_one_item_and_no_state() -> None:
    def divide(left: int, right: int) -> int:
        return left // right

    stream = PullReduceObj([2, 0, 5], divide, 100)
    assert await anext(stream) == 50
    with pytest.raises(ZeroDivisionError) as caught:
        await anext(stream)
    assert caught.value.__notes__ == ["raised by reducer of PullReduceObj"]
    assert await collect(stream) == [10]


async def test_reduce_law_13_accumulator_and_reducer_are_live() -> None:
    stream = PullReduceObj(range(1, 6), operator.add)
    assert (stream.accumulator, await anext(stream), await anext(stream)) == (None, 1, 3)
    stream.accumulator = 100
    assert await anext(stream) == 103
    stream.reducer = operator.mul
    assert await anext(stream) == 412
    with pytest.raises(TypeError, match=r"reducer must be callable, got 3 \(int\)"):
        PullReduceObj([1], wrong(3))


async def test_reduce_law_17_ten_thousand_stages() -> None:
    stream: PullObj[int] = SourceIterObj([1, 2])
    for _ in range(10_000):
        stream = stream.accumulate(operator.add)
    assert await collect(stream) == [1, 10_002]


@pytest.mark.parametrize("is_async", [False, True])
async def test_dedupe_yields_each_item_once(is_async: bool) -> None:
    async def parity(n: int) -> int:
        await asyncio.sleep(0)
        return n % 3

    key: Callable[[int], Any] = parity if is_async else lambda n: n % 3
    items = [3, 1, 3, 4, 1, 5, 9, 2]
    assert await collect(PullDedupeObj(items)) == list(dict.fromkeys(items))
    assert await collect(PullDedupeObj(items, key=key)) == [3, 1, 5]
    repeated = SourceIterObj([1, 1, 2, 2, 1]).dedupe(consecutive=True)
    assert await collect(repeated) == [1, 2, 1]
    repeated.restart()
    assert await collect(repeated) == [1, 2, 1]


async def test_dedupe_law_6_forgets_the_least_recent_key() -> None:
    # The key 1 is seen again, so 2 is the oldest one when 3 arrives.
    assert await collect(PullDedupeObj([1, 2, 1, 3, 1, 2], maxsize=2)) == [1, 2, 3, 2]


async def test_dedupe_law_3_unhashable_key_costs_its_item() -> None:
    stream = PullDedupeObj(wrong([1, [2], 3]))
    assert await anext(stream) == 1
    with pytest.raises(TypeError, match="unhashable"):
        await anext(stream)
    assert await collect(stream) == [3]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"key": 3}, TypeError, r"key must be callable, got 3 \(int\)"),
        ({"maxsize": 0}, ValueError, "maxsize must be at least 1"),
        ({"maxsize": 2, "consecutive": True}, ValueError, "no meaning with consecutive"),
    ],
)
def test_dedupe_law_14_bad_input_is_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        PullDedupeObj([1], **options)


async def test_dedupe_law_5_cycle_through_keys_is_collected() -> None:
    class Item:
        stream: Any

    item = Item()
    item.stream = PullDedupeObj([item, item])
    assert await anext(item.stream) is item
    stream_ref = weakref.ref(item)
    del item
    gc.collect()
    assert stream_ref() is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: SourceBufferObj[int]([]),
        lambda: SourceIterObj([1]).map(str).batch(2),
        lambda: SourceIterObj([]).merge([]),
        lambda: SourceIterObj([1]).tee(2)[0],
        PrioritySourceObj[int],
        lambda: DependencySourceObj(DependencyGraph()),
        lambda: PushPullBufferObj[int]().source,
    ],
)
def test_stream_is_truthy_and_no_container(
    make: Callable[[], PullObj[Any]],
) -> None:
    stream = make()
    assert bool(stream)
    for name in ("__len__", "__iter__", "__await__", "__getitem__", "__contains__"):
        assert not hasattr(stream, name)


def test_no_public_stream_class_is_a_container() -> None:
    kinds = [getattr(headrace, name) for name in dir(headrace)]
    streams = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, PullObj)]
    assert len(streams) > 30
    for stream in streams:
        for name in ("__bool__", "__len__", "__iter__", "__await__"):
            assert not hasattr(stream, name), (stream, name)
