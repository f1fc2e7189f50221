"""Operators with timers, by law, on a virtual clock and on a real one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import random
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullObj,
    PullThrottleObj,
    PullTimeoutObj,
    PullTimerObj,
    PullWindowTimeoutObj,
    SourceIterObj,
)
from tests.support import collect, wrong, yield_to_loop
from tests.timed_sources import Script, now, scripted, with_times

if TYPE_CHECKING:
    from collections.abc import Callable


TRIES = 5


# Timeout


@pytest.mark.virtual
async def test_timeout_keeps_the_late_item_for_a_later_pull() -> None:
    stream = PullTimeoutObj(scripted(1, 5.0, 2, 3), 2.0)
    assert await anext(stream) == 1
    started = now()
    for seconds in (2.0, 4.0):
        with pytest.raises(TimeoutError, match=r"within 2\.0 seconds"):
            await anext(stream)
        assert now() - started == seconds
    assert await anext(stream) == 2
    assert now() - started == 5.0
    assert await collect(stream) == [3]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.virtual
async def test_timeout_counts_from_the_pull() -> None:
    stream = PullTimeoutObj(scripted(1, 1.5, 2, 1.5, 3), 2.0)
    assert await anext(stream) == 1
    await asyncio.sleep(100)
    assert await collect(stream) == [2, 3]


async def test_timeout_of_zero_takes_ready_items() -> None:
    assert await collect(PullTimeoutObj(range(5), 0)) == list(range(5))
    gate = asyncio.Event()

    async def slow(n: int) -> int:
        await gate.wait()
        return n

    async with SourceIterObj([1]).map(slow).timeout(0) as stream:
        with pytest.raises(TimeoutError):
            await anext(stream)
        gate.set()
        await yield_to_loop(5)
        assert await collect(stream) == [1]


@pytest.mark.virtual
async def test_skip_drops_only_late_items() -> None:
    stream = PullTimeoutObj(
        Script(1, 1.0, 2, 3.0, 3, 2.0, 4, 9.0, ValueError("late"), 9.0, 5, 6, 9.0),
        2.0,
        on_timeout="skip",
    )
    received: list[Any] = []
    while True:
        try:
            received.append((await anext(stream), now()))
        except ValueError as error:
            received.append((str(error), now()))
        except StopAsyncIteration:
            break
    assert received == [(1, 0.0), (2, 1.0), (4, 6.0), ("late", 15.0), (6, 24.0)]
    assert now() == 33.0


@pytest.mark.virtual
async def test_skip_counts_from_the_pull_of_the_source() -> None:
    stream = PullTimeoutObj(scripted(1, 1.0, 2, 3.0, 3, 4), 2.0, on_timeout="skip")
    assert await anext(stream) == 1
    for late in (False, True):
        # The item arrives in time or not, but its pull is already cancelled.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.5)
        await asyncio.sleep(100)
        if not late:
            assert await anext(stream) == 2
    assert await collect(stream) == [4]


@pytest.mark.virtual
async def test_law_2_timeout_loses_nothing() -> None:
    rng = random.Random(7)
    script: list[Any] = []
    for n in range(100):
        script += [rng.choice([0.0, 0.001, 0.01]), n]
    stream = SourceIterObj(scripted(*script)).timeout(0.004).map(lambda n: n)
    received: list[int] = []
    timeouts = 0
    while True:
        try:
            received.append(await asyncio.wait_for(anext(stream), rng.choice([0.002, 0.02])))
        except TimeoutError:
            timeouts += 1
        except StopAsyncIteration:
            break
    assert received == list(range(100))
    assert timeouts > 50


@pytest.mark.virtual
async def test_law_3_errors_of_the_source_are_unchanged() -> None:
    error = ValueError("one")
    stream = PullTimeoutObj(Script(1, error, 2), 1.0)
    assert await anext(stream) == 1
    with pytest.raises(ValueError) as caught:
        await anext(stream)
    assert caught.value is error
    assert await collect(stream) == [2]


@pytest.mark.virtual
async def test_law_13_timeout_is_live() -> None:
    stream = PullTimeoutObj(scripted(5.0, 1), 1.0)
    assert stream.seconds == 1.0
    with pytest.raises(TimeoutError):
        await anext(stream)
    stream.seconds = 10
    assert await collect(stream) == [1]
    assert now() == 5.0


@pytest.mark.virtual
async def test_successful_pull_leaves_no_timer() -> None:
    await collect(SourceIterObj(range(9)).map(_after_two_yields).timeout(60).batch(3, 60))
    loop: Any = asyncio.get_running_loop()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


# Batches


@pytest.mark.parametrize("timeout", [0, 10])
@pytest.mark.parametrize("size", [1, 3, 10, 11])
async def test_timed_batch_of_a_ready_source_is_a_batch(size: int, timeout: float) -> None:
    batches = await collect(SourceIterObj(range(10)).batch(size))
    windows: list[list[int]] = []
    for _ in range(TRIES):
        windows = await collect(SourceIterObj(range(10)).batch(size, timeout))
        if windows == batches:
            return
        # With a timeout of 0 a batch may be short, if the machine was so busy that the stream yielded to the loop.
        assert timeout == 0
        assert all(0 < len(window) <= size for window in windows)
        assert list(chain(*windows)) == list(range(10))
    pytest.fail(f"not once equal to an untimed batch: {windows}")


@pytest.mark.virtual
async def test_batch_is_yielded_when_full_or_timed_out() -> None:
    script = scripted(3.0, 1, 0.5, 2, 0.4, 3, 0.2, 4, 5, 6, 7, 8, 7.0, 9)
    assert await with_times(PullWindowTimeoutObj(script, 4, 1.0)) == [
        ([1, 2, 3], 4.0),
        ([4, 5, 6, 7], 4.1),
        ([8], 5.1),
        ([9], 11.1),
    ]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.virtual
async def test_law_1_source_is_pulled_only_during_a_pull() -> None:
    pulled: list[int] = []

    def source(n: int) -> int:
        pulled.append(n)
        return n

    async with SourceIterObj(range(100)).map(source).batch(3, 1.0) as stream:
        await yield_to_loop(5)
        assert pulled == []
        assert await anext(stream) == [0, 1, 2]
        await asyncio.sleep(10)
        assert pulled == [0, 1, 2]
    async with SourceIterObj(range(100)).map(source).timeout(1.0) as single:
        assert await anext(single) == 0
        await asyncio.sleep(10)
        assert pulled == [0, 1, 2, 0]
    pulled.clear()

    async def slow(n: int) -> int:
        await asyncio.sleep(1)
        return n

    async with SourceIterObj(range(9)).map(source).map(slow).batch(3, 0.5) as stream:
        assert await anext(stream) == [0]
        await asyncio.sleep(10)
        assert pulled == [0, 1]


@pytest.mark.virtual
async def test_law_2_batch_timer_continues_after_a_cancel() -> None:
    stream = PullWindowTimeoutObj(scripted(1, 0.5, 2, 5.0, 3), 10, 2.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 1.0)
    assert await anext(stream) == [1, 2]
    assert now() == 2.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 3.0)
    await asyncio.sleep(5)
    # It arrived at 5.5 without a waiting pull.
    assert await anext(stream) == [3]
    assert now() == 10.0
    assert await collect(stream) == []


@pytest.mark.virtual
@pytest.mark.parametrize("seed", range(10))
async def test_law_2_random_batches_lose_nothing(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    made_at: dict[int, float] = {}

    async def slow(n: int) -> int:
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.01, 0.05]))
        made_at[n] = now()
        return n

    # Stages before the batch run in its background task, so a cancellation repeats no call.
    stream = SourceIterObj(range(200)).map(slow).batch(7, 0.03).filter(bool)
    received: list[int] = []
    cancelled = 0
    while True:
        patience = rng.choice([0.001, 0.01, 1])
        try:
            window = await asyncio.wait_for(anext(stream), patience)
        except TimeoutError:
            cancelled += 1
            continue
        except StopAsyncIteration:
            break
        assert 1 <= len(window) <= 7
        assert now() - made_at[window[0]] <= 0.03 + 1e-9
        received += window
    assert received == list(range(200))
    assert cancelled > 10


@pytest.mark.virtual
async def test_law_3_batch_is_yielded_before_an_error() -> None:
    error = ValueError("one")
    stream = PullWindowTimeoutObj(Script(error, 1, 2, error, 3, 0.5, 4), 10, 1.0)
    outcomes: list[Any] = []
    while True:
        try:
            outcomes.append((await anext(stream), now()))
        except ValueError as caught:
            outcomes.append(caught)
        except StopAsyncIteration:
            break
    assert outcomes == [error, ([1, 2], 0.0), error, ([3, 4], 0.5)]


@pytest.mark.virtual
async def test_law_13_batch_settings_are_live() -> None:
    stream = PullWindowTimeoutObj(scripted(1, 2, 3, 4, 5, 6, 9.0, 7), 2, 1.0)
    assert (stream.size, stream.seconds) == (2, 1.0)
    assert await anext(stream) == [1, 2]
    stream.size = 3
    assert await anext(stream) == [3, 4, 5]
    stream.seconds = 5
    assert await anext(stream) == [6]
    assert now() == 5.0
    assert await collect(stream) == [[7]]


# Laws of all streams with a background task


BACKGROUND_STREAMS: list[Callable[[Any], PullObj[Any]]] = [
    lambda source: PullTimeoutObj(source, 1.0),
    lambda source: PullTimeoutObj(source, 1.0, on_timeout="skip"),
    lambda source: PullWindowTimeoutObj(source, 1, 1.0),
]


@pytest.mark.virtual
@pytest.mark.parametrize("make", BACKGROUND_STREAMS)
async def test_law_4_leaving_the_block_closes_the_source(make: Callable[..., PullObj[Any]]) -> None:
    script = Script(1, 2, 9.0, 3)
    async with make(script).map(lambda n: n) as stream:
        await anext(stream)
        async for _ in stream:
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(anext(stream), 1.0)
    assert script.closed == 1
    assert len(asyncio.all_tasks()) == 1
    script = Script(9.0)
    waiting = make(script)
    pull = asyncio.ensure_future(anext(waiting))
    await yield_to_loop(5)
    await waiting.aclose()
    with pytest.raises(ClosedError):
        await pull
    assert script.closed == 1


@pytest.mark.parametrize("make", BACKGROUND_STREAMS)
async def test_law_5_dropped_stream_warns(make: Callable[..., PullObj[Any]]) -> None:
    script = Script(1, 2, 3)
    streams = [make(script).map(lambda n: n)]
    await anext(streams[0])
    with pytest.warns(ResourceWarning, match="unclosed <Pull"):
        streams.clear()
        gc.collect()
    await yield_to_loop(20)
    assert script.closed == 1


@pytest.mark.parametrize("make", BACKGROUND_STREAMS)
async def test_law_11_restart_starts_again(make: Callable[..., PullObj[Any]]) -> None:
    stream = make(range(3)).map(str)
    expected_items = await collect(stream)
    assert len(expected_items) == 3
    assert await collect(stream) == []
    stream.restart()
    assert await anext(stream) == expected_items[0]
    stream.restart()
    assert await collect(stream) == expected_items


@pytest.mark.parametrize("make", BACKGROUND_STREAMS)
async def test_law_12_concurrent_pulls_are_served_in_order(
    make: Callable[..., PullObj[Any]],
) -> None:
    stream = make(SourceIterObj(range(10)).map(_after_two_yields)).map(str)
    received = await asyncio.gather(*(anext(stream) for _ in range(10)))
    assert received == await collect(make(range(10)).map(str))
    await stream.aclose()


async def _after_two_yields(n: int) -> int:
    await yield_to_loop(2)
    return n


# All timed operators


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: PullTimeoutObj([1], -1),
            ValueError,
            r"timeout must not be negative, got -1 \(int\)",
        ),
        (
            lambda: PullTimeoutObj([1], math.nan),
            ValueError,
            "timeout must be a finite number, got nan",
        ),
        (lambda: PullTimeoutObj([1], math.inf), ValueError, "timeout must be a finite number"),
        (lambda: PullTimeoutObj([1], 10**400), ValueError, "timeout must be a finite number"),
        (lambda: PullTimeoutObj([1], 10**9999), ValueError, "timeout must be .*a huge number"),
        (lambda: PullTimeoutObj([1], wrong(True)), TypeError, "timeout must be a number, got True"),
        (lambda: PullTimeoutObj([1], wrong("1")), TypeError, "timeout must be a number, got '1'"),
        (lambda: PullTimeoutObj([1], wrong(None)), TypeError, "timeout must be a number, got None"),
        (lambda: PullTimeoutObj([1], 1, on_timeout=wrong("no")), ValueError, "on_timeout must be"),
        (lambda: PullTimeoutObj([1], 0, on_timeout="skip"), ValueError, "timeout must be positive"),
        (lambda: PullTimeoutObj(wrong(3), 1), TypeError, "source must be an iterable"),
        (lambda: setattr(PullTimeoutObj([1], 1), "seconds", -1), ValueError, "seconds must not"),
        (lambda: PullWindowTimeoutObj([1], 0, 1), ValueError, "size must be at least 1, got 0"),
        (lambda: PullWindowTimeoutObj([1], wrong(1.0), 1), TypeError, "size must be an integer"),
        (lambda: PullWindowTimeoutObj([1], 1, -0.1), ValueError, "timeout must not be negative"),
        (lambda: setattr(PullWindowTimeoutObj([1], 1, 1), "size", 0), ValueError, "size must be"),
        (lambda: PullThrottleObj([1], 0), ValueError, r"rate must be positive, got 0 \(int\)"),
        (lambda: PullThrottleObj([1], -1), ValueError, "rate must be positive"),
        (lambda: PullThrottleObj([1], math.inf), ValueError, "rate must be a finite number"),
        (lambda: PullThrottleObj([1], wrong("1")), TypeError, "rate must be a number"),
        (lambda: PullThrottleObj([1], 1, per=0), ValueError, "per must be positive"),
        (lambda: PullThrottleObj([1], 1, burst=0), ValueError, "burst must be at least 1"),
        (lambda: PullThrottleObj([1], 1, burst=wrong(1.5)), TypeError, "burst must be an integer"),
        (lambda: setattr(PullThrottleObj([1], 1), "rate", math.nan), ValueError, "rate must be"),
        (lambda: PullTimerObj(0), ValueError, "interval must be positive, got 0"),
        (lambda: PullTimerObj(-1), ValueError, "interval must be positive, got -1"),
        (lambda: PullTimerObj(math.nan), ValueError, "interval must be a finite number"),
        (lambda: PullTimerObj(math.inf), ValueError, "interval must be a finite number"),
        (lambda: PullTimerObj(wrong(True)), TypeError, "interval must be a number, got True"),
        (lambda: PullTimerObj(wrong("1")), TypeError, "interval must be a number, got '1'"),
        (lambda: PullTimerObj(1, count=-1), ValueError, "count must be at least 0, got -1"),
        (lambda: PullTimerObj(1, count=wrong(2.0)), TypeError, "count must be an integer"),
    ],
)
def test_law_14_bad_input_is_refused(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.virtual
async def test_timed_operators_work_in_a_pipeline() -> None:
    stream_of_all = (
        PullTimerObj(0.01)
        .map(lambda tick: tick)
        .throttle(50)
        .filter(lambda tick: tick % 2 == 0)
        .timeout(1.0)
        .prefetch(2)
        .batch(3, 1.0)
        .flatten()
        .take(7)
    )
    async with stream_of_all:
        assert await collect(stream_of_all) == [0, 2, 4, 6, 8, 10, 12]
    assert len(asyncio.all_tasks()) == 1


async def test_law_10_no_item_is_early_by_a_real_clock() -> None:
    started = now()
    async for tick in PullTimerObj(0.003, count=5).throttle(400):
        assert now() >= started + (tick + 1) * 0.003
    before = -math.inf
    async for _ in SourceIterObj(range(6)).throttle(300):
        assert now() - before >= 1 / 300 - 1e-9
        before = now()


async def test_law_10_timeouts_fire_by_a_real_clock() -> None:
    gate = asyncio.Event()

    async def slow(n: int) -> int:
        if n == 2:
            await gate.wait()
        return n

    async with SourceIterObj(range(4)).map(slow).batch(10, 0.005).timeout(0.01) as stream:
        started = now()
        assert await anext(stream) == [0, 1]
        assert now() >= started + 0.005
        started = now()
        with pytest.raises(TimeoutError):
            await anext(stream)
        assert now() >= started + 0.01
        gate.set()
        assert await collect(stream.map(len)) == [2]
