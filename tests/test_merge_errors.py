"""Errors of merged sources: their cost, and the policies for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    PullConcatObj,
    PullObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    PushPullBufferObj,
    SourceIterObj,
)
from tests.merge_sources import MERGES, flaky, slow
from tests.support import collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def test_error_costs_a_row_of_zip() -> None:
    def third(item: int) -> int:
        if item == 2:
            raise ZeroDivisionError
        return item

    stream = SourceIterObj(range(5)).map(third).zip("abcde", slow("ABCDE"))
    items: list[Any] = []
    while True:
        try:
            items.append(await anext(stream))
        except ZeroDivisionError:
            items.append("error")
        except StopAsyncIteration:
            break
    assert items == [(0, "a", "A"), (1, "b", "B"), "error", (3, "d", "D"), (4, "e", "E")]


async def test_all_errors_of_a_row_are_raised() -> None:
    def fail(item: int) -> int:
        raise ValueError(item)

    stream = PullZipObj(SourceIterObj([1]).map(fail), SourceIterObj([2]).map(fail))
    messages: list[str] = []
    for _ in range(2):
        with pytest.raises(ValueError) as raised:
            await anext(stream)
        messages.append(str(raised.value))
    assert messages == ["1", "2"]
    assert await collect(stream) == []


@pytest.mark.parametrize("make", [PullConcatObj, PullRoundRobinObj, PullRaceObj, PullRaceRobinObj])
async def test_law_3_error_of_a_source_costs_one_item(make: Callable[..., PullObj[Any]]) -> None:
    items: list[Any] = []
    notes: list[str] = []
    stream = make(flaky(2), slow("abc"))
    while True:
        try:
            items.append(await anext(stream))
        except ValueError as error:
            items.append("error")
            notes = error.__notes__
        except StopAsyncIteration:
            break
    assert Counter(map(str, items)) == Counter(["0", "1", "error", "3", "4", "a", "b", "c"])
    assert notes == [
        "raised by transform of PullMapObj: item 2",
        f"raised by source 0 of {make.__name__}, PullMapObj",
    ]


@pytest.mark.parametrize("make", [PullConcatObj, PullRoundRobinObj, PullRaceObj, PullRaceRobinObj])
async def test_skip_drops_errors(make: Callable[..., PullObj[Any]]) -> None:
    async def fails() -> AsyncIterator[str]:
        yield "b"
        await asyncio.sleep(0)
        raise ValueError

    stream = make(flaky(2), fails(), slow("a"), errors="skip")
    assert sorted(map(str, await collect(stream))) == ["0", "1", "3", "4", "a", "b"]


async def test_skip_drops_rows_of_zip() -> None:
    stream = PullZipObj(flaky(1), "abcde", errors="skip")
    items = await collect(stream)
    assert items == [(0, "a"), (2, "b"), (3, "c"), (4, "d")]


@pytest.mark.parametrize("make", MERGES)
async def test_stop_ends_with_the_error(make: Callable[..., PullObj[Any]]) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    stream = make(flaky(0), slow("abc"), buffer.source, errors="stop")
    buffer.sink.next_nowait(1)
    with pytest.raises(ValueError):
        await collect(stream)
    assert await collect(stream) == []
    assert len(asyncio.all_tasks()) == 1


async def test_skip_raises_keyboard_interrupt() -> None:
    async def fails() -> AsyncIterator[str]:
        yield "a"
        raise KeyboardInterrupt

    stream = PullRaceObj(fails(), errors="skip")
    assert await anext(stream) == "a"
    with pytest.raises(KeyboardInterrupt):
        await anext(stream)
    assert await collect(stream) == []
