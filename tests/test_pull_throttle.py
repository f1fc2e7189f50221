"""`throttle`, by law, on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from headrace import ClosedError, PullObj, PullThrottleObj, SourceIterObj
from headrace.testing import VirtualClock
from tests.support import collect, yield_to_loop
from tests.timed_sources import Script, now, scripted, with_times

if TYPE_CHECKING:
    from collections.abc import Awaitable


@pytest.mark.virtual
async def test_throttle_has_exactly_its_rate() -> None:
    stream = SourceIterObj(range(10_000)).throttle(200)
    times: list[float] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            async for _ in stream:
                times.append(now())
    assert abs(len(times) - 2000) <= 1
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= 0.005 - 1e-9
    assert max(gaps) <= 0.005 + 1e-9


@pytest.mark.virtual
@pytest.mark.parametrize("seed", range(10))
async def test_throttle_never_exceeds_its_rate_and_burst(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    rate, per, burst = rng.uniform(1, 300), rng.choice([1.0, 0.5, 60.0]), rng.randrange(1, 12)

    async def bursty(n: int) -> int:
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(0, 20) * per / rate)
        return n

    stream = SourceIterObj(range(300)).map(bursty).throttle(rate, per=per, burst=burst)
    times = [now() async for _ in stream]
    assert len(times) == 300
    for first in range(300):
        for last in range(first, 300):
            allowed = burst + rate / per * (times[last] - times[first])
            assert last - first + 1 <= allowed + 1e-6


@pytest.mark.virtual
async def test_throttle_allows_a_burst_after_a_pause() -> None:
    script = scripted(0, 1, 2, 3, 4, 100.0, 5, 6, 7, 8)
    assert await with_times(PullThrottleObj(script, 2, burst=3)) == [
        *[(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.5), (4, 1.0)],
        *[(5, 101.0), (6, 101.0), (7, 101.0), (8, 101.5)],
    ]


@pytest.mark.virtual
async def test_law_2_cancelled_wait_keeps_its_item() -> None:
    stream = SourceIterObj(range(5)).throttle(1).map(lambda n: n * 10)
    received: list[tuple[int, float]] = []
    while True:
        try:
            received.append((await asyncio.wait_for(anext(stream), 0.3), round(now(), 6)))
        except TimeoutError:
            pass
        except StopAsyncIteration:
            break
    assert received == [(0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]


@pytest.mark.virtual
async def test_throttle_does_not_await_its_items() -> None:
    async def answer() -> int:
        return 42

    items: list[Awaitable[int]] = [answer(), answer()]
    received = await collect(PullThrottleObj(items, 1))
    assert all(received_item is item for received_item, item in zip(received, items, strict=True))
    assert [await item for item in received] == [42, 42]


@pytest.mark.virtual
async def test_law_3_source_error_is_not_throttled() -> None:
    stream = PullThrottleObj(Script(1, ValueError("one"), 2), 1)
    assert await anext(stream) == 1
    with pytest.raises(ValueError, match="one"):
        await anext(stream)
    assert now() == 0.0
    assert await collect(stream) == [2]
    assert now() == 1.0


@pytest.mark.virtual
async def test_law_4_closing_ends_a_wait() -> None:
    script = Script(1, 2)
    stream = PullThrottleObj(script, 0.001).map(lambda n: n)
    assert await anext(stream) == 1
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(3)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await pull
    assert script.closed == 1
    assert now() == 0.0


@pytest.mark.virtual
async def test_law_12_concurrent_pulls_are_paced_in_order() -> None:
    stream = SourceIterObj(range(5)).throttle(10)
    received: list[tuple[int, int, float]] = []

    async def pull(number: int) -> None:
        received.append((number, await anext(stream), round(now(), 6)))

    await asyncio.gather(*(pull(number) for number in range(5)))
    assert received == [(n, n, n / 10) for n in range(5)]


@pytest.mark.virtual
async def test_law_13_rate_is_live_for_a_pending_delay() -> None:
    stream = SourceIterObj(range(100)).throttle(0.001, per=1, burst=1)
    assert await anext(stream) == 0
    stream.rate = 10
    assert await anext(stream) == 1
    assert math.isclose(now(), 0.1)
    stream.per, stream.burst = 10, 2
    assert (stream.rate, stream.per, stream.burst) == (10, 10, 2)
    assert await anext(stream) == 2
    assert math.isclose(now(), 0.1)
    assert await anext(stream) == 3
    assert math.isclose(now(), 1.1)


def test_throttle_works_on_a_loop_with_another_clock() -> None:
    stream = SourceIterObj(range(3)).throttle(1)

    async def main() -> list[tuple[int, float]]:
        return await with_times(stream)

    for start in (1000.0, 0.0, 5.0):
        with asyncio.Runner(loop_factory=VirtualClock(start)) as runner:
            received = runner.run(main())
        assert [item for item, _ in received] == [0, 1, 2]
        assert received[-1][1] <= 3.0
        stream.restart()


async def test_law_17_ten_thousand_throttles_run() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(10_000):
        stream = stream.throttle(1e9, burst=10)
    assert await collect(stream) == [0, 1, 2]
