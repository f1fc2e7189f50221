"""`map` with a concurrency, by law: concurrent calls, and calls that outlive the pull that started them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullMapObj,
    PullObj,
    PushPullBufferObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
    WrongLoopError,
)
from tests.concurrent_sources import VARIANTS, Gauge, RecordedSource, slow, sources
from tests.support import Heart, collect, until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["sync", "async", "mixed", "awaitable", "ready"])
async def test_law_7_results_match_a_sequential_loop(variant: dict[str, Any], kind: str) -> None:
    class Later:
        def __init__(self, n: int) -> None:
            self.n = n

        def __await__(self) -> Generator[Any, None, int]:
            yield from asyncio.sleep(0).__await__()
            return self.n * 10

    async def ready(n: int) -> int:
        return n * 10

    transforms: dict[str, Callable[[int], Any]] = {
        "sync": lambda n: n * 10,
        "async": slow,
        "mixed": lambda n: slow(n) if n % 3 else n * 10,
        "awaitable": Later,
        "ready": ready,
    }
    for source in sources(23):
        results = await collect(PullMapObj(source, transforms[kind], **variant))
        if not variant.get("ordered", True):
            results.sort()
        assert results == [n * 10 for n in range(23)]


async def test_several_concurrent_maps_in_a_pipeline() -> None:
    stream = (
        SourceIterObj(range(40))
        .filter(lambda n: n % 2)
        .map(slow, concurrency=3)
        .map(lambda n: n // 10)
        .map(slow, concurrency=4, window=30)
        .filter(lambda n: n % 3)
        .batch(3)
        .flatten()
    )
    assert await collect(stream) == [n * 10 for n in range(40) if n % 2 and n * 10 % 3]


async def test_concurrency_1_with_retry_is_the_plain_map() -> None:
    async def first(n: int) -> asyncio.Task[Any] | None:
        return asyncio.current_task()

    stream = SourceIterObj([1]).map(first, concurrency=1, window=7)
    assert await collect(stream) == [asyncio.current_task()]
    assert (stream.concurrency, stream.window_size) == (1, 1)
    with pytest.raises(AttributeError, match="are fixed"):
        stream.concurrency = 2


@pytest.mark.parametrize("variant", [*VARIANTS, {}])
async def test_raw_yields_the_returned_coroutine(variant: dict[str, Any]) -> None:
    made = [slow(n) for n in range(5)]
    results = await collect(PullMapObj(range(5), made.__getitem__, raw=True, **variant))
    assert results == made
    for coroutine in made:
        coroutine.close()


async def test_types_are_inferred_for_sync_and_async_callables() -> None:
    async def name(n: int) -> str:
        return str(n)

    first: PullMapObj[int, str] = SourceIterObj([1]).map(name, concurrency=2, ordered=False)
    second: PullMapObj[int, str] = SourceIterObj([1]).map(str, concurrency=2, window=4)
    third: PullMapObj[int, str] = PullMapObj([1], name, on_cancel="keep")
    assert [await anext(stream) for stream in (first, second, third)] == ["1"] * 3
    for stream in (first, second, third):
        await stream.aclose()


@pytest.mark.virtual
async def test_slow_head_does_not_stall_within_the_window() -> None:
    done: list[int] = []

    async def work(n: int) -> int:
        await asyncio.sleep(100 if n == 0 else 1)
        done.append(n)
        return n

    stream = SourceIterObj(range(30)).map(work, concurrency=3, window=10)
    async with stream:
        pull = asyncio.create_task(anext(stream))
        await asyncio.sleep(50)
        assert sorted(done) == list(range(1, 10))
        assert await pull == 0
        assert await collect(stream) == list(range(1, 30))


@pytest.mark.virtual
async def test_unordered_results_are_in_order_of_completion() -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(n)
        return n

    async with SourceIterObj([5, 3, 1, 4]).map(work, concurrency=4, ordered=False) as stream:
        assert await collect(stream) == [1, 3, 4, 5]


@pytest.mark.virtual
async def test_law_1_nothing_runs_beyond_the_window() -> None:
    called: list[int] = []

    async def work(n: int) -> int:
        called.append(n)
        await asyncio.sleep(1)
        return n

    generator = RecordedSource(100)
    stream = PullMapObj(generator, work, concurrency=3, window=5)
    pull = anext(stream)
    await asyncio.sleep(10)
    assert (generator.pulled_count, called) == (0, [])
    assert await pull == 0
    await asyncio.sleep(10)
    # The delivered result, and one window.
    assert (generator.pulled_count, called) == (6, [0, 1, 2, 3, 4, 5])
    await stream.aclose()


@pytest.mark.virtual
@pytest.mark.parametrize("ordered", [True, False])
async def test_law_1_keep_alone_runs_nothing_ahead(ordered: bool) -> None:
    generator = RecordedSource(10)
    stream = PullMapObj(generator, slow, window=8, on_cancel="keep", ordered=ordered)
    for n in range(4):
        assert await anext(stream) == n * 10
        await asyncio.sleep(1)
        assert generator.pulled_count == n + 1
    await stream.aclose()


@pytest.mark.virtual
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(2))
async def test_law_6_window_and_concurrency_are_never_exceeded(ordered: bool, seed: int) -> None:
    print("seed", seed)
    gauge = Gauge(seed)
    delivered = most_held = 0
    pulled_count = 0

    def source() -> Iterator[int]:
        nonlocal pulled_count, most_held
        for pulled_count in range(1, 10_001):
            most_held = max(most_held, pulled_count - delivered)
            yield pulled_count

    results: list[int] = []
    stream = PullMapObj(source(), gauge, concurrency=50, ordered=ordered, window=80)
    async for result in stream:
        delivered += 1
        results.append(result)
        if gauge.rng.random() < 0.01:
            await asyncio.sleep(gauge.rng.random())
    expected = [n * 10 for n in range(1, 10_001)]
    assert sorted(results) == expected
    assert (results == expected) == ordered
    assert gauge.most_running == 50
    assert gauge.calls == Counter(range(1, 10_001))
    assert most_held == 80


async def test_law_9_other_loop_is_refused_while_running() -> None:
    stream = PullMapObj(range(9), slow, concurrency=2)
    assert await anext(stream) == 0

    def elsewhere() -> None:
        async def pull() -> None:
            await anext(stream)

        with pytest.raises(WrongLoopError):
            asyncio.run(pull())

    await asyncio.to_thread(elsewhere)
    assert await collect(stream) == [n * 10 for n in range(1, 9)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_law_9_stream_runs_on_one_loop_after_another(variant: dict[str, Any]) -> None:
    stream = PullMapObj(range(5), slow, **variant)
    for _ in range(3):
        assert sorted(asyncio.run(collect(stream))) == [0, 10, 20, 30, 40]
        stream.restart()


async def test_law_12_concurrent_pulls_are_served_in_order() -> None:
    stream = PullMapObj(range(6), slow, concurrency=3)
    pulls = [asyncio.create_task(anext(stream)) for _ in range(6)]
    await yield_to_loop(1)
    pulls[2].cancel()
    outcomes = await asyncio.gather(*pulls, return_exceptions=True)
    assert type(outcomes.pop(2)) is asyncio.CancelledError
    assert outcomes == [0, 10, 20, 30, 40]
    assert await collect(stream) == [50]


async def test_law_12_call_cannot_close_its_own_stream() -> None:
    async def close(n: int) -> int:
        await stream.aclose()
        return n

    stream: PullMapObj[int, int] = PullMapObj([1], close, on_cancel="keep")
    pull = asyncio.create_task(anext(stream))
    await yield_to_loop(6)
    # It has closed the pull before its own call was refused.
    with pytest.raises(ClosedError):
        await pull
    await stream.aclose()


async def test_law_12_pull_from_own_call_is_refused() -> None:
    gate = asyncio.Event()
    errors: list[BaseException] = []

    async def greedy(n: int) -> int:
        await gate.wait()
        try:
            return n + await anext(stream)
        except RuntimeError as error:
            errors.append(error)
            return n

    stream: PullMapObj[int, int] = PullMapObj([1, 2], greedy, on_cancel="keep")
    pull = asyncio.create_task(anext(stream))
    await yield_to_loop(5)
    pull.cancel()
    await asyncio.wait([pull])
    gate.set()
    await yield_to_loop(3)
    assert "being pulled already" in str(errors[0])
    assert await anext(stream) == 1
    await stream.aclose()


@pytest.mark.virtual
async def test_law_13_settings_are_live() -> None:
    gauge = Gauge(3)
    stream = PullMapObj(range(1_000), gauge, concurrency=2)
    assert (stream.concurrency, stream.window_size, stream.transform) == (2, 4, gauge)
    assert await anext(stream) == 0
    stream.concurrency = 10
    assert (stream.concurrency, stream.window_size) == (10, 20)
    # Wait before any call ends: virtual time advances only when nothing else can run.
    await until(lambda: gauge.running >= 8)
    for _ in range(100):
        await anext(stream)
    assert gauge.most_running == 10
    stream.concurrency = 1
    await asyncio.sleep(10)
    gauge.most_running = 0
    for _ in range(100):
        await anext(stream)
    assert gauge.most_running == 1
    stream.concurrency, stream.window_size = 3, 3
    stream.transform = lambda n: -n
    assert min(await collect(stream)) == -999
    for bad in ({"concurrency": 4}, {"window_size": 2}, {"concurrency": 0}):
        with pytest.raises(ValueError, match="must be at least"):
            setattr(stream, *next(iter(bad.items())))
    stream.window_size = wrong(None)
    assert stream.window_size == 6


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"concurrency": 0}, ValueError, r"concurrency must be at least 1, got 0 \(int\)"),
        ({"concurrency": -1}, ValueError, r"concurrency must be at least 1, got -1 \(int\)"),
        ({"concurrency": True}, TypeError, r"concurrency must be an integer, got True \(bool\)"),
        ({"concurrency": 1.0}, TypeError, r"concurrency must be an integer, got 1.0 \(float\)"),
        ({"concurrency": 2.0}, TypeError, r"concurrency must be an integer, got 2.0 \(float\)"),
        ({"concurrency": "3"}, TypeError, r"concurrency must be an integer, got '3' \(str\)"),
        ({"concurrency": None}, TypeError, r"concurrency must be an integer, got None"),
        (
            {"concurrency": 4, "window": 3},
            ValueError,
            r"window must be at least concurrency \(4\), got 3",
        ),
        ({"window": 0}, ValueError, r"window must be at least 1, got 0 \(int\)"),
        ({"window": 2.5}, TypeError, r"window must be an integer, got 2.5 \(float\)"),
        ({"on_cancel": "no"}, ValueError, 'on_cancel must be "retry" or "keep", got \'no\''),
        (
            {"on_cancel": None, "concurrency": 2},
            ValueError,
            'on_cancel must be "retry" or "keep", got None',
        ),
    ],
)
def test_law_14_bad_input_is_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        PullMapObj([1], slow, **options)
    with pytest.raises(kind, match=message):
        SourceIterObj([1]).map(slow, **options)


def test_law_14_bad_source_or_callable_is_refused() -> None:
    with pytest.raises(TypeError, match=r"transform must be callable, got 3 \(int\)"):
        PullMapObj([1], wrong(3), concurrency=2)
    with pytest.raises(TypeError, match="source must be an iterable"):
        PullMapObj(wrong(3), slow, concurrency=2)


async def test_law_16_ready_source_and_calls_yield() -> None:
    class Ready(SourceObj[int]):
        async def __anext__(self) -> int:
            return 1

    for ordered in (True, False):
        stream = PullMapObj(Ready(), lambda n: n, concurrency=10, ordered=ordered)
        async with Heart() as heart, stream.take(20_000) as part:
            assert len(await collect(part)) == 20_000
        # At least twice a window.
        assert heart.beats >= 1_000


async def test_law_17_10_000_concurrent_maps_run_and_close() -> None:
    stream: PullObj[int] = SourceIterObj(range(4))
    for _ in range(10_000):
        stream = stream.map(lambda n: n + 1, concurrency=2)
    async with stream:
        assert [await anext(stream), await anext(stream)] == [10_000, 10_001]


async def test_context_of_the_source_is_isolated() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")

    async def source() -> AsyncIterator[int]:
        token = variable.set("inside")
        try:
            async with asyncio.timeout(100):
                for n in range(4):
                    yield n
        finally:
            variable.reset(token)

    async with PullMapObj(source(), lambda n: (n, variable.get()), concurrency=2) as stream:
        assert await anext(stream) == (0, "inside")
        assert variable.get() == "outside"


async def test_foreign_cancellation_of_the_driver_is_an_error() -> None:
    for waits_for_room in (False, True):
        buffer: PushPullBufferObj[int] = PushPullBufferObj()
        for n in range(9 if waits_for_room else 2):
            buffer.sink.next_nowait(n)
        stream = PullMapObj(buffer.source, slow, concurrency=2)
        assert await anext(stream) == 0
        await yield_to_loop(9)
        (driver,) = asyncio.all_tasks() - {asyncio.current_task()}
        driver.cancel()
        await yield_to_loop(1)
        received: list[Any] = []
        with pytest.raises(SourceCancelledError, match="the source of PullMapObj was cancelled"):
            while True:
                received.append(await anext(stream))
        assert received == ([10, 20, 30, 40] if waits_for_room else [10])
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_source_can_be_pulled_after_the_end() -> None:
    source = SourceIterObj(iter(range(6)))
    assert await collect(source.take(3).map(slow, concurrency=2)) == [0, 10, 20]
    assert await collect(source) == [3, 4, 5]


@pytest.mark.parametrize("ordered", [True, False])
async def test_each_call_has_its_own_task_and_context(ordered: bool) -> None:
    variable: ContextVar[int] = ContextVar("variable", default=-1)
    tasks: dict[int, asyncio.Task[Any] | None] = {}

    async def work(n: int) -> tuple[int, int]:
        tasks[n] = asyncio.current_task()
        before = variable.get()
        variable.set(n)
        for _ in range(n % 3):
            await asyncio.sleep(0)
            assert asyncio.current_task() is tasks[n]
        return before, variable.get()

    stream = PullMapObj(range(9), work, concurrency=3, ordered=ordered)
    assert sorted(await collect(stream)) == [(-1, n) for n in range(9)]
    assert len({*tasks.values(), asyncio.current_task()}) == 10
    assert {task.get_name() for task in tasks.values() if task} == {"transform of PullMapObj"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("waits", [0, 2])
async def test_call_that_cancels_itself_costs_one_item(variant: dict[str, Any], waits: int) -> None:
    async def work(n: int) -> int:
        await yield_to_loop(waits)
        task = asyncio.current_task()
        if n == 1 and task is not None:
            task.cancel()
        return n

    stream = PullMapObj(range(4), work, **variant)
    outcomes: list[int | None] = []
    for _ in range(4):
        try:
            outcomes.append(await anext(stream))
        except asyncio.CancelledError:
            outcomes.append(None)
    assert sorted(outcomes, key=str) == [0, 2, 3, None]
    assert await collect(stream) == []
