"""When the sources of a merge are asked, and how many turns of the loop that takes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullObj, PullRaceObj, PullRaceRobinObj, PullRoundRobinObj, PullZipObj
from tests.support import collect, quiet, turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

MANY = [PullRaceObj, PullRaceRobinObj, PullRoundRobinObj]


async def resting(name: Any, count: int) -> AsyncIterator[Any]:
    """Lets the loop have a turn before each item."""
    for _ in range(count):
        await asyncio.sleep(0)
        yield name


@contextlib.asynccontextmanager
async def counted_turns() -> AsyncGenerator[list[int], None]:
    count = [0]

    async def beat() -> None:
        while True:
            await asyncio.sleep(0)
            count[0] += 1

    heart = asyncio.ensure_future(beat())
    try:
        yield count
    finally:
        heart.cancel()
        await asyncio.wait([heart])


def by_law_16(began: float) -> int:
    """How many turns of the loop may come on top: one for each half millisecond of ready items."""
    return int((time.perf_counter() - began) / 0.0005)


@pytest.mark.parametrize("m", [1, 2, 10, 300])
@pytest.mark.parametrize("make", [*MANY, PullZipObj])
async def test_sources_that_rest_give_an_item_each_in_a_turn(
    make: Callable[..., PullObj[Any]], m: int
) -> None:
    rounds = 20
    stream = make(*(resting(number, rounds) for number in range(m)))
    began = time.perf_counter()
    async with counted_turns() as count:
        items = await collect(stream)
    assert len(items) == (rounds if make is PullZipObj else rounds * m)
    # One each, and a few to begin and to close.
    assert rounds <= count[0] <= rounds + 8 + by_law_16(began)


async def test_merge_of_merges_that_rest_takes_no_more_turns() -> None:
    rounds = 20
    stream = PullRaceObj(
        PullRaceObj(*(resting("a", rounds) for _ in range(3))),
        PullRaceObj(PullRaceObj(*(resting("b", rounds) for _ in range(3)))),
    )
    began = time.perf_counter()
    async with counted_turns() as count:
        items = await collect(stream)
    assert Counter(items) == {"a": 3 * rounds, "b": 3 * rounds}
    assert count[0] <= 2 * rounds + 20 + by_law_16(began)


async def test_pull_that_rests_hears_of_a_source_that_waits_for_something_else() -> None:
    event = asyncio.Event()
    closed: list[str] = []

    async def spins() -> AsyncIterator[str]:
        try:
            for _ in itertools.repeat(None):
                await asyncio.sleep(0)
            yield "never"
        finally:
            closed.append("spins")

    async def waits() -> AsyncIterator[str]:
        try:
            await event.wait()
            yield "waited"
        finally:
            closed.append("waits")

    async with PullRaceObj(spins(), waits()) as race:
        pull = asyncio.ensure_future(anext(race))
        await quiet()
        assert not pull.done()
        event.set()
        assert await pull == "waited"
        # It spins on, whether somebody pulls or not, and whatever becomes of the pulls.
        pull = asyncio.ensure_future(anext(race))
        await turns(3)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
    assert sorted(closed) == ["spins", "waits"]


async def test_error_of_a_source_that_rested_does_not_hold_up_the_others() -> None:
    async def fails(name: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        if name:
            raise OSError(name)
        yield name

    stream = PullRaceObj(fails("x"), resting("a", 2), fails("y"), resting("b", 2))
    outcomes: list[str] = []
    while True:
        try:
            outcomes.append(await anext(stream))
        except StopAsyncIteration:
            break
        except OSError as error:
            outcomes.append(str(error))
    assert Counter(outcomes) == {"x": 1, "y": 1, "a": 2, "b": 2}


@pytest.mark.parametrize("make", MANY)
async def test_source_that_has_to_wait_is_asked_by_the_next_pull(
    make: Callable[..., PullObj[Any]],
) -> None:
    asked = taken = 0

    async def prompt() -> AsyncIterator[str]:
        while True:
            yield "prompt"

    async def waits() -> AsyncIterator[str]:
        nonlocal asked
        while True:
            asked += 1
            await asyncio.sleep(0)
            yield "waits"

    async with make(prompt(), waits(), prompt()) as stream:
        for _ in range(60):
            await quiet()
            before = taken
            taken += await anext(stream) == "waits"
            # The pull after the one that took its item has it go on, and so it does meanwhile.
            assert asked in (before, before + 1) if taken > before else asked == taken + 1
    assert taken == 20
