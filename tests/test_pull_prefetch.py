"""Fetching ahead, and the pump that does it, law by law."""

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
from tests.support import Heart, collect, collect_with_cancellations, quiet, turns, until, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Counted:
    """A source that says how often it was asked, and by which tasks it was driven and closed."""

    def __init__(self, count: int, *, delay: float | None = None) -> None:
        self.count = count
        self.delay = delay
        self.asked = 0
        self.tasks: set[Any] = set()
        self.closed: list[Any] = []

    def __aiter__(self) -> AsyncIterator[int]:
        return self._items()

    async def _items(self) -> AsyncIterator[int]:
        try:
            for n in range(self.count):
                self.asked += 1
                self.tasks.add(asyncio.current_task())
                if self.delay is not None:
                    await asyncio.sleep(self.delay)
                yield n
            self.asked += 1
        finally:
            await asyncio.sleep(0)
            self.closed.append(asyncio.current_task())


class Failing:
    """An async iterator that raises what it is given instead of some items, and goes on."""

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
async def test_eager_gives_what_its_source_gives(size: int) -> None:
    assert await collect(PullEagerObj(range(20), size)) == list(range(20))
    assert await collect(PullEagerObj(Counted(20), size)) == list(range(20))
    assert await collect(PullEagerObj(Counted(20, delay=0), size)) == list(range(20))
    line = SourceIterObj(range(20)).map(lambda n: n + 1).prefetch(size).filter(lambda n: n % 2)
    assert await collect(line.batch(3)) == [[1, 3, 5], [7, 9, 11], [13, 15, 17], [19]]
    assert len(asyncio.all_tasks()) == 1


async def test_items_that_look_like_errors_or_ends_come_through_as_they_are() -> None:
    items: list[Any] = [None, ValueError("v"), StopAsyncIteration(), (), asyncio.CancelledError]
    received = await collect(PullEagerObj(items, 3))
    assert all(got is item for got, item in zip(received, items, strict=True))


@pytest.mark.parametrize("size", [1, 3])
async def test_law_1_it_is_never_further_ahead_than_it_may_be(size: int) -> None:
    source = Counted(10)
    async with PullEagerObj(source, size) as stream:
        await turns(10)
        assert source.asked == 0
        for n in range(5):
            assert await anext(stream) == n
            await turns(10)
            assert source.asked == n + 1 + size


@pytest.mark.virtual
@pytest.mark.parametrize("kind", ["generator", "native"])
async def test_law_2_under_wait_for_every_item_of_a_slow_source_arrives(kind: str) -> None:
    async def slow(n: int) -> int:
        await asyncio.sleep(0.005)
        return n

    source: PullObj[int] = (
        SourceIterObj(Counted(200, delay=0.005))
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
async def test_law_2_cancelled_anywhere_nothing_is_lost_or_repeated(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)

    async def generator() -> AsyncIterator[int]:
        for n in range(60):
            await turns(rng.randrange(3))
            yield n

    async def slow(n: int) -> int:
        await turns(n % 3)
        return n

    stream = SourceIterObj(generator()).prefetch(rng.randrange(1, 5)).map(slow).prefetch().map(slow)
    received, cancelled = await collect_with_cancellations(stream, rng, 8, spare=0)
    assert received == list(range(60))
    assert cancelled > 3


async def test_law_2_a_task_cancelled_by_somebody_else_is_no_clean_end() -> None:
    source = Counted(5, delay=0)
    stream = PullEagerObj(source)
    assert await anext(stream) == 0
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns(20)
    with pytest.raises(SourceCancelledError, match="was cancelled"):
        await collect(stream)
    assert await collect(stream) == []
    assert len(source.closed) == 1
    await stream.aclose()
    # Inside a pull.
    stream = PullEagerObj(Counted(5, delay=0))
    assert await anext(stream) == 0
    await turns(1)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(SourceCancelledError, match="was cancelled"):
        await collect(stream)
    # Before its first step.
    unborn = PullEagerObj(source)
    pull = asyncio.ensure_future(anext(unborn))
    await turns(1)
    tasks = asyncio.all_tasks() - {asyncio.current_task(), pull}
    for task in tasks:
        task.cancel()
    with pytest.raises(SourceCancelledError):
        await pull
    await unborn.aclose()


async def test_law_3_an_error_costs_one_item_and_is_the_very_object() -> None:
    error, struck = ValueError("one"), asyncio.CancelledError("by itself")
    stream = PullEagerObj(Failing(0, error, 1, struck, 2), 5)
    assert await anext(stream) == 0
    with pytest.raises(ValueError) as caught:
        await anext(stream)
    assert caught.value is error
    assert await anext(stream) == 1
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await anext(stream)
    assert cancelled.value is struck
    assert await collect(stream) == [2]


async def test_law_3_the_source_is_not_pulled_beyond_an_error_that_nobody_saw() -> None:
    script = Failing(0, ValueError("one"), 1, 2)
    async with PullEagerObj(script, 10) as stream:
        assert await anext(stream) == 0
        await turns(20)
        assert script.script == [1, 2]
        with pytest.raises(ValueError, match="one"):
            await anext(stream)
        await turns(20)
        assert script.script == []


async def test_law_3_an_error_that_is_no_exception_costs_one_item() -> None:
    class Odd(BaseException):
        pass

    stream = PullEagerObj(Failing(0, Odd(), 1))
    assert await anext(stream) == 0
    with pytest.raises(Odd):
        await anext(stream)
    assert await collect(stream) == [1]


async def test_law_4_one_task_in_one_context_drives_the_source_and_closes_it() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []

    async def generator() -> AsyncIterator[int]:
        token = variable.set("inside")
        try:
            for n in range(9):
                yield n
                seen.append(variable.get())
        finally:
            variable.reset(token)
            seen.append(variable.get())

    async with SourceIterObj(generator()).prefetch() as stream:
        assert await anext(stream) == 0
        await asyncio.create_task(turns(3))
        assert await asyncio.create_task(_next(stream)) == 1
    assert set(seen[:-1]) == {"inside"}
    assert seen[-1] == "outside"
    source = Counted(9, delay=0)
    async with PullEagerObj(source, 2) as stream:
        await anext(stream)
    assert set(source.closed) == source.tasks
    assert source.closed[0] is not asyncio.current_task()


async def _next(stream: PullObj[Any]) -> Any:
    return await anext(stream)


@pytest.mark.virtual
async def test_a_timeout_that_strikes_inside_a_pull_is_the_source_s_own_and_at_rest_ends_it() -> (
    None
):
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


async def test_law_4_a_source_that_ends_is_closed_before_the_end_is_told() -> None:
    source = Counted(9)
    stream = SourceIterObj(source).take(2).prefetch()
    assert await collect(stream) == [0, 1]
    assert len(source.closed) == 1
    assert len(asyncio.all_tasks()) == 1


async def test_law_4_leaving_the_block_closes_everything() -> None:
    source = Counted(100, delay=0)
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
        await turns(5)
        await stream.aclose()
        with pytest.raises(ClosedError):
            await pull
    assert len(asyncio.all_tasks()) == 1


async def test_law_4_a_stream_that_was_never_pulled_closes_its_source() -> None:
    closed: list[str] = []

    class Source(SourceObj[int]):
        async def aclose(self) -> None:
            closed.append("closed")

    stream = Source().prefetch()
    await stream.aclose()
    await stream.aclose()
    assert closed == ["closed"]


async def test_law_4_a_second_cancellation_waits_for_the_clean_up() -> None:
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
        await turns(5)
        closing.cancel()
    await turns(5)
    assert not closing.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert cleaned == ["clean"]
    assert len(asyncio.all_tasks()) == 1


class Waiting(SourceObj[int]):
    """A source whose items never come, and which is closed in its own time."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.told: list[Any] = []

    async def __anext__(self) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.told.append("cancelled")
            await self.opened.wait()
            raise
        return 1

    async def aclose(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.told.append(task.cancelling())


async def test_law_4_a_source_is_cancelled_once_and_closed_by_a_task_that_nobody_cancels() -> None:
    source = Waiting()
    stream = source.prefetch()
    pull = asyncio.ensure_future(anext(stream))
    await turns(3)
    closings = [asyncio.ensure_future(stream.aclose()) for _ in range(3)]
    await turns(5)
    assert source.told == ["cancelled"]
    source.opened.set()
    await asyncio.gather(*closings)
    assert source.told == ["cancelled", 0]
    with pytest.raises(ClosedError):
        await pull


async def test_law_4_an_error_of_the_clean_up_of_a_cancelled_pull_is_raised() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 0
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("clean-up")

    stream = SourceIterObj(generator()).prefetch()
    assert await anext(stream) == 0
    await turns(3)
    with pytest.raises(OSError, match="clean-up"):
        await stream.aclose()


@pytest.mark.parametrize("pulls", [1, 4])
async def test_law_4_an_error_of_closing_is_raised_once(pulls: int) -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            for n in range(3):
                yield n
        finally:
            raise OSError("closing")

    stream = SourceIterObj(generator()).prefetch()
    if pulls == 1:
        assert await anext(stream) == 0
        with pytest.raises(OSError, match="closing"):
            await stream.aclose()
    else:
        with pytest.raises(OSError, match="closing"):
            await collect(stream)
        assert await collect(stream) == []
    await stream.aclose()


async def test_law_4_an_error_of_closing_at_the_end_is_raised_before_the_end() -> None:
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


async def test_law_4_a_source_that_closes_its_own_stream_is_refused() -> None:
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
    await turns(5)
    assert len(refused) >= 1
    assert "cannot pull or close" in refused[0]
    await stream.aclose()


async def test_law_5_a_dropped_stream_warns_and_its_task_closes_the_source() -> None:
    source = Counted(9, delay=0)
    streams: list[PullObj[int]] = [SourceIterObj(source).prefetch(2).map(lambda n: n)]
    assert await anext(streams[0]) == 0
    with pytest.warns(ResourceWarning, match=r"unclosed <PullEagerObj of <SourceIterObj"):
        streams.clear()
        gc.collect()
    await turns(20)
    assert set(source.closed) == source.tasks
    assert len(asyncio.all_tasks()) == 1


async def test_law_5_the_task_of_a_dropped_stream_is_held_until_it_has_ended() -> None:
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
    await turns(3)
    with pytest.warns(ResourceWarning):
        streams.clear()
    await turns(5)
    gc.collect()
    for future in futures:
        future.set_result(None)
    await turns(5)
    assert len(asyncio.all_tasks()) == 1


async def test_law_5_a_stream_that_has_no_task_may_be_dropped() -> None:
    ended, fresh = PullEagerObj(range(2)), PullEagerObj(range(2))
    assert await collect(ended) == [0, 1]
    del ended, fresh
    gc.collect()


def test_law_5_a_stream_may_outlive_its_loop() -> None:
    async def main() -> PullObj[int]:
        stream = PullEagerObj(Counted(9))
        assert await anext(stream) == 0
        return stream

    stream = asyncio.run(main())
    del stream
    gc.collect()


def test_law_9_another_loop_is_refused() -> None:
    async def use() -> list[int]:
        return [await anext(stream), await anext(stream)]

    stream = PullEagerObj(range(9))
    home, elsewhere = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert home.run_until_complete(use()) == [0, 1]
        home.run_until_complete(quiet())
        with pytest.raises(WrongLoopError):
            # What is held needs no loop; what has to be waited for is refused.
            elsewhere.run_until_complete(use())
        assert home.run_until_complete(use()) == [3, 4]
        with pytest.raises(WrongLoopError):
            elsewhere.run_until_complete(stream.aclose())
        home.run_until_complete(stream.aclose())
    finally:
        home.close()
        elsewhere.close()
    stream.restart()
    # A runner cancels what is left when it ends: an item is held, and then no clean end.
    asyncio.run(_next(stream))
    with pytest.raises((WrongLoopError, SourceCancelledError)):
        asyncio.run(collect(stream))
    stream.restart()
    assert asyncio.run(collect(stream)) == list(range(9))


async def test_law_11_restart_begins_a_new_cycle() -> None:
    source = Counted(3)
    stream = SourceIterObj(source).prefetch(2).map(lambda n: n * 10)
    assert await collect(stream) == [0, 10, 20]
    assert await collect(stream) == []
    stream.restart()
    assert await anext(stream) == 0
    await turns(10)
    # In the middle, with items ahead: they belong to the cycle that is over.
    stream.restart()
    asked = source.asked
    await turns(10)
    assert source.asked == asked
    assert await anext(stream) == 0
    await stream.aclose()
    stream.restart()
    assert await collect(stream) == [0, 10, 20]


async def test_law_11_restart_is_refused_while_an_item_is_being_fetched() -> None:
    gate = asyncio.Event()

    async def slow(n: int) -> int:
        if n:
            await gate.wait()
        return n

    stream = SourceIterObj(range(3)).map(slow).prefetch()
    assert await anext(stream) == 0
    await turns(5)
    with pytest.raises(RuntimeError, match=r"cannot restart .* aclose\(\)"):
        stream.restart()
    pull = asyncio.ensure_future(anext(stream))
    await turns(5)
    with pytest.raises(RuntimeError, match="cannot restart"):
        stream.restart()
    gate.set()
    assert await pull == 1
    assert await collect(stream) == [2]
    once = PullEagerObj(iter([1, 2]))
    assert await anext(once) == 1
    await turns(5)
    with pytest.raises(RuntimeError, match="runs once"):
        once.restart()
    assert await collect(once) == [2]


@pytest.mark.virtual
async def test_law_11_restart_between_an_item_and_the_pull_that_waits_for_it_is_refused() -> None:
    gate = asyncio.Event()
    refused: list[str] = []

    async def slow(n: int) -> int:
        if n:
            await gate.wait()
        return n

    stream = SourceIterObj(range(3)).map(slow).timeout(9.0).map(lambda n: n)
    assert await anext(stream) == 0
    pull = asyncio.ensure_future(anext(stream))
    await turns(5)

    async def restart() -> None:
        # Behind the pump, and before the pull that it wakes.
        await gate.wait()
        try:
            stream.restart()
        except RuntimeError as error:
            refused.append(str(error))

    restarting = asyncio.ensure_future(restart())
    await turns(5)
    gate.set()
    await restarting
    assert len(refused) == 1
    assert await pull == 1
    assert await collect(stream) == [2]


@pytest.mark.virtual
async def test_law_11_restart_at_the_very_end_begins_a_new_cycle() -> None:
    gate = asyncio.Event()

    async def last(n: int) -> bool:
        if n:
            await gate.wait()
        return n == 0

    stream = SourceIterObj(range(2)).filter(last).prefetch()
    assert await anext(stream) == 0
    await turns(5)

    async def restart() -> None:
        # Behind the task, and before the loop tells of its end.
        await gate.wait()
        await until(lambda: len(asyncio.all_tasks()) == 2)
        stream.restart()

    restarting = asyncio.ensure_future(restart())
    await turns(5)
    gate.set()
    await restarting
    assert await collect(stream) == [0]


async def test_law_11_iteration_goes_on_after_break() -> None:
    stream = PullEagerObj(Counted(6), 2)
    async for item in stream:
        if item == 2:
            break
    assert await collect(stream) == [3, 4, 5]


async def test_law_12_concurrent_pulls_are_served_in_turn() -> None:
    stream = PullEagerObj(Counted(20, delay=0), 3)
    received: list[tuple[int, int]] = []

    async def pull(who: int) -> None:
        received.append((who, await anext(stream)))

    await asyncio.gather(*(pull(who) for who in range(20)))
    assert received == [(n, n) for n in range(20)]
    await stream.aclose()


async def test_law_13_the_buffer_size_is_live() -> None:
    source = Counted(20)
    async with PullEagerObj(source) as stream:
        assert await anext(stream) == 0
        await turns(5)
        assert source.asked == 2
        stream.buffer_size = 4
        assert stream.buffer_size == 4
        assert await anext(stream) == 1
        await turns(5)
        assert source.asked == 6
        stream.buffer_size = 1
        for n in range(2, 6):
            assert await anext(stream) == n
            await turns(5)
        assert source.asked == 7


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


async def test_law_16_a_ready_source_does_not_keep_the_loop_from_turning() -> None:
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


async def test_law_17_a_deep_line_runs() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(100):
        for _ in range(100):
            stream = stream.map(lambda n: n)
        stream = stream.prefetch()
    assert await collect(stream) == [0, 1, 2]
    assert len(asyncio.all_tasks()) == 1


async def test_law_17_a_thousand_of_them_close() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(1_000):
        stream = stream.prefetch()
    assert await anext(stream) == 0
    await stream.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_a_source_that_is_added_to_is_drawn_from_live() -> None:
    source: SourceBufferObj[int] = SourceBufferObj([1])
    async with source.prefetch() as stream:
        source.buffer.append(2)
        assert await collect(stream) == [1, 2]


async def test_a_subclass_can_add_to_what_it_gives() -> None:
    class Twice(PullEagerObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            async for item in super().pull_impl():
                yield item
                yield item

    source = Counted(3)
    assert await collect(Twice(source, 2)) == [0, 0, 1, 1, 2, 2]
    async with Twice(source).map(lambda n: n) as stream:
        assert await anext(stream) == 0
    assert len(source.closed) == 2
