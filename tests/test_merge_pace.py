"""When the sources of a merge are pulled, and how many event-loop iterations that takes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    PullObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    SourceIterObj,
)
from tests.merge_sources import MERGES, ready
from tests.support import Heart, collect, quiet, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

ROTATING = [PullRaceObj, PullRaceRobinObj, PullRoundRobinObj]


async def yielding(name: Any, count: int) -> AsyncIterator[Any]:
    """Yield to the event loop before each item."""
    for _ in range(count):
        await asyncio.sleep(0)
        yield name


@contextlib.asynccontextmanager
async def count_iterations() -> AsyncGenerator[list[int], None]:
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


def extra_iterations(begun: float) -> int:
    """Return how many further iterations law 16 allows: one for each half millisecond of ready items."""
    return int((time.perf_counter() - begun) / 0.0005)


@pytest.mark.parametrize("m", [1, 2, 10, 300])
@pytest.mark.parametrize("make", [*ROTATING, PullZipObj])
async def test_yielding_sources_give_an_item_per_iteration(
    make: Callable[..., PullObj[Any]], m: int
) -> None:
    rounds = 20
    stream = make(*(yielding(number, rounds) for number in range(m)))
    begun = time.perf_counter()
    async with count_iterations() as count:
        items = await collect(stream)
    assert len(items) == (rounds if make is PullZipObj else rounds * m)
    # One iteration for each round, and a few to start and to close.
    assert rounds <= count[0] <= rounds + 8 + extra_iterations(begun)


async def test_nested_merges_take_no_more_iterations() -> None:
    rounds = 20
    stream = PullRaceObj(
        PullRaceObj(*(yielding("a", rounds) for _ in range(3))),
        PullRaceObj(PullRaceObj(*(yielding("b", rounds) for _ in range(3)))),
    )
    begun = time.perf_counter()
    async with count_iterations() as count:
        items = await collect(stream)
    assert Counter(items) == {"a": 3 * rounds, "b": 3 * rounds}
    assert count[0] <= 2 * rounds + 20 + extra_iterations(begun)


async def test_spinning_source_does_not_hide_a_waiting_one() -> None:
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
        # It keeps spinning, with or without a pull, and after a cancelled one.
        pull = asyncio.ensure_future(anext(race))
        await yield_to_loop(3)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
    assert sorted(closed) == ["spins", "waits"]


async def test_error_of_a_source_does_not_delay_the_others() -> None:
    async def fails(name: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        if name:
            raise OSError(name)
        yield name

    stream = PullRaceObj(fails("x"), yielding("a", 2), fails("y"), yielding("b", 2))
    outcomes: list[str] = []
    while True:
        try:
            outcomes.append(await anext(stream))
        except StopAsyncIteration:
            break
        except OSError as error:
            outcomes.append(str(error))
    assert Counter(outcomes) == {"x": 1, "y": 1, "a": 2, "b": 2}


@pytest.mark.parametrize("make", ROTATING)
async def test_waiting_source_is_resumed_by_the_next_pull(
    make: Callable[..., PullObj[Any]],
) -> None:
    pulled = taken = 0

    async def prompt() -> AsyncIterator[str]:
        while True:
            yield "prompt"

    async def waits() -> AsyncIterator[str]:
        nonlocal pulled
        while True:
            pulled += 1
            await asyncio.sleep(0)
            yield "waits"

    async with make(prompt(), waits(), prompt()) as stream:
        for _ in range(60):
            await quiet()
            before = taken
            taken += await anext(stream) == "waits"
            # The next pull after its item was received resumes the source.
            assert pulled in (before, before + 1) if taken > before else pulled == taken + 1
    assert taken == 20


async def by_a_bare_yield() -> None:
    await asyncio.sleep(0)


async def by_a_future() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future


async def by_a_task() -> None:
    await asyncio.ensure_future(asyncio.sleep(0))


# The iterations needed: one for a bare yield; one for the callback that resolves the future and one for asyncio's call_soon
# of its waiter; two for the steps of the other task and one for that call_soon. An eager task takes its first step at once.
@pytest.mark.parametrize(
    ("needs", "least"), [(by_a_bare_yield, 1), (by_a_future, 2), (by_a_task, 3)]
)
@pytest.mark.parametrize("make", [PullRaceObj, PullRaceRobinObj, PullRoundRobinObj])
async def test_law_16_ready_source_starves_no_other(
    make: Callable[..., PullObj[Any]],
    needs: Callable[[], Awaitable[None]],
    least: int,
    loop_kind: str,
) -> None:
    least -= needs is by_a_task and loop_kind == "eager"
    beats = 0
    iterations: list[int] = []

    async def needs_the_loop() -> AsyncIterator[int]:
        while True:
            started = beats
            await needs()
            iterations.append(beats - started)
            yield beats

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    # It counts iterations, starting before the first pull.
    heart = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    late: list[int] = []
    async with make(itertools.repeat("fast"), needs_the_loop()) as stream:
        async for item in stream:
            if item != "fast":
                late.append(beats - item)
            if len(late) == 20:
                break
    heart.cancel()
    await asyncio.wait([heart])
    # The source continues as soon as its own task would. Its item is received in the same iteration by a consumer that
    # keeps pulling, and in the next one by a waiting pull, which asyncio wakes with another call_soon.
    assert set(iterations) == {least}
    assert max(late) <= 1


@pytest.mark.parametrize("make", MERGES)
async def test_law_16_merge_of_ready_sources_yields(
    make: Callable[..., PullObj[Any]],
) -> None:
    async with Heart() as heart:
        await collect(
            make(*(ready(range(20_000)) for _ in range(4)), SourceIterObj(range(20_000)).map(str))
        )
    assert heart.beats > 5


async def test_law_16_source_without_items_yields() -> None:
    never = SourceIterObj(itertools.count()).filter(lambda _: False)
    async with PullRaceObj(never, [1]) as race:
        assert await anext(race) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(race)
