"""Errors for common mistakes name the parameter, the value and the remedy."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Awaitable, Iterable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    closing,
)
from copy import copy
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    ClosedError,
    HierarchicalTaskPoolRunner,
    MapError,
    PullMapObj,
    PushPullBufferObj,
    Rate,
    SourceIterObj,
    Task,
    WouldDeadlock,
    WrongLoopError,
    amap,
)
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


async def fetch(page: int = 0) -> int:
    await asyncio.sleep(0)
    return page


async def pages() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            Task,
            r"fn must be callable, not <coroutine object fetch.*; give the function itself, uncalled",
        ),
        (
            lambda coroutine: PullMapObj([1], coroutine),
            r"transform must be callable, got <coroutine object fetch.*; give the function itself, uncalled",
        ),
        (
            SourceIterObj,
            r"iterable must be .*<coroutine object fetch.*; await it, and give what it returns",
        ),
    ],
    ids=["Task", "map", "source"],
)
def test_law_14_coroutine_instead_of_a_function(
    make: Callable[[Any], object], message: str
) -> None:
    with closing(fetch()) as coroutine, pytest.raises(TypeError, match=message):
        make(coroutine)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pages, r"source must be .*<function pages.*; call it, and give what it returns"),
        (
            PushPullBufferObj(),
            r"source must be .*<PushPullBufferObj.*; its items come out of its \.source",
        ),
        (5, r"source must be an iterable or an async iterable, got 5 \(int\)$"),
    ],
    ids=["generator function", "buffer", "number"],
)
def test_law_14_bad_source_error_names_the_remedy(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        HierarchicalTaskPoolRunner(value, CapacitySource(1))


async def test_bad_task_error_names_the_remedy() -> None:
    with closing(fetch()) as coroutine:
        refused: list[tuple[Any, str]] = [
            (
                coroutine,
                r"not <coroutine object fetch.*; give the function uncalled, as fetch or Task\(fetch, \.\.\.\)",
            ),
            ((fetch, 1), r"\(tuple\); arguments are given as Task\(fn, \*args\)"),
            ("fetch", r"not 'fetch' \(str\)$"),
        ]
        for value, message in refused:
            with pytest.raises(TypeError, match=message):
                await HierarchicalTaskPoolRunner([value], CapacitySource(1)).run()


@pytest.mark.parametrize(
    ("capacity", "options", "message"),
    [
        (
            CapacitySource(3),
            {"concurrency": 3},
            r"map_pool has no parameter 'concurrency', got 3 \(int\); it has cost, .*retry.* its capacity says how many",
        ),
        (
            CapacitySource(3),
            {"cost": {"token": 1}},
            r"'token' is limited neither by .*known there: slots$",
        ),
        (
            CapacitySource(3),
            {"cost": 5},
            r"a cost of 5 slots can never be granted: .* is 3; lower the cost or raise",
        ),
        (
            CapacitySource({"tokens": Rate(5)}),
            {},
            r"'slots' is limited neither .*known there: tokens; a cost that names no resource .*\{\"tokens\": 1\}",
        ),
    ],
    ids=["concurrency", "resource", "cost", "no slots"],
)
def test_law_14_map_pool_refuses_at_construction(
    capacity: CapacitySource, options: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        SourceIterObj([1]).map_pool(fetch, capacity, **options)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (20.5, r"made of this limit: CapacitySource\(limit\), .* got 20\.5 \(float\)"),
        (Rate(5), r"made of this limit: CapacitySource\(limit\), .* got Rate\("),
        ({"tokens": 5}, r"made of this limit: CapacitySource\(limit\), .* got {'tokens': 5}"),
        (asyncio.Semaphore(3), r"such as CapacitySource\(20\), .* \(Semaphore\)"),
        (-1, r"capacity must be at least 1, got -1"),
    ],
    ids=["float", "rate", "mapping", "semaphore", "negative"],
)
def test_law_14_bad_capacity_error_names_the_remedy(value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        SourceIterObj([1]).map_pool(fetch, value)


def test_law_14_limit_refuses_a_number() -> None:
    value: Any = 20
    with pytest.raises(TypeError, match=r"got 20 \(int\); for 20 slots, give CapacitySource\(20\)"):
        SourceIterObj([1]).limit(value)


def test_law_14_bad_limits_are_refused() -> None:
    with pytest.raises(
        TypeError,
        match=r"limit\['slots'\] must be a number, an AdaptiveLimit, a Rate or a Budget, got '5' \(str\)",
    ):
        CapacitySource({"slots": "5"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        TypeError,
        match=r"limit must be .*, or a mapping of resource to one of them, got '5' \(str\)",
    ):
        CapacitySource("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_law_5_unclosed_warning_names_the_remedy() -> None:
    held = [SourceIterObj(range(9)).map(fetch, concurrency=2)]
    await anext(held[0])
    with pytest.warns(
        ResourceWarning,
        match=r"unclosed <PullMapObj.*>; leave it with `async with`, or await its aclose\(\)",
    ):
        held.clear()
        gc.collect()
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_law_9_second_loop_error_names_the_remedy() -> None:
    async def pull() -> object:
        return await anext(run)

    async with HierarchicalTaskPoolRunner([fetch, fetch], CapacitySource(1)).run_tasks() as run:
        await anext(run)
        with pytest.raises(
            WrongLoopError,
            match="pull it there, and hand what it gives over in a PushPullBufferObj",
        ):
            await asyncio.to_thread(lambda: asyncio.run(pull()))


# Streams used as if they were not async.


@pytest.mark.parametrize("make", [SourceIterObj, lambda items: SourceIterObj(items).map(str)])
async def test_plain_for_names_the_remedy(make: Callable[[Any], Any]) -> None:
    stream = make([1])
    message = (
        r"object is not iterable: .* use `async for item in stream`, or `await stream.collect\(\)`"
    )
    with pytest.raises(TypeError, match=message):
        for _ in stream:
            pass
    for use in (list, iter, sum, sorted, lambda one: [*one]):
        with pytest.raises(TypeError, match=message):
            use(stream)
    # It does not look iterable for all that.
    assert not isinstance(stream, Iterable)
    assert not hasattr(stream, "__iter__")
    assert [item async for item in stream]


def test_class_with_an_iter_of_its_own_keeps_it() -> None:
    class Both(SourceIterObj[int]):
        def __iter__(self) -> Iterator[int]:
            return iter([7])

    class Later(SourceIterObj[int]):
        pass

    assert list(Both([1])) == [7]
    later: Any = Later([1])
    with pytest.raises(TypeError, match="'Later' object is not iterable: it is an async stream"):
        iter(later)
    Later.__iter__ = Both.__iter__  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert list(later) == [7]
    del Later.__iter__  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="is not iterable"):
        iter(later)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SourceIterObj([1]),
        lambda: SourceIterObj([1]).map_pool(fetch, 2),
        lambda: amap(fetch, [1], limit=2),
        lambda: HierarchicalTaskPoolRunner([fetch], 1).run_tasks(),
    ],
    ids=["source", "map_pool", "amap", "run"],
)
def test_plain_with_names_the_remedy(make: Callable[[], Any]) -> None:
    stream = make()
    with pytest.raises(TypeError, match="is an async stream: use `async with`"), stream:
        pass
    with pytest.raises(TypeError), ExitStack() as stack:
        stack.enter_context(stream)
    # It does not look like a context manager for all that.
    assert not hasattr(stream, "__enter__")
    assert not isinstance(stream, AbstractContextManager)
    assert isinstance(stream, AbstractAsyncContextManager)


def test_class_with_an_enter_of_its_own_keeps_it() -> None:
    class Both(SourceIterObj[int]):
        def __enter__(self) -> int:
            return 7

        def __exit__(self, *error: object) -> None: ...

    with Both([1]) as entered:
        assert entered == 7


async def test_await_of_a_stream_names_the_remedy() -> None:
    streams: list[Any] = [
        SourceIterObj([1]),
        SourceIterObj([1]).map(str),
        amap(fetch, [1], limit=2),
        HierarchicalTaskPoolRunner([fetch], 1).run_tasks(),
    ]
    message = (
        r"'\w+' object can't be used in 'await' expression: it is an async stream; "
        r"use `async for item in stream`, or `await stream.collect\(\)`"
    )
    for stream in streams:
        with pytest.raises(TypeError, match=message):
            await stream
        # It does not look awaitable for all that.
        assert not isinstance(stream, Awaitable)
        assert not inspect.isawaitable(stream)
        assert not hasattr(stream, "__await__")
    # A stream that a callable returns is an item.
    inner = SourceIterObj([1])
    assert await SourceIterObj([1]).map(lambda _: inner).collect() == [inner]
    assert await SourceIterObj([1]).map(lambda _: inner, concurrency=2).collect() == [inner]
    assert await SourceIterObj([1]).flat_map(lambda _: inner).collect() == [1]


async def test_class_with_an_await_of_its_own_keeps_it() -> None:
    class Both(SourceIterObj[int]):
        def __await__(self) -> Any:
            return self.collect().__await__()

    class Later(SourceIterObj[int]):
        pass

    class Below(Both):
        pass

    assert await Both([7]) == [7]
    assert await Below([7]) == [7]
    later: Any = Later([7])
    with pytest.raises(
        TypeError, match="'Later' object can't be used in 'await' expression: it is"
    ):
        await later
    Later.__await__ = Both.__await__  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert await later == [7]
    assert await SourceIterObj([1]).map(lambda _: Both([7])).collect() == [[7]]


@pytest.mark.filterwarnings("ignore:a terminal of a stream was never awaited:RuntimeWarning")
async def test_terminal_is_not_iterable_before_its_await() -> None:
    terminal: Any = SourceIterObj([1]).collect()
    for use in (list, dict, lambda one: [*one], lambda one: 1 in one):
        with pytest.raises(TypeError, match=r"'?Terminal'? .*is not iterable"):
            use(terminal)
    # The iterator of an awaitable is iterable: a function of older code may use `yield from`.
    assert await asyncio.ensure_future(terminal) == [1]
    again: Any = SourceIterObj([1]).collect()
    assert iter(again.__await__()) is again
    assert await again == [1]


@pytest.mark.filterwarnings("ignore:a terminal of a stream was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    ("use", "message"),
    [
        (SourceIterObj, "iterable must be an iterable .*; await it, and give what it returns"),
        (SourceIterObj([1]).merge, r"sources\[1\] must be an iterable .*; await it"),
        (lambda got: amap(fetch, got, limit=1), "items must be an iterable .*; await it"),
        (Task, "fn must be callable, .*; give the function itself, uncalled"),
        (len, "Terminal' has no len"),
    ],
    ids=["source", "merge", "amap", "task", "len"],
)
def test_terminal_without_await_is_refused(use: Callable[[Any], object], message: str) -> None:
    terminal = SourceIterObj([1]).collect()
    with pytest.raises(TypeError, match=message):
        use(terminal)


async def test_terminal_awaited_twice() -> None:
    terminal = SourceIterObj([1]).collect()
    await terminal
    with pytest.raises(RuntimeError, match="cannot reuse an awaitable that was already awaited"):
        await terminal


def test_terminal_never_awaited() -> None:
    with pytest.warns(RuntimeWarning, match=r"never awaited: write `await stream.collect\(\)`"):
        _ = SourceIterObj([1]).collect()
        del _
        gc.collect()


# Options.

STREAM: Any = SourceIterObj([1])
MAP: Any = amap


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: STREAM.map_pool(fetch), "missing 1 required positional argument: 'capacity'"),
        (lambda: MAP(fetch, [1]), "missing 1 required keyword-only argument: 'limit'"),
        (lambda: MAP(fetch, [1], 20), "takes 2 positional arguments but 3 were given"),
        (lambda: STREAM.map(fetch, concurrency=0), "concurrency must be at least 1, got 0"),
        (lambda: STREAM.map(fetch, concurrency="4"), "concurrency must be an integer, got '4'"),
        (
            lambda: STREAM.map_pool(fetch, 2, retry="3"),
            "retry must be a Retry, a number of retries",
        ),
        (
            lambda: STREAM.map_pool(fetch, 2, timeout="3"),
            "timeout must be a number of seconds or None",
        ),
        (lambda: STREAM.map_pool(fetch, 2, thread=True), "thread=True takes a plain function"),
        (lambda: STREAM.batch("5"), r"size must be an integer, got '5' \(str\)"),
        (lambda: STREAM.batch(0), "size must be at least 1"),
        (lambda: STREAM.take(1.5), r"size must be an integer, got 1.5 \(float\)"),
        (lambda: STREAM.throttle("10"), r"rate must be a number, got '10' \(str\)"),
        (lambda: STREAM.timeout("1"), r"timeout must be a number, got '1' \(str\)"),
        (lambda: STREAM.filter(None), r"predicate must be callable, got None"),
        (
            lambda: STREAM.catch(ValueError),
            r"handler must be a function .* isinstance\(error, ValueError\)",
        ),
        (lambda: STREAM.zip(5), r"sources\[1\] must be an iterable or an async iterable, not 5"),
        (
            lambda: STREAM.drain_to([]),
            r"sink must be a push object, got \[\] \(list\), which has no next",
        ),
        (lambda: copy(STREAM), r"cannot be copied .*; build another one, or tee\(\) a stream"),
    ],
)
def test_law_14_wrong_option_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


# Streams and capacities used twice.


async def test_stream_of_an_iterator_cannot_restart() -> None:
    stream = SourceIterObj(iter([1]))
    await stream.collect()
    with pytest.raises(RuntimeError, match="is an iterator, which runs once; give a list, a range"):
        stream.restart()


async def test_first_of_a_stream_that_has_ended() -> None:
    stream = SourceIterObj([1])
    await stream.collect()
    with pytest.raises(LookupError, match="which is at its end; give a default"):
        await stream.first()


async def test_second_run_of_a_runner_that_runs() -> None:
    runner = HierarchicalTaskPoolRunner([fetch], 1)
    async with runner.run_tasks():
        with pytest.raises(RuntimeError, match="running already; leave that run first"):
            async with runner.run_tasks():
                pass


async def test_push_after_the_end_returns_the_item() -> None:
    buffer = PushPullBufferObj[int](2)
    await buffer.sink.return_()
    with pytest.raises(
        ClosedError, match="pushed after the end; the item is in this error's `item`"
    ) as caught:
        await buffer.sink.next(2)
    assert caught.value.item == 2


async def test_lease_inside_a_lease_names_the_remedy() -> None:
    capacity = CapacitySource(1)
    async with capacity.acquire():
        with pytest.raises(WouldDeadlock, match="first release it, or suspend it"):
            await capacity.acquire()


async def test_function_with_other_parameters() -> None:
    async def two(first: int, second: int) -> int:
        return first + second

    function: Any = two
    with pytest.raises(MapError) as caught:
        await amap(function, [(1, 2)], limit=1, retry=3).collect()
    (failure,) = caught.value.failures
    assert "missing 1 required positional argument: 'second'" in str(failure.error)
    # A mistake is not repeated.
    assert failure.attempts == 1
