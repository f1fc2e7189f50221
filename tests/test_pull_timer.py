"""`PullTimerObj`: ticks by a schedule, by law, on a virtual clock."""

from __future__ import annotations

import asyncio

import pytest

from headrace import ClosedError, PullTimerObj
from tests.support import Heart, collect, yield_to_loop
from tests.timed_sources import now, with_times


@pytest.mark.virtual
async def test_timer_ticks_by_its_schedule() -> None:
    await asyncio.sleep(5)
    stream = PullTimerObj(0.1, count=4)
    await asyncio.sleep(5)
    assert await with_times(stream) == [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)]
    assert await collect(stream) == []
    assert await collect(PullTimerObj(1, count=0)) == []


@pytest.mark.virtual
async def test_timer_does_not_drift() -> None:
    stream = PullTimerObj(0.1)
    assert await anext(stream) == 0
    await asyncio.sleep(0.35)
    times: list[tuple[int, float]] = []
    async for tick in stream:
        times.append((tick, round(now(), 6)))
        if tick == 5:
            break
    assert times == [(1, 0.45), (2, 0.45), (3, 0.45), (4, 0.5), (5, 0.6)]
    async for tick in stream:
        if tick == 9_999:
            break
    assert now() == pytest.approx(1000.0, abs=1e-9)


@pytest.mark.virtual
async def test_law_2_next_pull_gets_a_cancelled_tick() -> None:
    stream = PullTimerObj(1.0, count=5).map(lambda tick: tick)
    received: list[tuple[int, float]] = []
    while True:
        try:
            received.append((await asyncio.wait_for(anext(stream), 0.3), round(now(), 6)))
        except TimeoutError:
            pass
        except StopAsyncIteration:
            break
    assert received == [(n, n + 1.0) for n in range(5)]


@pytest.mark.virtual
async def test_law_11_restart_starts_a_new_schedule() -> None:
    stream = PullTimerObj(1.0, count=2)
    assert await anext(stream) == 0
    stream.restart()
    await asyncio.sleep(10)
    assert await with_times(stream) == [(0, 1.0), (1, 2.0)]
    await stream.aclose()
    stream.restart()
    assert await with_times(stream) == [(0, 1.0), (1, 2.0)]


@pytest.mark.virtual
async def test_law_12_concurrent_pulls_get_one_tick_each() -> None:
    stream = PullTimerObj(1.0)
    assert await asyncio.gather(*(anext(stream) for _ in range(5))) == list(range(5))
    assert now() == 5.0
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await pull


@pytest.mark.virtual
async def test_law_16_overdue_ticks_yield_to_the_loop() -> None:
    stream = PullTimerObj(0.001)
    assert await anext(stream) == 0
    await asyncio.sleep(50)
    async with Heart() as heart:
        async for tick in stream:
            if tick == 49_999:
                break
    assert heart.beats >= 49_999 // 4096
