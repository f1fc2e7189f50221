"""Cooldowns of capacities: `cool_down`, its events, its ramp, and the marked node."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headrace import CapacitySource, ClosedError, QuotaCapacitySource, Rate
from tests.support import wrong


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.virtual
async def test_law_19_cooled_node_grants_nothing_and_siblings_continue() -> None:
    root = CapacitySource(10, clock=asyncio.get_running_loop().time)
    cooled, sibling = CapacitySource(4, root), CapacitySource(4, root)
    leaf, start = CapacitySource(4, cooled), now()
    assert cooled.cool_down(7) == 7
    assert (leaf.cooling, cooled.cooling, sibling.cooling) == (7, 7, 0)
    assert "cooled down for 7 s" in repr(cooled)
    assert leaf.acquire_nowait() is None
    assert leaf.peek() is None
    waiting = asyncio.ensure_future(leaf.acquire())
    for _ in range(69):
        async with sibling.acquire(4):
            await asyncio.sleep(0.1)
    assert not waiting.done()
    (await waiting).release()
    assert now() - start == pytest.approx(7)
    assert cooled.cooling == 0


@pytest.mark.virtual
async def test_cooldown_of_one_moment_is_one_event() -> None:
    capacity = CapacitySource(4, clock=asyncio.get_running_loop().time)
    assert capacity.snapshot().cooldown is None
    assert [capacity.cool_down(seconds) for seconds in (2, 5, 0, 1)] == [2, 5, 5, 5]
    found = capacity.snapshot().cooldown
    assert found is not None
    assert (found.resource, found.left, found.window, found.events) == (None, 5, 1, 1)
    await asyncio.sleep(6)
    capacity.cool_down(1)
    found = capacity.snapshot().cooldown
    assert found is not None
    assert found.events == 2
    await asyncio.sleep(60)
    (await capacity.acquire()).release()
    assert capacity.snapshot().cooldown is None


@pytest.mark.virtual
async def test_cooldown_without_a_delay_doubles() -> None:
    capacity = CapacitySource(4, clock=asyncio.get_running_loop().time)
    delays: list[float] = []
    for _ in range(4):
        delays.append(capacity.cool_down(None))
        await asyncio.sleep(max(delays[-1], 1) + 0.1)
    assert delays == [0.5, 1, 2, 4]


@pytest.mark.virtual
async def test_ramp_after_a_cooldown() -> None:
    capacity = CapacitySource(40, clock=asyncio.get_running_loop().time)
    held = peak = 0
    peaks: dict[int, int] = {}
    start = now()

    async def work() -> None:
        nonlocal held, peak
        while now() < start + 12:
            async with capacity.acquire():
                held += 1
                second = int(now() - start)
                peaks[second] = max(peaks.get(second, 0), held)
                await asyncio.sleep(0.1)
                held -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(60):
            tasks.create_task(work())
        await asyncio.sleep(2.95)
        # 40 are held, so that the threshold is 20.
        capacity.cool_down(2)
    assert peaks[2] == 40
    assert 3 not in peaks
    assert peaks.get(4, 1) <= 2
    assert 20 <= peaks[5] <= 40
    assert peaks[8] == 40


@pytest.mark.virtual
async def test_cooldown_of_a_resource() -> None:
    limits: dict[str, float | Rate] = {"slots": 4, "tokens": Rate(10, per=1.0)}
    capacity = CapacitySource(limits, clock=asyncio.get_running_loop().time)
    start = now()
    capacity.cool_down(5, "tokens")
    (await capacity.acquire()).release()
    assert now() == start
    (await capacity.acquire({"tokens": 1})).release()
    assert now() - start == pytest.approx(5)


def test_marked_node_is_live() -> None:
    root = CapacitySource(4, cooldown=True)
    middle = QuotaCapacitySource({"calls": Rate(1)}, root)
    leaf = CapacitySource(4, middle)
    assert (root.cooldown, middle.cooldown) == (True, False)
    assert leaf.cooldown_node is root
    middle.cooldown = True
    assert leaf.cooldown_node is middle
    root.cooldown = middle.cooldown = False
    assert leaf.cooldown_node is leaf
    assert QuotaCapacitySource(Rate(1), cooldown=True).cooldown


def test_bad_cooldown_is_refused() -> None:
    capacity = CapacitySource(1)
    with pytest.raises(ValueError, match="seconds must not be negative, got -1"):
        capacity.cool_down(-1)
    with pytest.raises(TypeError, match="seconds"):
        capacity.cool_down(wrong("soon"))
    with pytest.raises(ValueError, match="does not limit 'tokens'"):
        capacity.cool_down(1, "tokens")
    with pytest.raises(TypeError, match="cooldown must be True or False, got 1"):
        CapacitySource(1, cooldown=wrong(1))
    with pytest.raises(TypeError, match="cooldown must be True or False, got 5"):
        capacity.cooldown = wrong(5)
    capacity.close()
    with pytest.raises(ClosedError):
        capacity.cool_down(1)


def test_two_threads_share_a_cooldown() -> None:
    clock = [0.0]
    capacity = CapacitySource(8, clock=lambda: clock[0])
    capacity.cool_down(1)
    granted: list[float] = []

    def use() -> None:
        async def main() -> None:
            async with capacity.acquire():
                granted.append(clock[0])

        asyncio.run(main())

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    while capacity.waiting < 2:
        threading.Event().wait(0.001)
    assert capacity.acquire_nowait() is None
    clock[0] = 20.0
    # Any use of the tree after the deadline grants the waiters of all loops.
    while any(thread.is_alive() for thread in threads):
        if (lease := capacity.acquire_nowait()) is not None:
            lease.release()
        threading.Event().wait(0.001)
    assert granted == [20.0, 20.0]
