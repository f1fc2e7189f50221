"""`prefetch` and its background task, by law."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    PullEagerObj,
    PullObj,
    SourceBufferObj,
    SourceCancelledError,
    SourceIterObj,
    WrongLoopError,
)
from tests.prefetch_sources import CountedSource, Failing, pull_one
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
    asyncio.run(pull_one(stream))
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
