"""Closing and dropping streams with a `prefetch`: guarantees 4 and 5."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullEagerObj,
    PullObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
)
from tests.prefetch_sources import CountedSource, pull_one
from tests.support import collect, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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
        assert await asyncio.create_task(pull_one(stream)) == 1
    assert set(values[:-1]) == {"inside"}
    assert values[-1] == "outside"
    source = CountedSource(9, delay=0)
    async with PullEagerObj(source, 2) as stream:
        await anext(stream)
    assert set(source.closed) == source.tasks
    assert source.closed[0] is not asyncio.current_task()


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
