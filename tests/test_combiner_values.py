"""Methods of `AsyncIteratorCombiner` that take one value of each source, or of the first."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import AsyncIteratorCombiner, SourceObj
from tests.merge_sources import ready, slow
from tests.support import quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_all_race_and_any_take_one_value() -> None:
    combiner = AsyncIteratorCombiner([1, 2, 3], slow("ab"))
    async with combiner:
        assert await combiner.all() == (1, "a")
        assert await combiner.all() == (2, "b")
        with pytest.raises(StopAsyncIteration):
            await combiner.all()
        assert await combiner.race() == 3
        for step in (combiner.race, combiner.any, combiner.all):
            with pytest.raises(StopAsyncIteration):
                await step()


async def test_all_after_a_cancellation_is_complete() -> None:
    more, start = asyncio.Event(), asyncio.Event()

    async def first() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    async def second() -> AsyncIterator[str]:
        await start.wait()
        yield "a"

    async with AsyncIteratorCombiner(first(), second()) as combiner:
        cancelled = asyncio.ensure_future(combiner.all())
        await quiet()
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        # The cancelled call had found this item already.
        assert await combiner.race() == 1
        start.set()
        step = asyncio.ensure_future(combiner.all())
        await quiet()
        more.set()
        assert await step == (2, "a")


async def test_any_returns_the_first_success() -> None:
    async def fails(iterations: int) -> AsyncIterator[str]:
        for _ in range(iterations):
            await asyncio.sleep(0)
        if iterations >= 0:
            raise ValueError(iterations)
        yield ""

    async with AsyncIteratorCombiner(fails(0), slow("a", 5), fails(2)) as combiner:
        assert await combiner.any() == "a"
        with pytest.raises(StopAsyncIteration):
            await combiner.any()
    async with AsyncIteratorCombiner(fails(0), fails(2)) as combiner:
        with pytest.raises(ExceptionGroup, match="all sources failed") as raised:
            await combiner.any()
        assert sorted(str(error) for error in raised.value.exceptions) == ["0", "2"]
        with pytest.raises(StopAsyncIteration):
            await combiner.any()


async def test_any_does_not_pull_a_failed_source_again() -> None:
    class Flaky(SourceObj[int]):
        pulls = 0

        async def __anext__(self) -> int:
            self.pulls += 1
            if self.pulls % 2:
                raise ValueError(self.pulls)
            return self.pulls

    flaky = Flaky()
    async with AsyncIteratorCombiner(flaky, slow("ab", 9)) as combiner:
        assert await combiner.any() == "a"
        assert flaky.pulls == 1
        assert await combiner.any() == 2


async def test_combiner_methods_share_the_sources() -> None:
    async with AsyncIteratorCombiner([1, 2, 3, 4], ready("abcd")) as combiner:
        interleaved = combiner.round_robin_generator()
        assert interleaved is combiner.round_robin_generator()
        items: list[Any] = [await combiner.race(), *await combiner.all(), await anext(interleaved)]
        items += [item async for item in interleaved]
    assert Counter(map(str, items)) == Counter("1234abcd")
