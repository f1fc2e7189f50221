"""A clock of one's own: whatever makes room, who is served by it is served at the time of now."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, Lease, QuotaCapacitySource, Rate
from headrace.testing import VirtualClock
from tests.support import turns, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BURST = 10


def now() -> float:
    return asyncio.get_running_loop().time()


async def served(capacity: CapacitySource) -> float:
    """When it was granted a slot and the whole burst."""
    async with capacity.acquire({"slots": 1, "tokens": BURST}):
        return now()


async def passed_eight_times(capacity: CapacitySource) -> None:
    for _ in range(8):
        (await capacity.acquire(owner=None)).release()


async def a_lease_is_collected(capacity: CapacitySource) -> Callable[[], object]:
    leases = [await capacity.acquire(2, owner=None)]

    def collect() -> None:
        with pytest.warns(ResourceWarning, match="collected before it was released"):
            leases.clear()

    return collect


async def a_waiter_is_cancelled(capacity: CapacitySource) -> Callable[[], object]:
    held = await capacity.acquire(owner=None)
    big = asyncio.ensure_future(capacity.acquire(2))
    await turns(3)
    await passed_eight_times(capacity)

    def cancel() -> None:
        big.cancel()
        # The one slot that is free is enough.
        asyncio.get_running_loop().call_later(1, held.release)

    return cancel


async def taking_again_is_cancelled(capacity: CapacitySource) -> Callable[[], object]:
    async def be_away() -> None:
        async with capacity.acquire(2, owner=None) as lease, lease.suspended():
            ready.set()
            await away.wait()

    ready, away = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(be_away())
    await ready.wait()
    held = await capacity.acquire(owner=None)
    away.set()
    await turns(3)
    await passed_eight_times(capacity)

    def cancel() -> None:
        task.cancel()
        asyncio.get_running_loop().call_later(1, held.release)

    return cancel


MAKES_ROOM = [
    a_lease_is_collected,
    a_waiter_is_cancelled,
    taking_again_is_cancelled,
]


@pytest.mark.virtual
@pytest.mark.parametrize("begin", MAKES_ROOM, ids=lambda begin: begin.__name__)
async def test_who_is_served_by_whatever_makes_room_is_served_at_the_time_of_now(
    begin: Callable[[CapacitySource], Coroutine[Any, Any, Callable[[], object]]],
) -> None:
    capacity = CapacitySource(
        {"slots": 2, "tokens": Rate(1, per=1.0, burst=BURST)},
        clock=asyncio.get_running_loop().time,
    )
    make_room = await begin(capacity)
    waiter = asyncio.create_task(served(capacity))
    await turns(5)
    assert not waiter.done(), "it waits, or this shows nothing"
    # Nobody touches the tree meanwhile.
    await asyncio.sleep(100)
    make_room()
    await until(waiter.done)
    assert await waiter == now()
    # It has had the whole burst just now, so nothing is left: by the time of long ago all would be there again.
    assert capacity.available["tokens"] == 0
    assert capacity.acquire_nowait({"tokens": 1}) is None
    await asyncio.sleep(2)
    assert capacity.held["slots"] == 0


async def test_a_clock_that_fails_where_nobody_called_is_told_of_and_the_capacity_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails = False

    def clock() -> float:
        if fails:
            raise ZeroDivisionError("no time")
        return 1.0

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
    capacity = CapacitySource(1, clock=clock)
    lease = await capacity.acquire(owner=None)
    waiting = [asyncio.ensure_future(capacity.acquire()) for _ in range(2)]
    await turns(3)
    fails = True
    waiting[0].cancel()
    await turns(3)
    assert [str(error) for error in told] == ["no time"]
    # And in a destructor, through which an error of somebody else is on its way.
    with pytest.warns(ResourceWarning), pytest.raises(KeyError, match="mine"):
        try:
            raise KeyError("mine")
        finally:
            del lease
    assert [str(error) for error in told] == ["no time"] * 2
    fails = False
    (await waiting[1]).release()
    assert (capacity.held, capacity.waiting) == (0, 0)


def test_a_clock_that_is_garbage_with_its_tree_is_not_asked_any_more() -> None:
    class Clock:
        def __init__(self) -> None:
            self.seconds = 1.0

        def now(self) -> float:
            return self.seconds

    def leave() -> None:
        clock = Clock()
        capacity = CapacitySource(1, clock=clock.now)
        # All in one circle, of which the collector takes the clock apart first.
        clock.__dict__["circle"] = [clock, capacity, capacity.acquire_sync(owner=None)]

    gc.collect()
    leave()
    with pytest.warns(ResourceWarning, match="a lease was collected"):
        gc.collect()


async def test_a_clock_may_use_the_tree_itself() -> None:
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
    await turns(3)
    waiting[0].cancel()
    with pytest.warns(ResourceWarning):
        del leases
    for one in waiting[1:]:
        (await one).release()
    assert (capacity.held, capacity.waiting) == (0, 0)


@pytest.mark.virtual
@pytest.mark.parametrize(("failures", "by", "errors"), [(1, 1, 1), (2, 2, 1), (4, 3, 2)])
async def test_a_clock_that_fails_at_the_timer_is_asked_again(
    failures: int, by: int, errors: int
) -> None:
    loop, left = asyncio.get_running_loop(), 0

    def clock() -> float:
        nonlocal left
        if left:
            left -= 1
            raise ZeroDivisionError
        return loop.time()

    told: list[object] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context.get("exception")))
    capacity = QuotaCapacitySource(Rate(1, per=1.0, burst=1), clock=clock)
    begun = loop.time()
    (await capacity.acquire()).release()
    waiting = asyncio.ensure_future(capacity.acquire())
    await asyncio.sleep(0.5)
    left = failures
    (await waiting).release()
    assert loop.time() - begun == pytest.approx(by, abs=0.001)
    assert [type(error) for error in told] == [ZeroDivisionError] * errors


async def play(dice: random.Random) -> list[tuple[float, float]]:
    """What was had of a rate, and when: jobs come, are cancelled, lose their lease and settle it, and nobody looks at the capacity."""
    capacity = CapacitySource({"slots": 1, "tokens": Rate(1, per=10.0, burst=BURST)}, clock=now)
    had: list[list[float]] = []
    jobs: list[tuple[asyncio.Task[None], asyncio.Event, list[Lease], list[float]]] = []

    async def work(tokens: int, unpin: asyncio.Event, held: list[Lease], mine: list[float]) -> None:
        cost = {"slots": dice.choice([0, 1, 1]), "tokens": tokens}
        held.append(await capacity.acquire(cost, owner=None))
        mine += [now(), tokens]
        had.append(mine)
        try:
            await unpin.wait()
            held[0].release()
        finally:
            held.clear()

    for _ in range(dice.randint(5, 30)):
        what = dice.random()
        if what < 0.3:
            await asyncio.sleep(dice.choice([0.5, 5, 100]))
        elif what < 0.65 or not jobs:
            unpin, held, mine = asyncio.Event(), list[Lease](), list[float]()
            task = asyncio.create_task(work(dice.choice([1, 5, BURST]), unpin, held, mine))
            jobs.append((task, unpin, held, mine))
        else:
            task, unpin, held, mine = dice.choice(jobs)
            if what < 0.7 and held:
                mine[1] = min(dice.randint(0, 6), mine[1])
                held[0].settle(tokens=mine[1])
            elif what < 0.95:
                # It gives up waiting, or loses what it has.
                task.cancel()
            else:
                unpin.set()
        await turns(4)
    await asyncio.sleep(300)
    for task, *_ in jobs:
        task.cancel()
    await asyncio.gather(*(task for task, *_ in jobs), return_exceptions=True)
    return [(when, tokens) for when, tokens in had]


@pytest.mark.filterwarnings("ignore:a lease was collected:ResourceWarning")
def test_no_window_lets_more_through_than_the_rate_though_nobody_looks_at_the_capacity() -> None:
    for seed in range(500):
        with asyncio.Runner(loop_factory=VirtualClock()) as runner:
            had = runner.run(play(random.Random(seed)))
        # What is missing in a bucket is what the worst window that ends here lets through beyond what the rate brings.
        missing, last = 0.0, 0.0
        for when, tokens in had:
            missing = max(0.0, missing - 0.1 * (when - last)) + tokens
            last = when
            assert missing <= BURST + 0.1 * 0.05 + 1e-6, f"seed {seed}: {had}"
