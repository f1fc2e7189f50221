"""Closing an `AsyncIteratorCombiner`: its sources, pending pulls and errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    ClosedError,
    PushPullBufferObj,
    SourceObj,
)
from tests.support import Failing, Sources, assert_bound_to_loop, cancel_repeatedly, quiet, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


async def test_exit_closes_sources_in_their_task_and_context() -> None:
    sources = Sources()
    combiner = AsyncIteratorCombiner(
        sources.source("a"), sources.source("b", 5), sources.source("c", 100)
    )
    async with combiner.race_generator() as race:
        async for _ in race:
            break
    assert sorted(sources.ended) == ["a", "b", "c"]
    assert len(asyncio.all_tasks()) == 1


async def test_ended_source_is_closed_by_the_task_that_ran_it() -> None:
    closed: list[object] = []

    class Source(SourceObj[int]):
        async def __anext__(self) -> int:
            self.task = asyncio.current_task()
            raise StopAsyncIteration

        async def aclose(self) -> None:
            closed.append(asyncio.current_task() is self.task)

    race = AsyncIteratorCombiner(Source()).race_generator()
    assert [item async for item in race] == []
    await race.aclose()
    assert closed == [True]


async def test_close_before_the_first_pull_starts_no_source() -> None:
    closed: list[str] = []

    def items() -> Iterator[int]:
        closed.append("started")
        yield 1

    class Source(SourceObj[int]):
        async def __anext__(self) -> int:
            raise AssertionError

        async def aclose(self) -> None:
            closed.append("closed")

    class Stream:
        def __aiter__(self) -> AsyncIterator[int]:
            raise AssertionError

    async with AsyncIteratorCombiner(items(), Source(), Stream()).race_generator() as race:
        pass
    assert closed == ["closed"]
    with pytest.raises(StopAsyncIteration):
        await anext(race)


async def test_closing_again_does_nothing() -> None:
    sources = Sources()
    race = AsyncIteratorCombiner(sources.source("a")).race_generator()
    await anext(race)
    await asyncio.gather(race.aclose(), race.aclose())
    await race.aclose()
    assert sources.ended == ["a"]
    with pytest.raises(StopAsyncIteration):
        await anext(race)


async def test_closing_ends_a_pending_pull() -> None:
    race = AsyncIteratorCombiner(PushPullBufferObj[int]().source).race_generator()
    pulling = asyncio.ensure_future(anext(race))
    await quiet()
    await race.aclose()
    with pytest.raises(ClosedError):
        await pulling


async def test_one_close_error_is_raised_without_a_group() -> None:
    sources = Sources()
    race = AsyncIteratorCombiner(Failing("x"), sources.source("a")).race_generator()
    await anext(race)
    with pytest.raises(ValueError, match="x") as raised:
        await race.aclose()
    assert raised.value.__notes__ == ["raised by source 0 of AsyncIteratorCombiner, Failing"]
    assert sources.ended == ["a"]


async def test_several_close_errors_are_raised_as_a_group() -> None:
    sources = Sources()
    race = AsyncIteratorCombiner(Failing("x"), sources.source("a"), Failing("y")).race_generator()
    await anext(race)
    with pytest.raises(ExceptionGroup) as raised:
        await race.aclose()
    assert sorted(str(error) for error in raised.value.exceptions) == ["x", "y"]
    assert sources.ended == ["a"]
    await race.aclose()


async def test_clean_up_error_of_a_pull_is_raised_by_close() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while cleaning up")

    race = AsyncIteratorCombiner(source()).race_generator()
    await anext(race)
    pulling = asyncio.ensure_future(anext(race))
    await quiet()
    with pytest.raises(ValueError, match="while cleaning up"):
        await race.aclose()
    with pytest.raises(ClosedError):
        await pulling


async def test_close_error_of_an_ended_source_is_raised() -> None:
    class Source(Failing):
        async def __anext__(self) -> int:
            raise StopAsyncIteration

    race = AsyncIteratorCombiner(Source("x")).race_generator()
    with pytest.raises(ValueError, match="x"):
        await anext(race)
    with pytest.raises(StopAsyncIteration):
        await anext(race)


async def test_body_error_takes_precedence_over_close_error() -> None:
    async def fail() -> None:
        async with AsyncIteratorCombiner(Failing("x")).race_generator() as race:
            await anext(race)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        await fail()
    assert any("ValueError('x')" in note for note in raised.value.__notes__)


async def test_second_cancellation_waits_for_the_clean_up() -> None:
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    async def consume() -> None:
        async with AsyncIteratorCombiner(source()).race_generator() as race:
            async for _ in race:
                pass

    consumer = asyncio.create_task(consume())
    await quiet()
    await cancel_repeatedly(consumer, cleaning, cleaned)
    assert len(asyncio.all_tasks()) == 1


async def test_dropped_race_warns_and_closes_its_sources() -> None:
    sources = Sources()
    races = [AsyncIteratorCombiner(sources.source("a"), sources.source("b", 100)).race_generator()]
    await anext(races[0])
    with pytest.warns(ResourceWarning, match="unclosed <race_generator of 2 sources"):
        races.clear()
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert sorted(sources.ended) == ["a", "b"]


def test_program_end_closes_an_open_race() -> None:
    ended: list[str] = []
    races: list[Any] = []

    async def source(name: str) -> AsyncIterator[str]:
        try:
            yield name
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def main() -> None:
        races.append(AsyncIteratorCombiner(source("a"), source("b")).race_generator())
        await anext(races[0])
        await anext(races[0])
        await quiet()

    asyncio.run(main())
    assert sorted(ended) == ["a", "b"]


def test_expired_timeout_does_not_block_program_end() -> None:
    races: list[Any] = []
    expired: list[int] = []

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            try:
                async with asyncio.timeout(0):
                    yield number
            except TimeoutError:
                expired.append(number)

    async def main() -> None:
        races.append(AsyncIteratorCombiner(source()).race_generator())
        await anext(races[0])
        await quiet()
        # The source is at its second `yield`, and the timeout there has expired as well.
        assert expired == [0]

    asyncio.run(main())


def test_race_belongs_to_the_loop_of_its_first_pull() -> None:
    race = AsyncIteratorCombiner(["a"], PushPullBufferObj[str]().source).race_generator()
    assert_bound_to_loop(race, lambda: anext(race))


async def test_law_4_cancelled_consumer_closes_all_sources() -> None:
    for iterations in range(60):
        sources = Sources()
        seen: Counter[str] = Counter()

        async def consume(sources: Sources, seen: Counter[str]) -> None:
            names = ("a", 0), ("b", 1), ("c", 7)
            combiner = AsyncIteratorCombiner(*(sources.source(*name) for name in names))
            async with combiner.race_generator() as race:
                async for item in race:
                    seen[item] += 1
                    await asyncio.sleep(0)

        consumer = asyncio.ensure_future(consume(sources, seen))
        for _ in range(iterations):
            await asyncio.sleep(0)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert len(asyncio.all_tasks()) == 1
        # A generator that was never started is closed without running its `finally`.
        assert len(sources.ended) == len(set(sources.ended))
        assert set(seen) <= set(sources.ended) <= {"a", "b", "c"}
        assert iterations < 5 or len(sources.ended) == 3
