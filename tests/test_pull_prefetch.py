"""`prefetch` and its background task, by law."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullEagerObj,
    PullObj,
    SourceBufferObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
    WrongLoopError,
)
from tests.support import (
    Heart,
    collect,
    collect_with_cancellations,
    quiet,
    until,
    wrong,
    yield_to_loop,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class CountedSource:
    """A source that counts its pulls, and records the tasks that drive and close it."""

    def __init__(self, count: int, *, delay: float | None = None) -> None:
        self.count = count
        self.delay = delay
        self.pulls = 0
        self.tasks: set[Any] = set()
        self.closed: list[Any] = []

    def __aiter__(self) -> AsyncIterator[int]:
        return self._items()

    async def _items(self) -> AsyncIterator[int]:
        try:
            for n in range(self.count):
                self.pulls += 1
                self.tasks.add(asyncio.current_task())
                if self.delay is not None:
                    await asyncio.sleep(self.delay)
                yield n
            self.pulls += 1
        finally:
            await asyncio.sleep(0)
            self.closed.append(asyncio.current_task())


class Failing:
    """An async iterator over a script. It raises the exceptions in it, and continues."""

    def __init__(self, *script: int | BaseException) -> None:
        self.script = list(script)

    def __aiter__(self) -> Failing:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        if not self.script:
            raise StopAsyncIteration
        outcome = self.script.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_prefetch_yields_the_items_of_its_source(size: int) -> None:
    assert await collect(PullEagerObj(range(20), size)) == list(range(20))
    assert await collect(PullEagerObj(CountedSource(20), size)) == list(range(20))
    assert await collect(PullEagerObj(CountedSource(20, delay=0), size)) == list(range(20))
    pipeline = SourceIterObj(range(20)).map(lambda n: n + 1).prefetch(size).filter(lambda n: n % 2)
    assert await collect(pipeline.batch(3)) == [[1, 3, 5], [7, 9, 11], [13, 15, 17], [19]]
    assert len(asyncio.all_tasks()) == 1


async def test_exceptions_are_valid_items() -> None:
    items: list[Any] = [None, ValueError("v"), StopAsyncIteration(), (), asyncio.CancelledError]
    received = await collect(PullEagerObj(items, 3))
    assert all(got is item for got, item in zip(received, items, strict=True))


@pytest.mark.parametrize("size", [1, 3])
async def test_law_1_prefetch_never_exceeds_its_size(size: int) -> None:
    source = CountedSource(10)
    async with PullEagerObj(source, size) as stream:
        await yield_to_loop(10)
        assert source.pulls == 0
        for n in range(5):
            assert await anext(stream) == n
            await yield_to_loop(10)
            assert source.pulls == n + 1 + size


@pytest.mark.virtual
@pytest.mark.parametrize("kind", ["generator", "native"])
async def test_law_2_wait_for_loses_no_item(kind: str) -> None:
    async def slow(n: int) -> int:
        await asyncio.sleep(0.005)
        return n

    source: PullObj[int] = (
        SourceIterObj(CountedSource(200, delay=0.005))
        if kind == "generator"
        else SourceIterObj(range(200)).map(slow)
    )
    received: list[int] = []
    timeouts = 0
    async with source.prefetch(1) as stream:
        while True:
            try:
                received.append(await asyncio.wait_for(anext(stream), 0.002))
            except TimeoutError:
                timeouts += 1
            except StopAsyncIteration:
                break
    assert received == list(range(200))
    assert timeouts >= 200


@pytest.mark.parametrize("seed", range(10))
async def test_law_2_cancelled_anywhere_keeps_each_item_once(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)

    async def generator() -> AsyncIterator[int]:
        for n in range(60):
            await yield_to_loop(rng.randrange(3))
            yield n

    async def slow(n: int) -> int:
        await yield_to_loop(n % 3)
        return n

    stream = SourceIterObj(generator()).prefetch(rng.randrange(1, 5)).map(slow).prefetch().map(slow)
    received, cancelled = await collect_with_cancellations(stream, rng, 8, spare=0)
    assert received == list(range(60))
    assert cancelled > 3


async def test_law_2_foreign_cancellation_is_an_error() -> None:
    source = CountedSource(5, delay=0)
    stream = PullEagerObj(source)
    assert await anext(stream) == 0
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await yield_to_loop(20)
    with pytest.raises(SourceCancelledError, match="was cancelled"):
        await collect(stream)
    assert await collect(stream) == []
    assert len(source.closed) == 1
    await stream.aclose()
    # Cancelled inside a pull.
    stream = PullEagerObj(CountedSource(5, delay=0))
    assert await anext(stream) == 0
    await yield_to_loop(1)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(SourceCancelledError, match="was cancelled"):
        await collect(stream)
    # Cancelled before its first step.
    unstarted = PullEagerObj(source)
    pull = asyncio.ensure_future(anext(unstarted))
    await yield_to_loop(1)
    tasks = asyncio.all_tasks() - {asyncio.current_task(), pull}
    for task in tasks:
        task.cancel()
    with pytest.raises(SourceCancelledError):
        await pull
    await unstarted.aclose()


async def test_law_3_error_costs_one_item_and_is_unchanged() -> None:
    error, own_cancellation = ValueError("one"), asyncio.CancelledError("by itself")
    stream = PullEagerObj(Failing(0, error, 1, own_cancellation, 2), 5)
    assert await anext(stream) == 0
    with pytest.raises(ValueError) as caught:
        await anext(stream)
    assert caught.value is error
    assert await anext(stream) == 1
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await anext(stream)
    assert cancelled.value is own_cancellation
    assert await collect(stream) == [2]


async def test_law_3_source_is_not_pulled_past_an_error() -> None:
    script = Failing(0, ValueError("one"), 1, 2)
    async with PullEagerObj(script, 10) as stream:
        assert await anext(stream) == 0
        await yield_to_loop(20)
        assert script.script == [1, 2]
        with pytest.raises(ValueError, match="one"):
            await anext(stream)
        await yield_to_loop(20)
        assert script.script == []


async def test_law_3_base_exception_costs_one_item() -> None:
    class Odd(BaseException):
        pass

    stream = PullEagerObj(Failing(0, Odd(), 1))
    assert await anext(stream) == 0
    with pytest.raises(Odd):
        await anext(stream)
    assert await collect(stream) == [1]


async def test_law_4_one_task_drives_and_closes_the_source() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    values: list[str] = []

    async def generator() -> AsyncIterator[int]:
        token = variable.set("inside")
        try:
            for n in range(9):
                yield n
                values.append(variable.get())
        finally:
            variable.reset(token)
            values.append(variable.get())

    async with SourceIterObj(generator()).prefetch() as stream:
        assert await anext(stream) == 0
        await asyncio.create_task(yield_to_loop(3))
        assert await asyncio.create_task(_pull_one(stream)) == 1
    assert set(values[:-1]) == {"inside"}
    assert values[-1] == "outside"
    source = CountedSource(9, delay=0)
    async with PullEagerObj(source, 2) as stream:
        await anext(stream)
    assert set(source.closed) == source.tasks
    assert source.closed[0] is not asyncio.current_task()


async def _pull_one(stream: PullObj[Any]) -> Any:
    return await anext(stream)


@pytest.mark.virtual
async def test_timeout_of_a_source_between_pulls_ends_it() -> None:
    async def generator(at_rest: bool) -> AsyncIterator[str]:
        yield "first"
        try:
            async with asyncio.timeout(1):
                yield "second"
                await asyncio.sleep(0 if at_rest else 5)
                yield "third"
        except TimeoutError:
            yield "timed out"

    inside = SourceIterObj(generator(False)).prefetch()
    assert await collect(inside) == ["first", "second", "timed out"]
    at_rest = SourceIterObj(generator(True)).prefetch()
    assert await anext(at_rest) == "first"
    await asyncio.sleep(5)
    assert await anext(at_rest) == "second"
    with pytest.raises(SourceCancelledError):
        await anext(at_rest)
    assert await collect(at_rest) == []


async def test_law_4_source_is_closed_before_the_end() -> None:
    source = CountedSource(9)
    stream = SourceIterObj(source).take(2).prefetch()
    assert await collect(stream) == [0, 1]
    assert len(source.closed) == 1
    assert len(asyncio.all_tasks()) == 1


async def test_law_4_leaving_the_block_closes_everything() -> None:
    source = CountedSource(100, delay=0)
    stream = SourceIterObj(source).prefetch(3).map(lambda n: n).prefetch().filter(lambda n: n > 1)
    async with stream:
        async for item in stream:
            assert item == 2
            break
    assert len(source.closed) == 1
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()


async def test_law_4_closing_ends_a_pending_pull() -> None:
    async def never() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    for stream in (PullEagerObj(never()), PullEagerObj(never()).map(lambda n: n)):
        pull = asyncio.ensure_future(anext(stream))
        await yield_to_loop(5)
        await stream.aclose()
        with pytest.raises(ClosedError):
            await pull
    assert len(asyncio.all_tasks()) == 1


async def test_law_4_unused_stream_closes_its_source() -> None:
    closed: list[str] = []

    class Source(SourceObj[int]):
        async def aclose(self) -> None:
            closed.append("closed")

    stream = Source().prefetch()
    await stream.aclose()
    await stream.aclose()
    assert closed == ["closed"]


async def test_law_4_second_cancel_waits_for_the_clean_up() -> None:
    gate = asyncio.Event()
    cleaned: list[str] = []

    async def generator() -> AsyncIterator[int]:
        try:
            for n in range(9):
                yield n
        finally:
            await gate.wait()
            cleaned.append("clean")

    stream = SourceIterObj(generator()).prefetch()
    assert await anext(stream) == 0
    closing = asyncio.ensure_future(stream.aclose())
    for _ in range(3):
        await yield_to_loop(5)
        closing.cancel()
    await yield_to_loop(5)
    assert not closing.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert cleaned == ["clean"]
    assert len(asyncio.all_tasks()) == 1


class Waiting(SourceObj[int]):
    """A source without items, whose cancellation takes until `opened` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.log: list[Any] = []

    async def __anext__(self) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            await self.opened.wait()
            raise
        return 1

    async def aclose(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.log.append(task.cancelling())


async def test_law_4_source_is_cancelled_once_then_closed() -> None:
    source = Waiting()
    stream = source.prefetch()
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(3)
    closings = [asyncio.ensure_future(stream.aclose()) for _ in range(3)]
    await yield_to_loop(5)
    assert source.log == ["cancelled"]
    source.opened.set()
    await asyncio.gather(*closings)
    assert source.log == ["cancelled", 0]
    with pytest.raises(ClosedError):
        await pull


async def test_law_4_clean_up_error_of_a_pull_is_raised() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 0
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("clean-up")

    stream = SourceIterObj(generator()).prefetch()
    assert await anext(stream) == 0
    await yield_to_loop(3)
    with pytest.raises(OSError, match="clean-up"):
        await stream.aclose()


@pytest.mark.parametrize("pull_count", [1, 4])
async def test_law_4_error_of_closing_is_raised_once(pull_count: int) -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            for n in range(3):
                yield n
        finally:
            raise OSError("closing")

    stream = SourceIterObj(generator()).prefetch()
    if pull_count == 1:
        assert await anext(stream) == 0
        with pytest.raises(OSError, match="closing"):
            await stream.aclose()
    else:
        with pytest.raises(OSError, match="closing"):
            await collect(stream)
        assert await collect(stream) == []
    await stream.aclose()


async def test_law_4_closing_error_is_raised_before_the_end() -> None:
    class Source(SourceObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            yield 1

        async def aclose(self) -> None:
            raise OSError("closing")

    stream = Source().prefetch()
    assert await anext(stream) == 1
    with pytest.raises(OSError, match="closing"):
        await anext(stream)
    assert await collect(stream) == []
    await stream.aclose()


async def test_law_4_source_cannot_close_its_own_stream() -> None:
    refused: list[str] = []

    async def generator() -> AsyncIterator[int]:
        yield 0
        for call in (stream.aclose, stream.__anext__):
            try:
                await call()
            except RuntimeError as error:
                refused.append(str(error))
        yield 1

    stream = SourceIterObj(generator()).prefetch()
    assert await anext(stream) == 0
    await yield_to_loop(5)
    assert len(refused) >= 1
    assert "cannot pull or close" in refused[0]
    await stream.aclose()


async def test_law_5_dropped_stream_warns_and_closes_source() -> None:
    source = CountedSource(9, delay=0)
    streams: list[PullObj[int]] = [SourceIterObj(source).prefetch(2).map(lambda n: n)]
    assert await anext(streams[0]) == 0
    with pytest.warns(ResourceWarning, match=r"unclosed <PullEagerObj of <SourceIterObj"):
        streams.clear()
        gc.collect()
    await yield_to_loop(20)
    assert set(source.closed) == source.tasks
    assert len(asyncio.all_tasks()) == 1


async def test_law_5_task_of_a_dropped_stream_stays_alive() -> None:
    futures: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()

    async def generator() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            future = asyncio.get_running_loop().create_future()
            futures.add(future)
            await future

    streams = [SourceIterObj(generator()).prefetch()]
    assert await anext(streams[0]) == 1
    await yield_to_loop(3)
    with pytest.warns(ResourceWarning):
        streams.clear()
    await yield_to_loop(5)
    gc.collect()
    for future in futures:
        future.set_result(None)
    await yield_to_loop(5)
    assert len(asyncio.all_tasks()) == 1


async def test_law_5_stream_without_a_task_drops_silently() -> None:
    ended, unused = PullEagerObj(range(2)), PullEagerObj(range(2))
    assert await collect(ended) == [0, 1]
    del ended, unused
    gc.collect()


def test_law_5_stream_may_outlive_its_loop() -> None:
    async def main() -> PullObj[int]:
        stream = PullEagerObj(CountedSource(9))
        assert await anext(stream) == 0
        return stream

    stream = asyncio.run(main())
    del stream
    gc.collect()


def test_law_9_other_loop_is_refused() -> None:
    async def use() -> list[int]:
        return [await anext(stream), await anext(stream)]

    stream = PullEagerObj(range(9))
    home, elsewhere = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert home.run_until_complete(use()) == [0, 1]
        home.run_until_complete(quiet())
        with pytest.raises(WrongLoopError):
            # A prefetched item needs no loop, but waiting for one is refused.
            elsewhere.run_until_complete(use())
        assert home.run_until_complete(use()) == [3, 4]
        with pytest.raises(WrongLoopError):
            elsewhere.run_until_complete(stream.aclose())
        home.run_until_complete(stream.aclose())
    finally:
        home.close()
        elsewhere.close()
    stream.restart()
    # A runner cancels the remaining tasks at its end, so a prefetched item is followed by an error.
    asyncio.run(_pull_one(stream))
    with pytest.raises((WrongLoopError, SourceCancelledError)):
        asyncio.run(collect(stream))
    stream.restart()
    assert asyncio.run(collect(stream)) == list(range(9))


async def test_law_11_restart_starts_again() -> None:
    source = CountedSource(3)
    stream = SourceIterObj(source).prefetch(2).map(lambda n: n * 10)
    assert await collect(stream) == [0, 10, 20]
    assert await collect(stream) == []
    stream.restart()
    assert await anext(stream) == 0
    await yield_to_loop(10)
    # Restart in the middle: the prefetched items are dropped.
    stream.restart()
    pulls = source.pulls
    await yield_to_loop(10)
    assert source.pulls == pulls
    assert await anext(stream) == 0
    await stream.aclose()
    stream.restart()
    assert await collect(stream) == [0, 10, 20]


async def test_law_11_restart_during_a_pull_is_refused() -> None:
    gate = asyncio.Event()

    async def slow(n: int) -> int:
        if n:
            await gate.wait()
        return n

    stream = SourceIterObj(range(3)).map(slow).prefetch()
    assert await anext(stream) == 0
    await yield_to_loop(5)
    with pytest.raises(RuntimeError, match=r"cannot restart .* aclose\(\)"):
        stream.restart()
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(5)
    with pytest.raises(RuntimeError, match="cannot restart"):
        stream.restart()
    gate.set()
    assert await pull == 1
    assert await collect(stream) == [2]
    once = PullEagerObj(iter([1, 2]))
    assert await anext(once) == 1
    await yield_to_loop(5)
    with pytest.raises(RuntimeError, match="runs once"):
        once.restart()
    assert await collect(once) == [2]


@pytest.mark.virtual
async def test_law_11_restart_before_a_woken_pull_is_refused() -> None:
    gate = asyncio.Event()
    refused: list[str] = []

    async def slow(n: int) -> int:
        if n:
            await gate.wait()
        return n

    stream = SourceIterObj(range(3)).map(slow).timeout(9.0).map(lambda n: n)
    assert await anext(stream) == 0
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(5)

    async def restart() -> None:
        # This runs after the background task, and before the pull that it wakes.
        await gate.wait()
        try:
            stream.restart()
        except RuntimeError as error:
            refused.append(str(error))

    restarting = asyncio.ensure_future(restart())
    await yield_to_loop(5)
    gate.set()
    await restarting
    assert len(refused) == 1
    assert await pull == 1
    assert await collect(stream) == [2]


@pytest.mark.virtual
async def test_law_11_restart_right_at_the_end() -> None:
    gate = asyncio.Event()

    async def last(n: int) -> bool:
        if n:
            await gate.wait()
        return n == 0

    stream = SourceIterObj(range(2)).filter(last).prefetch()
    assert await anext(stream) == 0
    await yield_to_loop(5)

    async def restart() -> None:
        # This runs after the task has ended, and before its done callbacks.
        await gate.wait()
        await until(lambda: len(asyncio.all_tasks()) == 2)
        stream.restart()

    restarting = asyncio.ensure_future(restart())
    await yield_to_loop(5)
    gate.set()
    await restarting
    assert await collect(stream) == [0]


async def test_law_11_iteration_continues_after_a_break() -> None:
    stream = PullEagerObj(CountedSource(6), 2)
    async for item in stream:
        if item == 2:
            break
    assert await collect(stream) == [3, 4, 5]


async def test_law_12_concurrent_pulls_are_served_in_order() -> None:
    stream = PullEagerObj(CountedSource(20, delay=0), 3)
    received: list[tuple[int, int]] = []

    async def pull(number: int) -> None:
        received.append((number, await anext(stream)))

    await asyncio.gather(*(pull(number) for number in range(20)))
    assert received == [(n, n) for n in range(20)]
    await stream.aclose()


async def test_law_13_buffer_size_is_live() -> None:
    source = CountedSource(20)
    async with PullEagerObj(source) as stream:
        assert await anext(stream) == 0
        await yield_to_loop(5)
        assert source.pulls == 2
        stream.buffer_size = 4
        assert stream.buffer_size == 4
        assert await anext(stream) == 1
        await yield_to_loop(5)
        assert source.pulls == 6
        stream.buffer_size = 1
        for n in range(2, 6):
            assert await anext(stream) == n
            await yield_to_loop(5)
        assert source.pulls == 7


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: PullEagerObj([1], 0),
            ValueError,
            r"buffer_size must be at least 1, got 0 \(int\)",
        ),
        (lambda: PullEagerObj([1], -1), ValueError, r"buffer_size must be at least 1"),
        (
            lambda: PullEagerObj([1], wrong(True)),
            TypeError,
            "buffer_size must be an integer, got True",
        ),
        (lambda: PullEagerObj([1], wrong("1")), TypeError, r"must be an integer, got '1' \(str\)"),
        (lambda: PullEagerObj([1], wrong(1.5)), TypeError, "must be an integer"),
        (lambda: PullEagerObj(wrong(3)), TypeError, "source must be an iterable"),
        (lambda: setattr(PullEagerObj([1]), "buffer_size", 0), ValueError, "buffer_size"),
    ],
)
def test_law_14_bad_input_is_refused(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


async def test_law_16_ready_source_yields_to_the_loop() -> None:
    def source() -> Iterator[int]:
        yield from range(50_000)

    async with Heart() as heart:
        stream = PullEagerObj(source(), 1_000_000)
        assert await anext(stream) == 0
        count = 1
        async for _ in stream:
            count += 1
    assert count == 50_000
    assert heart.beats >= 2 * (50_000 // 4096)


async def test_law_17_deep_pipeline_runs() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(100):
        for _ in range(100):
            stream = stream.map(lambda n: n)
        stream = stream.prefetch()
    assert await collect(stream) == [0, 1, 2]
    assert len(asyncio.all_tasks()) == 1


async def test_law_17_thousand_prefetches_close() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(1_000):
        stream = stream.prefetch()
    assert await anext(stream) == 0
    await stream.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_items_added_to_the_source_are_pulled() -> None:
    source: SourceBufferObj[int] = SourceBufferObj([1])
    async with source.prefetch() as stream:
        source.buffer.append(2)
        assert await collect(stream) == [1, 2]


async def test_subclass_may_extend_pull_impl() -> None:
    class Twice(PullEagerObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            async for item in super().pull_impl():
                yield item
                yield item

    source = CountedSource(3)
    assert await collect(Twice(source, 2)) == [0, 0, 1, 1, 2, 2]
    async with Twice(source).map(lambda n: n) as stream:
        assert await anext(stream) == 0
    assert len(source.closed) == 2
