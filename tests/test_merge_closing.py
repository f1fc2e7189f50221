"""Closing a merge: each source is closed by the task that drove it, in any circumstances."""

from __future__ import annotations

import asyncio
import gc
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    ClosedError,
    PullConcatObj,
    PullObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    PushPullBufferObj,
    SourceIterObj,
    SourceObj,
)
from tests.merge_sources import MERGES
from tests.support import Failing, Sources, cancel_repeatedly, quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.mark.parametrize("make", MERGES)
async def test_law_4_leaving_closes_every_source(make: Callable[..., PullObj[Any]]) -> None:
    sources = Sources()
    closed: list[str] = []

    def sync() -> Iterator[str]:
        try:
            while True:
                yield "s"
        finally:
            closed.append("s")

    class Never(SourceObj[int]):
        async def aclose(self) -> None:
            closed.append("never")

    buffer: PushPullBufferObj[str] = PushPullBufferObj()
    buffer.sink.next_nowait("b")
    parts: list[Any] = [sources.source("a"), sync(), buffer.source, sources.source("z", 100)]
    if make is PullConcatObj:
        parts.append(Never())
    async with make(*parts) as stream:
        async for _ in stream.map(lambda item: item):
            break
    assert sorted(sources.ended) == (["a"] if make is PullConcatObj else ["a", "z"])
    assert closed == (["never"] if make is PullConcatObj else ["s"])
    with pytest.raises(ClosedError):
        buffer.sink.next_nowait("b")
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("make", MERGES)
async def test_law_4_errors_do_not_stop_closing_the_others(
    make: Callable[..., PullObj[Any]],
) -> None:
    sources = Sources()
    stream = make(Failing("x"), sources.source("a"), Failing("y"))
    await anext(stream)
    with pytest.raises(ExceptionGroup) as raised:
        await stream.aclose()
    assert sorted(str(error) for error in raised.value.exceptions) == ["x", "y"]
    # Sources are closed concurrently, so their errors may be in any order.
    notes = sorted(error.__notes__ for error in raised.value.exceptions)
    assert notes == [[f"raised by source {n} of {make.__name__}, Failing"] for n in (0, 2)]
    await stream.aclose()
    assert sources.ended == ([] if make is PullConcatObj else ["a"])
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("make", MERGES)
async def test_law_4_second_cancel_waits_for_the_clean_up(
    make: Callable[..., PullObj[Any]],
) -> None:
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    async def consume() -> None:
        async with make(source(), itertools.count()) as stream:
            async for _ in stream:
                await asyncio.sleep(0)

    consumer = asyncio.create_task(consume())
    await quiet()
    await cancel_repeatedly(consumer, cleaning, cleaned)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("make", MERGES)
async def test_law_4_cancelled_at_any_await_leaves_nothing(
    make: Callable[..., PullObj[Any]],
) -> None:
    async def consume(sources: Sources) -> None:
        async with make(*(sources.source(*name) for name in (("a", 0), ("b", 1), ("c", 4)))) as s:
            async for _ in s.map(lambda item: item):
                await asyncio.sleep(0)

    for iterations in range(25):
        sources = Sources()
        consumer = asyncio.ensure_future(consume(sources))
        for _ in range(iterations):
            await asyncio.sleep(0)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert len(asyncio.all_tasks()) == 1
        assert len(sources.ended) == len(set(sources.ended))


@pytest.mark.parametrize("make", MERGES)
async def test_law_4_closing_at_any_time_ends_a_pending_pull(
    make: Callable[..., PullObj[Any]],
) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()

    async def silent() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    for iterations in range(5):
        stream = make(silent(), buffer.source.map(str), silent())
        pulling = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
        for _ in range(iterations):
            await asyncio.sleep(0)
        await stream.aclose()
        outcomes = await asyncio.gather(*pulling, return_exceptions=True)
        assert all(isinstance(one, ClosedError | StopAsyncIteration) for one in outcomes), (
            iterations
        )
        assert len(asyncio.all_tasks()) == 1
        buffer = PushPullBufferObj()


async def test_law_4_closing_ends_a_pull_in_a_native_source() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    inner = PullRaceObj(buffer.source, Sources().source("a", 1_000_000))
    async with PullRaceObj(inner, [1]) as race:
        assert await anext(race) == 1
        pulling = asyncio.ensure_future(anext(race))
        await quiet()
    with pytest.raises(ClosedError):
        await pulling
    with pytest.raises(ClosedError):
        buffer.sink.next_nowait(1)


async def test_end_closes_the_other_sources() -> None:
    for stream in (
        PullZipObj([1], (left := Sources()).source("a")),
        PullRaceCutoffObj(left.source("b"), ["now"]),
        PullZipObj([1], left.source("c"), errors="stop"),
    ):
        async for _ in stream:
            pass
        assert len(asyncio.all_tasks()) == 1
    assert left.ended == ["a", "b", "c"]


async def test_end_raises_the_error_of_closing() -> None:
    stream = PullZipObj([1], Failing("x"))
    assert await anext(stream) == (1, 1)
    with pytest.raises(ValueError, match="x"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_ended_source_is_closed_at_once() -> None:
    closed = asyncio.Event()

    class Source(SourceObj[int]):
        async def __anext__(self) -> int:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            closed.set()

    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    async with PullRaceObj(Source(), buffer.source) as race:
        pulling = asyncio.ensure_future(anext(race))
        await asyncio.wait_for(closed.wait(), 1)
        assert len(race.sources) == 1
        buffer.sink.next_nowait(1)
        assert await pulling == 1


async def test_leaving_a_combiner_closes_its_sources() -> None:
    sources = Sources()
    async with AsyncIteratorCombiner(sources.source("a"), sources.source("b")) as combiner:
        assert await combiner.race() in "ab"
        assert await combiner.all() == ("a", "b")
    assert sorted(sources.ended) == ["a", "b"]
    for step in (combiner.race, combiner.all, combiner.any):
        with pytest.raises(StopAsyncIteration):
            await step()


@pytest.mark.parametrize("make", [PullZipObj, PullRoundRobinObj, PullRaceObj, PullRaceRobinObj])
async def test_law_5_dropped_stream_warns_and_closes(make: Callable[..., PullObj[Any]]) -> None:
    sources = Sources()
    streams = [make(sources.source("a"), sources.source("b", 100)).map(str)]
    pulling = asyncio.ensure_future(anext(streams[0]))
    await quiet()
    pulling.cancel()
    await asyncio.wait([pulling])
    with pytest.warns(ResourceWarning, match=f"unclosed <{make.__name__} of 2 sources>"):
        streams.clear()
        del pulling
        gc.collect()
    await quiet()
    assert sorted(sources.ended) == ["a", "b"]


async def test_law_5_dropped_stream_drops_native_sources() -> None:
    sources = Sources()
    buffer: PushPullBufferObj[str] = PushPullBufferObj()
    streams = [PullRaceObj(PullRaceObj(sources.source("a", 10_000)), buffer.source)]
    pulling = asyncio.ensure_future(anext(streams[0]))
    await quiet()
    pulling.cancel()
    await asyncio.wait([pulling])
    with warnings.catch_warnings():
        # Ignore the warning of the inner stream, whose time is not defined.
        warnings.simplefilter("ignore", ResourceWarning)
        streams.clear()
        del pulling
        await quiet()
        gc.collect()
        await quiet()
    assert sources.ended == ["a"]
    buffer.sink.next_nowait("kept")
    assert await anext(buffer.source) == "kept"


async def test_law_5_stream_in_a_cycle_is_collected() -> None:
    sources = Sources()
    held: list[Any] = []
    stream: Any = PullRaceObj(sources.source("a"))
    stream.me = stream.map(held.append)
    held.append(stream)
    await anext(stream)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del stream, held
        gc.collect()
    await quiet()
    assert sources.ended == ["a"]


async def test_law_5_unused_stream_is_dropped_without_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in MERGES:
            make([1], SourceIterObj([2]))
        gc.collect()


@pytest.mark.parametrize("make", MERGES)
def test_merge_does_not_delay_program_exit(make: Callable[..., PullObj[Any]]) -> None:
    ended: list[str] = []
    streams: list[Any] = []

    async def source(name: str) -> AsyncIterator[str]:
        try:
            while True:
                yield name
                await asyncio.sleep(0)
        finally:
            ended.append(name)

    async def swallows() -> AsyncIterator[str]:
        while True:
            try:
                async with asyncio.timeout(0):
                    yield "swallowed"
            except TimeoutError:
                pass

    async def main() -> None:
        streams.append(make(source("a"), source("b"), swallows()))
        for _ in range(5):
            await anext(streams[0])
        await quiet()

    asyncio.run(main())
    assert sorted(ended) == (["a"] if make is PullConcatObj else ["a", "b"])


@pytest.mark.timeout(20)
def test_starting_sources_do_not_delay_program_exit() -> None:
    async def main() -> None:
        pipeline: PullObj[int] = PushPullBufferObj[int]().source
        # Of so many nested sources only some start in one iteration.
        for _ in range(200):
            pipeline = PullConcatObj(pipeline.map(lambda n: n), [7])
        pulls.append(anext(pipeline))
        pulls[0].send(None)

    pulls: list[Any] = []
    with warnings.catch_warnings():
        # Ignore warnings of unclosed streams.
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(main())
        pulls.pop().close()
        gc.collect()
