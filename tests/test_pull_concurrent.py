"""`map` with a concurrency, by law: concurrent calls, and calls that outlive the pull that started them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import warnings
import weakref
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    IteratorResult,
    PullMapObj,
    PullObj,
    PushPullBufferObj,
    SourceBufferObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
    WrongLoopError,
)
from headrace.testing import shuffled_loop
from tests.support import Heart, collect, quiet, until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

VARIANTS: list[dict[str, Any]] = [
    {"on_cancel": "keep"},
    {"concurrency": 1, "on_cancel": "keep", "ordered": False},
    {"concurrency": 2},
    {"concurrency": 5, "window": 5},
    {"concurrency": 3, "window": 20, "ordered": False},
]


async def slow(n: int) -> int:
    await yield_to_loop(n % 4)
    return n * 10


class Gauge:
    """A callable that counts its running calls, each of a random duration on the loop's clock."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calls: Counter[int] = Counter()
        self.running = self.most_running = 0

    async def __call__(self, n: int) -> int:
        self.calls[n] += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.rng.choice((0, 0.001, 0.01, self.rng.random())))
        finally:
            self.running -= 1
        return n * 10


class RecordedSource:
    """An async generator that records the tasks that drive it, and the one that closes it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pulled_count = 0
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.closed_by: asyncio.Task[Any] | None = None

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for n in range(self.count):
                self.tasks.add(asyncio.current_task())
                self.pulled_count += 1
                yield n
                await asyncio.sleep(0)
        finally:
            self.closed_by = asyncio.current_task()
            await asyncio.sleep(0)


def sources(count: int) -> Iterator[Any]:
    async def generator() -> AsyncIterator[int]:
        for n in range(count):
            await yield_to_loop(n % 2)
            yield n

    yield range(count)
    yield iter(range(count))
    yield generator()
    yield SourceBufferObj(range(count))
    yield RecordedSource(count)
    yield SourceIterObj(range(count)).map(slow).map(lambda n: n // 10)


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


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("patience", range(14))
async def test_law_2_cancelled_anywhere_calls_each_item_once(
    variant: dict[str, Any], patience: int
) -> None:
    calls: Counter[int] = Counter()

    async def work(n: int) -> int:
        calls[n] += 1
        await yield_to_loop(n * 7 % 11)
        return n

    received: list[int] = []
    cancelled = 0
    stream = PullMapObj(RecordedSource(40), work, **variant).map(lambda n: n).filter(lambda _: True)
    for number in itertools.count():
        pull = asyncio.ensure_future(anext(stream))
        # Every third pull may finish, otherwise the shortest patience would make no progress.
        if number % 3:
            await yield_to_loop(patience)
            pull.cancel()
        try:
            received.append(await pull)
        except asyncio.CancelledError:
            cancelled += 1
        except StopAsyncIteration:
            break
    assert sorted(received) == list(range(40))
    assert variant.get("ordered", True) <= (received == list(range(40)))
    assert calls == Counter(range(40))
    assert cancelled or patience > 4


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(6))
async def test_law_2_random_cancels_of_concurrent_pulls(variant: dict[str, Any], seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    calls: Counter[int] = Counter()

    async def work(n: int) -> int:
        calls[n] += 1
        await yield_to_loop(rng.randrange(6))
        return n

    received: list[int] = []
    stream = PullMapObj(range(60), work, **variant)
    is_over = False
    while not is_over:
        pulls = [asyncio.ensure_future(anext(stream)) for _ in range(rng.randrange(1, 5))]
        await yield_to_loop(rng.randrange(9))
        for pull in pulls:
            if rng.randrange(2):
                pull.cancel()
        for outcome in await asyncio.gather(*pulls, return_exceptions=True):
            if isinstance(outcome, int):
                received.append(outcome)
            is_over |= isinstance(outcome, StopAsyncIteration)
    assert sorted(received) == list(range(60))
    assert variant.get("ordered", True) <= (received == list(range(60)))
    assert calls == Counter(range(60))


@pytest.mark.virtual
@pytest.mark.parametrize("variant", VARIANTS)
async def test_law_2_timed_out_pulls_cancel_no_call(
    variant: dict[str, Any],
) -> None:
    gauge = Gauge(1)
    received: list[int] = []
    timed_out = 0
    stream = PullMapObj(range(50), gauge, **variant)
    while True:
        try:
            received.append(await asyncio.wait_for(anext(stream), 0.1))
        except TimeoutError:
            timed_out += 1
        except StopAsyncIteration:
            break
    assert sorted(received) == [n * 10 for n in range(50)]
    assert gauge.calls == Counter(range(50))
    assert timed_out


@pytest.mark.parametrize("variant", VARIANTS)
async def test_law_2_raised_cancelled_error_costs_one_item(variant: dict[str, Any]) -> None:
    mine = {n: asyncio.CancelledError("mine") for n in (2, 3)}

    def fickle(n: int) -> Any:
        if n == 3:
            raise mine[3]
        return later(n)

    async def later(n: int) -> int:
        await asyncio.sleep(0)
        if n == 2:
            raise mine[2]
        return n

    stream = PullMapObj([1, 2, 3, 4], fickle, **variant)
    outcomes: set[Any] = set()
    for _ in range(4):
        try:
            outcomes.add(await anext(stream))
        except asyncio.CancelledError as error:
            outcomes.add(error)
    assert outcomes == {1, 4, mine[2], mine[3]}
    assert await collect(stream) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("when", ["called", "awaited", "later"])
async def test_law_3_error_costs_one_item_and_has_one_note(
    variant: dict[str, Any], when: str
) -> None:
    errors = {2: ValueError(2), 3: ValueError(3)}

    def plain(n: int) -> Any:
        if n in errors and when == "called":
            raise errors[n]
        return awaited(n)

    async def awaited(n: int) -> int:
        if when == "later":
            await yield_to_loop(n % 3)
        if n in errors:
            raise errors[n]
        return n

    stream = PullMapObj(range(6), plain, **variant)
    received: list[Any] = []
    while True:
        try:
            received.append(await anext(stream))
        except ValueError as error:
            received.append(error)
        except StopAsyncIteration:
            break
    expected = [0, 1, errors[2], errors[3], 4, 5]
    assert len(received) == 6
    assert set(received) == set(expected)
    assert variant.get("ordered", True) <= (received == expected)
    for expected_error in errors.values():
        assert expected_error.__notes__ == ["raised by transform of PullMapObj"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
async def test_law_3_iteration_error_becomes_runtime_error(
    is_async: bool, kind: type[BaseException]
) -> None:
    async def raise_later(n: int) -> int:
        if n == 1:
            raise kind
        return n

    def raise_at_once(n: int) -> int:
        if n == 1:
            raise kind
        return n

    stream: PullMapObj[int, int] = PullMapObj(
        range(3), wrong(raise_later if is_async else raise_at_once), concurrency=2
    )
    assert await anext(stream) == 0
    with pytest.raises(RuntimeError, match=f"raised {kind.__name__}") as caught:
        await anext(stream)
    assert type(caught.value.__cause__) is kind
    assert await collect(stream) == [2]


async def test_law_3_source_errors_are_raised_in_order() -> None:
    class Flaky:
        """An iterator whose third and fourth items fail."""

        def __init__(self) -> None:
            self.numbers = iter(range(6))

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            n = next(self.numbers)
            if n in {2, 3}:
                raise errors[n]
            return n

    errors: dict[int, BaseException] = {2: LookupError(2), 3: asyncio.CancelledError()}
    stream = PullMapObj(Flaky(), slow, concurrency=3)
    outcomes: list[Any] = []
    for _ in range(7):
        try:
            outcomes.append(await anext(stream))
        except (LookupError, asyncio.CancelledError) as error:
            outcomes.append(error)
        except StopAsyncIteration:
            outcomes.append("end")
    assert outcomes == [0, 10, errors[2], errors[3], 40, 50, "end"]
    assert not hasattr(errors[2], "__notes__")


def test_law_3_keyboard_interrupt_propagates() -> None:
    def interrupt(n: int) -> int:
        # Only once, since a second one would interrupt the clean-up of `asyncio.run`.
        if n == 1:
            raise KeyboardInterrupt
        return n

    async def interrupt_later(n: int) -> int:
        await asyncio.sleep(0)
        return interrupt(n)

    async def main(transform: Callable[[int], Any]) -> None:
        async with PullMapObj([0, 1, 2], transform, concurrency=2) as stream:
            await collect(stream)

    for transform in (interrupt, interrupt_later):
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main(transform))


async def test_law_4_closing_ends_calls_then_the_source() -> None:
    log: list[str] = []
    generator = RecordedSource(10)

    async def work(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await yield_to_loop(3)
            assert generator.closed_by is None
            log.append(f"call {n}")
        return n

    stream = PullMapObj(generator, work, concurrency=3)
    pulls = [asyncio.create_task(anext(stream)) for _ in range(2)]
    await yield_to_loop(10)
    await stream.aclose()
    assert sorted(log) == ["call 0", "call 1", "call 2"]
    assert generator.tasks == {generator.closed_by}
    assert generator.closed_by is not asyncio.current_task()
    for pull in pulls:
        with pytest.raises(ClosedError):
            await pull
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("waits", [0, 1, 2, 3, 5, 8])
async def test_law_4_second_cancel_waits_for_the_clean_up(waits: int) -> None:
    generator = RecordedSource(10)
    cleaned = 0

    async def work(n: int) -> int:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            await yield_to_loop(6)
            cleaned += 1
        return n

    async def body() -> None:
        async with PullMapObj(generator, work, concurrency=3) as stream:
            await anext(stream)

    task = asyncio.create_task(body())
    await yield_to_loop(10)
    for _ in range(4):
        task.cancel()
        await yield_to_loop(waits)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == 3
    assert generator.tasks == {generator.closed_by}


@pytest.mark.parametrize("pulled", range(6))
@pytest.mark.parametrize("after", range(8))
async def test_law_4_closing_at_any_time_leaves_nothing(pulled: int, after: int) -> None:
    generator = RecordedSource(4)
    stream = PullMapObj(generator, slow, concurrency=2, window=3)
    for _ in range(pulled):
        with contextlib.suppress(StopAsyncIteration):
            await anext(stream)
    await yield_to_loop(after)
    await asyncio.gather(stream.aclose(), stream.aclose())
    assert len(asyncio.all_tasks()) == 1
    assert (generator.closed_by is not None) == bool(generator.pulled_count)
    assert generator.closed_by is None or generator.tasks == {generator.closed_by}


@pytest.mark.parametrize("seed", range(60))
async def test_law_4_closing_any_stage_leaves_nothing(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    recorded = RecordedSource(30)
    started = ended = 0

    async def work(n: int) -> int:
        nonlocal started, ended
        started += 1
        try:
            try:
                await yield_to_loop(rng.randrange(6))
            finally:
                await yield_to_loop(rng.randrange(2))
        finally:
            ended += 1
        return n

    first = PullMapObj(recorded, work, concurrency=rng.randrange(2, 5), ordered=seed % 2 == 0)
    plain = first.map(work)
    second = plain.map(work, concurrency=rng.randrange(1, 5), window=8, on_cancel="keep")
    last = second.filter(lambda _: True).map(work).batch(2).flatten()
    pulls = [asyncio.ensure_future(anext(last)) for _ in range(rng.randrange(5))]
    await yield_to_loop(rng.randrange(25))
    streams: list[PullObj[int]] = [rng.choice([first, plain, second, last]), last]
    for stream in streams:
        closing = asyncio.ensure_future(stream.aclose())
        await yield_to_loop(1)
        for _ in range(rng.randrange(3)):
            await yield_to_loop(rng.randrange(5))
            closing.cancel()
        await asyncio.wait([closing])
    for outcome in await asyncio.gather(*pulls, return_exceptions=True):
        assert isinstance(outcome, (int, ClosedError, StopAsyncIteration))
    assert started == ended
    assert recorded.tasks <= {recorded.closed_by}


@pytest.mark.parametrize("pulled", [0, 1, 2])
async def test_law_4_each_closing_waits_until_it_is_done(pulled: int) -> None:
    log: list[str] = []

    class Source(SourceObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            yield 0

        async def aclose(self) -> None:
            await yield_to_loop(5)
            log.append("closed")

    async def close() -> None:
        await stream.aclose()
        log.append("done")

    stream = PullMapObj(Source(), slow, concurrency=2)
    for _ in range(pulled):
        await anext(stream, 0)
    await asyncio.gather(close(), close(), close())
    assert log == ["closed", "done", "done", "done"]


async def test_law_4_source_is_closed_in_an_uncancelled_task() -> None:
    pending: list[int] = []

    async def source() -> AsyncIterator[int]:
        try:
            for n in itertools.count():
                yield n
        finally:
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            pending.append(task.cancelling())

    async with PullMapObj(source(), slow, concurrency=2) as stream:
        assert await anext(stream) == 0
        await yield_to_loop(9)
    assert pending == [0]


async def test_law_4_item_after_closing_starts_no_call() -> None:
    called: list[int] = []

    class Stubborn(SourceObj[int]):
        async def __anext__(self) -> int:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return 1

    async def work(n: int) -> None:
        called.append(n)

    stream = PullMapObj(Stubborn(), work, concurrency=2)
    pull = asyncio.create_task(anext(stream))
    await yield_to_loop(5)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await pull
    assert called == []


async def test_law_4_closing_frees_results_not_pulled() -> None:
    class Result:
        pass

    made: list[weakref.ref[Result]] = []

    async def work(_: int) -> Result:
        result = Result()
        made.append(weakref.ref(result))
        return result

    stream = PullMapObj(range(9), work, concurrency=3)
    await anext(stream)
    # One was delivered, three wait to be pulled, and three are queued behind those.
    await until(lambda: len(made) == 7)
    await quiet()
    await stream.aclose()
    gc.collect()
    assert [result() for result in made] == [None] * 7


async def test_law_4_source_is_closed_without_a_pull() -> None:
    generator = RecordedSource(1).__aiter__()
    stream = PullMapObj(generator, slow, concurrency=2)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


async def test_law_4_errors_of_closing_are_raised_once() -> None:
    async def work(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError(n)

    async def broken() -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
            await asyncio.Event().wait()
        finally:
            raise LookupError("source")

    stream = PullMapObj(broken(), work, concurrency=2)
    pull = asyncio.create_task(anext(stream))
    await yield_to_loop(5)
    with pytest.raises(ExceptionGroup, match="failed to close") as caught:
        await stream.aclose()
    kinds = Counter(type(error) for error in caught.value.exceptions)
    assert kinds == {ValueError: 2, LookupError: 1}
    assert {n for error in caught.value.exceptions for n in getattr(error, "__notes__", [])} == {
        "raised by transform of PullMapObj"
    }
    with pytest.raises(ClosedError):
        await pull
    await stream.aclose()


async def test_law_4_errors_not_pulled_are_not_logged() -> None:
    async def work(n: int) -> int:
        await yield_to_loop(n % 2)
        raise ValueError(n)

    async with PullMapObj(range(9), work, concurrency=4) as stream:
        with pytest.raises(ValueError, match="0"):
            await anext(stream)
        await yield_to_loop(5)
    del stream
    gc.collect()


async def test_law_4_return_and_throw_call_a_source_override() -> None:
    class Source(SourceObj[int]):
        ended_by: Any = None

        async def pull_impl(self) -> AsyncIterator[int]:
            for n in itertools.count():
                yield n

        async def return_(self, value: Any = None) -> IteratorResult[Any]:
            self.ended_by = asyncio.current_task()
            return IteratorResult(("mine", value), True)

        async def throw(self, error: BaseException) -> IteratorResult[Any]:
            raise LookupError from error

    source = Source()
    stream = source.map(slow, concurrency=2).map(lambda n: n)
    assert await anext(stream) == 0
    assert await stream.return_(5) == IteratorResult(("mine", 5), True)
    assert source.ended_by not in {None, asyncio.current_task()}
    stream = Source().map(slow, concurrency=2).map(lambda n: n)
    assert await anext(stream) == 0
    with pytest.raises(LookupError):
        await stream.throw(ValueError())
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_5_dropped_stream_warns_and_ends_its_calls() -> None:
    generator = RecordedSource(10)
    ended: list[int] = []

    async def work(n: int) -> int:
        if n == 0:
            return n
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(n)
        return n

    streams = [PullMapObj(generator, work, concurrency=3).map(lambda n: n)]
    assert await anext(streams[0]) == 0
    await yield_to_loop(5)
    with pytest.warns(ResourceWarning, match="unclosed <PullMapObj: 3 of 3 calls run>"):
        streams.clear()
    await yield_to_loop(12)
    assert len(asyncio.all_tasks()) == 1
    assert sorted(ended) == [1, 2, 3]
    assert generator.tasks == {generator.closed_by}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("after", range(12))
async def test_law_5_drop_at_any_time_ends_everything(variant: dict[str, Any], after: int) -> None:
    recorded = RecordedSource(14)
    streams = [PullMapObj(recorded, slow, **variant)]
    await anext(streams[0])
    pull = asyncio.ensure_future(anext(streams[0]))
    await yield_to_loop(after)
    pull.cancel()
    await asyncio.wait([pull])
    del pull
    with pytest.warns(ResourceWarning, match="unclosed <PullMapObj"):
        streams.clear()
        gc.collect()
    await yield_to_loop(12)
    assert len(asyncio.all_tasks()) == 1
    assert recorded.tasks == {recorded.closed_by}


async def test_law_5_ended_or_closed_stream_drops_silently() -> None:
    class Item:
        pass

    async def same(item: Item) -> Item:
        await asyncio.sleep(0)
        return item

    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for variant in VARIANTS:
                for count in (2, 5):
                    stream = PullMapObj([Item() for _ in range(4)], same, **variant)
                    item = await anext(stream)
                    for _ in range(count - 1):
                        item = await anext(stream, item)
                    if count == 2:
                        await stream.aclose()
                    stream_ref, source_ref = weakref.ref(stream), weakref.ref(stream.source)
                    del stream, item
                    await yield_to_loop(2)
                    assert stream_ref() is None
                    assert source_ref() is None
    finally:
        gc.enable()


async def test_law_5_errors_make_no_reference_cycle() -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        raise own_error(n)

    class own_error(ValueError):  # noqa: N801 - an exception type of its own
        pass

    gc.collect()
    gc.disable()
    try:
        stream = PullMapObj([1], work, concurrency=2)
        with pytest.raises(own_error) as caught:
            await anext(stream)
        stream_ref = weakref.ref(caught.value)
        del caught
        await stream.aclose()
        del stream
        assert stream_ref() is None
    finally:
        gc.enable()


def test_law_5_stream_does_not_delay_program_exit() -> None:
    ended: list[Any] = []
    streams: list[Any] = []

    async def work(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)
        return n

    async def source() -> AsyncIterator[int]:
        try:
            for n in range(5):
                yield n
        finally:
            ended.append("source")

    async def main() -> None:
        streams.append(PullMapObj(source(), work, concurrency=2))
        pull = asyncio.create_task(anext(streams[0]))
        await yield_to_loop(5)
        pull.cancel()

    asyncio.run(main())
    assert set(ended) == {0, 1, "source"}
    assert ended[-1] == "source"


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


@pytest.mark.parametrize("variant", VARIANTS)
async def test_law_11_iteration_continues_after_a_break(
    variant: dict[str, Any],
) -> None:
    stream = PullMapObj(range(8), slow, **variant)
    received: list[int] = []
    async for item in stream:
        received.append(item)
        if len(received) == 3:
            break
    received += await collect(stream)
    assert sorted(received) == [n * 10 for n in range(8)]
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    stream.restart()
    assert sorted(await collect(stream)) == [n * 10 for n in range(8)]
    assert sorted(await collect(stream.filter(lambda _: True))) == []


async def test_law_11_restart_is_refused_while_calls_run() -> None:
    generator = RecordedSource(5)
    stream = PullMapObj(generator, slow, concurrency=2).filter(lambda _: True)
    assert await anext(stream) == 0
    with pytest.raises(RuntimeError, match="cannot restart while calls of PullMapObj run ahead"):
        stream.restart()
    assert await anext(stream) == 10
    await stream.aclose()
    stream.restart()
    assert await collect(stream) == [0, 10, 20, 30, 40]
    kept = PullMapObj(range(5), slow, on_cancel="keep")
    assert [await anext(kept), await anext(kept)] == [0, 10]
    await yield_to_loop(3)
    # Restart is allowed, since the driver waits for the next pull.
    kept.restart()
    assert await collect(kept) == [0, 10, 20, 30, 40]
    once = PullMapObj(iter(range(5)), slow, concurrency=2)
    assert await collect(once) == [0, 10, 20, 30, 40]
    with pytest.raises(RuntimeError, match="cannot restart"):
        once.restart()


@pytest.mark.parametrize("pulled", [0, 1, 5])
@pytest.mark.parametrize("after", range(1, 8))
async def test_law_11_restart_during_closing_is_refused(pulled: int, after: int) -> None:
    async def work(n: int) -> int:
        try:
            await yield_to_loop(2)
        finally:
            await yield_to_loop(1)
        return n

    stream = PullMapObj(RecordedSource(4), work, concurrency=2)
    for _ in range(pulled):
        with contextlib.suppress(StopAsyncIteration):
            await anext(stream)
    closing = asyncio.ensure_future(stream.aclose())
    await yield_to_loop(after)
    if closing.done():
        stream.restart()
    else:
        with pytest.raises(RuntimeError, match="it is being closed"):
            stream.restart()
    await closing
    stream.restart()
    assert await collect(stream) == [0, 1, 2, 3]


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


@pytest.mark.parametrize("seed", range(20))
def test_law_4_closing_waits_for_the_tasks_of_ended_calls(seed: int) -> None:
    print("seed", seed)

    async def ready(n: int) -> int:
        return n

    async def main() -> None:
        stream = PullMapObj(range(9), ready, concurrency=3)
        for _ in range(seed % 4 + 1):
            await anext(stream)
        await stream.aclose()
        assert len(asyncio.all_tasks()) == 1

    with asyncio.Runner(loop_factory=shuffled_loop(seed)) as runner:
        runner.run(main())
