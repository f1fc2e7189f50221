"""Law 2 in everyday use: `wait_for(anext(stream), ...)` in a loop over a slow stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullObj, PullTimerObj, PushPullBufferObj, SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ITEMS = 200
PATIENCE = 0.002
SLOW = 0.003

Calls = Counter[int]


async def slow_numbers() -> AsyncIterator[int]:
    for n in range(ITEMS):
        await asyncio.sleep(SLOW)
        yield n


def a_queue(_: Calls) -> PullObj[int]:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()

    async def fill() -> None:
        async for n in slow_numbers():
            await buffer.sink.next(n)
        await buffer.sink.return_()

    filling.append(asyncio.create_task(fill()))
    return buffer.source.map(lambda n: n)


def a_timer(_: Calls) -> PullObj[int]:
    return PullTimerObj(SLOW, count=ITEMS)


def a_slow_call(calls: Calls) -> PullObj[int]:
    async def call(n: int) -> int:
        calls[n] += 1
        # Like a service that has the answer ready at the second request.
        await asyncio.sleep(SLOW if calls[n] == 1 else 0)
        return n

    return SourceIterObj(range(ITEMS)).map(call)


def a_call_with_keep(calls: Calls) -> PullObj[int]:
    async def call(n: int) -> int:
        calls[n] += 1
        await asyncio.sleep(SLOW)
        return n

    return SourceIterObj(range(ITEMS)).map(call, on_cancel="keep")


def a_generator(_: Calls) -> PullObj[int]:
    return SourceIterObj(slow_numbers()).prefetch(1)


filling: list[asyncio.Task[None]] = []


async def pull_all_with_timeouts(make: Callable[[Calls], PullObj[int]]) -> tuple[Calls, int]:
    """Check that all items arrive. Return the number of calls for each item, and of cancelled pulls."""
    calls: Calls = Counter()
    received: list[int] = []
    timeouts = 0
    async with make(calls) as stream:
        while True:
            try:
                received.append(await asyncio.wait_for(anext(stream), PATIENCE))
            except TimeoutError:
                timeouts += 1
            except StopAsyncIteration:
                break
    await asyncio.gather(*filling)
    filling.clear()
    assert received == list(range(ITEMS))
    return calls, timeouts


KINDS = [a_queue, a_timer, a_slow_call, a_call_with_keep, a_generator]


@pytest.mark.virtual
@pytest.mark.parametrize("make", KINDS)
async def test_law_2_all_items_arrive_under_timeouts(make: Any) -> None:
    calls, timeouts = await pull_all_with_timeouts(make)
    assert timeouts >= ITEMS // 2
    times = {a_slow_call: 2, a_call_with_keep: 1}.get(make, 0)
    assert calls == {n: times for n in range(ITEMS) if times}


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("make", KINDS)
async def test_law_2_all_items_arrive_by_a_real_clock(make: Any) -> None:
    calls, timeouts = await pull_all_with_timeouts(make)
    # A busy machine makes some pulls late enough to find their item.
    assert timeouts > 0
    if make is a_slow_call:
        assert set(calls) == set(range(ITEMS))
    elif make is a_call_with_keep:
        assert calls == dict.fromkeys(range(ITEMS), 1)
