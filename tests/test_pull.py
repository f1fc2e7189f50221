"""The pull driver with map, filter, reduce and dedupe, by law."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    DependencyGraph,
    DependencySourceObj,
    IteratorResult,
    PrioritySourceObj,
    PullFilterObj,
    PullMapObj,
    PullObj,
    PushPullBufferObj,
    SourceBufferObj,
    SourceIterObj,
    WrongLoopError,
)
from tests.support import Gate, Heart, collect, until, wrong, yield_to_loop

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


@pytest.mark.parametrize("start", [0, 5, -2])
async def test_enumerate_is_that_of_python(start: int) -> None:
    stream = SourceIterObj("abc").enumerate(start)
    assert await stream.collect() == list(enumerate("abc", start))
    stream.restart()
    assert await anext(stream) == (start, "a")
    with pytest.raises(TypeError, match=r"start must be an integer, got '1' \(str\)"):
        SourceIterObj("abc").enumerate(wrong("1"))


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
