"""Sources that are added to a merge and removed from it while it runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    PullObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    PushPullBufferObj,
)
from tests.merge_sources import MERGES, slow
from tests.support import collect, quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.mark.parametrize("make", MERGES)
async def test_added_source_is_used_from_the_next_pull(
    make: Callable[..., PullObj[Any]],
) -> None:
    stream: Any = make([1, 2, 3], slow("abc"))
    first = await anext(stream)
    more = [7, 8, 9]
    stream.add(more)
    assert stream.sources[-1] is more
    items = [first, *await collect(stream)]
    if make is PullZipObj:
        assert items == [(1, "a"), (2, "b", 7), (3, "c", 8)]
    else:
        assert Counter(map(str, items)) == Counter("123abc789")


async def test_source_added_during_a_pull_is_pulled() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    async with PullRaceObj(buffer.source) as race:
        pulling = asyncio.ensure_future(anext(race))
        await quiet()
        race.add([5])
        assert await pulling == 5


@pytest.mark.parametrize("make", [PullRoundRobinObj, PullRaceObj, PullRaceRobinObj, PullZipObj])
async def test_removed_source_is_closed_in_its_task(
    make: Callable[..., PullObj[Any]],
) -> None:
    ended: list[bool] = []

    async def endless() -> AsyncIterator[str]:
        task = asyncio.current_task()
        try:
            while True:
                await asyncio.sleep(0)
                yield "x"
        finally:
            ended.append(asyncio.current_task() is task)

    removed = endless()
    stream: Any = make([1, 2, 3], removed)
    await anext(stream)
    await stream.remove(removed)
    assert ended == [True]
    assert len(stream.sources) == 1
    items = await collect(stream)
    assert "x" not in items
    assert len(items) in (2, 3)
    with pytest.raises(ValueError, match="source must be one of the sources"):
        await stream.remove(removed)


async def test_remove_raises_the_error_of_closing() -> None:
    async def fails() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            raise ValueError("closing")

    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    removed = fails()
    async with PullRoundRobinObj(removed, buffer.source) as stream:
        pulling = asyncio.ensure_future(anext(stream))
        await quiet()
        with pytest.raises(ValueError, match="closing") as raised:
            await stream.remove(removed)
        assert raised.value.__notes__ == [
            f"raised by source 0 of PullRoundRobinObj, {fails.__qualname__}"
        ]
        buffer.sink.next_nowait(3)
        assert await pulling == 3


async def test_ended_sources_are_forgotten() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    async with PullRaceObj(buffer.source) as race:
        for number in range(300):
            race.add(slow([number]))
            assert await anext(race) == number
            await quiet()
            # The end of a source is detected at its next pull.
            assert len(race.sources) <= 2
