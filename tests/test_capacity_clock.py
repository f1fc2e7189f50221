"""User-defined clocks: whatever frees capacity, the next waiter is served at the current time."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, Lease, QuotaCapacitySource, Rate
from headrace.testing import VirtualClock
from tests.support import until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BURST = 10


def now() -> float:
    return asyncio.get_running_loop().time()


async def granted_at(capacity: CapacitySource) -> float:
    """Acquire a slot and the whole burst; return the time of the grant."""
    async with capacity.acquire({"slots": 1, "tokens": BURST}):
        return now()


async def bypass_eight_times(capacity: CapacitySource) -> None:
    for _ in range(8):
        (await capacity.acquire(owner=None)).release()


async def collect_lease(capacity: CapacitySource) -> Callable[[], object]:
    leases = [await capacity.acquire(2, owner=None)]

    def collect() -> None:
        with pytest.warns(ResourceWarning, match="collected before it was released"):
            leases.clear()

    return collect


async def cancel_waiter(capacity: CapacitySource) -> Callable[[], object]:
    held = await capacity.acquire(owner=None)
    big = asyncio.ensure_future(capacity.acquire(2))
    await yield_to_loop(3)
    await bypass_eight_times(capacity)

    def cancel() -> None:
        big.cancel()
        # The slot that is free now is enough for the waiter.
        asyncio.get_running_loop().call_later(1, held.release)

    return cancel


async def cancel_reacquire(capacity: CapacitySource) -> Callable[[], object]:
    async def suspend_lease() -> None:
        async with capacity.acquire(2, owner=None) as lease, lease.suspended():
            ready.set()
            await may_reacquire.wait()

    ready, may_reacquire = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(suspend_lease())
    await ready.wait()
    held = await capacity.acquire(owner=None)
    may_reacquire.set()
    await yield_to_loop(3)
    await bypass_eight_times(capacity)

    def cancel() -> None:
        task.cancel()
        asyncio.get_running_loop().call_later(1, held.release)

    return cancel


FREEING_EVENTS = [
    collect_lease,
    cancel_waiter,
    cancel_reacquire,
]


@pytest.mark.virtual
@pytest.mark.parametrize("begin", FREEING_EVENTS, ids=lambda begin: begin.__name__)
async def test_waiter_is_served_at_the_current_time(
    begin: Callable[[CapacitySource], Coroutine[Any, Any, Callable[[], object]]],
) -> None:
    capacity = CapacitySource(
        {"slots": 2, "tokens": Rate(1, per=1.0, burst=BURST)},
        clock=asyncio.get_running_loop().time,
    )
    free_capacity = await begin(capacity)
    waiter = asyncio.create_task(granted_at(capacity))
    await yield_to_loop(5)
    assert not waiter.done(), "the waiter must be queued"
    # No call uses the tree meanwhile.
    await asyncio.sleep(100)
    free_capacity()
    await until(waiter.done)
    assert await waiter == now()
    # The whole burst was just granted, so no tokens are left; at an outdated time all would have been available.
    assert capacity.available["tokens"] == 0
    assert capacity.acquire_nowait({"tokens": 1}) is None
    await asyncio.sleep(2)
    assert capacity.held["slots"] == 0


async def test_clock_error_without_a_caller_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails = False

    def clock() -> float:
        if fails:
            raise ZeroDivisionError("no time")
        return 1.0

    reported: list[Any] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_value)
    )
    capacity = CapacitySource(1, clock=clock)
    lease = await capacity.acquire(owner=None)
    waiting = [asyncio.ensure_future(capacity.acquire()) for _ in range(2)]
    await yield_to_loop(3)
    fails = True
    waiting[0].cancel()
    await yield_to_loop(3)
    assert [str(error) for error in reported] == ["no time"]
    # Also in a destructor, while another error propagates.
    with pytest.warns(ResourceWarning), pytest.raises(KeyError, match="mine"):
        try:
            raise KeyError("mine")
        finally:
            del lease
    assert [str(error) for error in reported] == ["no time"] * 2
    fails = False
    (await waiting[1]).release()
    assert (capacity.held, capacity.waiting) == (0, 0)


def test_collected_clock_is_not_called() -> None:
    class Clock:
        def __init__(self) -> None:
            self.seconds = 1.0

        def now(self) -> float:
            return self.seconds

    def drop_cycle() -> None:
        clock = Clock()
        capacity = CapacitySource(1, clock=clock.now)
        # All are in one reference cycle, of which the collector clears the clock first.
        clock.__dict__["circle"] = [clock, capacity, capacity.acquire_sync(owner=None)]

    gc.collect()
    drop_cycle()
    with pytest.warns(ResourceWarning, match="a lease was collected"):
        gc.collect()


async def test_clock_may_use_its_own_tree() -> None:
    busy = False

    def clock() -> float:
        nonlocal busy
        if not busy and capacity is not None:
            busy = True
            try:
                if (lease := capacity.acquire_nowait(owner=None)) is not None:
                    lease.release()
            finally:
                busy = False
        return 1.0

    capacity: CapacitySource | None = None
    capacity = CapacitySource(2, clock=clock)
    leases = [await capacity.acquire(owner=None) for _ in range(2)]
    waiting = [asyncio.ensure_future(capacity.acquire()) for _ in range(3)]
    await yield_to_loop(3)
    waiting[0].cancel()
    with pytest.warns(ResourceWarning):
        del leases
    for acquiring in waiting[1:]:
        (await acquiring).release()
    assert (capacity.held, capacity.waiting) == (0, 0)


@pytest.mark.virtual
@pytest.mark.parametrize(("failures", "delay", "errors"), [(1, 1, 1), (2, 2, 1), (4, 3, 2)])
async def test_clock_error_at_the_timer_is_retried(failures: int, delay: int, errors: int) -> None:
    loop, left = asyncio.get_running_loop(), 0

    def clock() -> float:
        nonlocal left
        if left:
            left -= 1
            raise ZeroDivisionError
        return loop.time()

    reported: list[object] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(context.get("exception")))
    capacity = QuotaCapacitySource(Rate(1, per=1.0, burst=1), clock=clock)
    begun = loop.time()
    (await capacity.acquire()).release()
    waiting = asyncio.ensure_future(capacity.acquire())
    await asyncio.sleep(0.5)
    left = failures
    (await waiting).release()
    assert loop.time() - begun == pytest.approx(delay, abs=0.001)
    assert [type(error) for error in reported] == [ZeroDivisionError] * errors


async def play(dice: random.Random) -> list[tuple[float, float]]:
    """Start, cancel, drop and settle random leases without reading the capacity; return the grants of the rate and their times."""
    capacity = CapacitySource({"slots": 1, "tokens": Rate(1, per=10.0, burst=BURST)}, clock=now)
    grants: list[list[float]] = []
    jobs: list[tuple[asyncio.Task[None], asyncio.Event, list[Lease], list[float]]] = []

    async def work(
        tokens: int, unpin: asyncio.Event, held: list[Lease], grant: list[float]
    ) -> None:
        cost = {"slots": dice.choice([0, 1, 1]), "tokens": tokens}
        held.append(await capacity.acquire(cost, owner=None))
        grant += [now(), tokens]
        grants.append(grant)
        try:
            await unpin.wait()
            held[0].release()
        finally:
            held.clear()

    for _ in range(dice.randint(5, 30)):
        action = dice.random()
        if action < 0.3:
            await asyncio.sleep(dice.choice([0.5, 5, 100]))
        elif action < 0.65 or not jobs:
            unpin, held, grant = asyncio.Event(), list[Lease](), list[float]()
            task = asyncio.create_task(work(dice.choice([1, 5, BURST]), unpin, held, grant))
            jobs.append((task, unpin, held, grant))
        else:
            task, unpin, held, grant = dice.choice(jobs)
            if action < 0.7 and held:
                grant[1] = min(dice.randint(0, 6), grant[1])
                held[0].settle(tokens=grant[1])
            elif action < 0.95:
                # The job stops waiting, or drops its lease.
                task.cancel()
            else:
                unpin.set()
        await yield_to_loop(4)
    await asyncio.sleep(300)
    for task, *_ in jobs:
        task.cancel()
    await asyncio.gather(*(task for task, *_ in jobs), return_exceptions=True)
    return [(when, tokens) for when, tokens in grants]


@pytest.mark.filterwarnings("ignore:a lease was collected:ResourceWarning")
def test_rate_holds_in_every_window_when_unobserved() -> None:
    for seed in range(500):
        with asyncio.Runner(loop_factory=VirtualClock()) as runner:
            grants = runner.run(play(random.Random(seed)))
        # A leaky bucket: its level is what the worst window that ends here has beyond the rate.
        level, last = 0.0, 0.0
        for when, tokens in grants:
            level = max(0.0, level - 0.1 * (when - last)) + tokens
            last = when
            assert level <= BURST + 0.1 * 0.05 + 1e-6, f"seed {seed}: {grants}"
