"""Resizing, pausing and closing nodes of a tree of capacities."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from headrace import CapacitySource, ClosedError, Rate
from tests.support import until


async def test_resize_up_grants_and_down_revokes_nothing() -> None:
    capacity = CapacitySource(2)
    held = [await capacity.acquire() for _ in range(2)]
    waiting = [asyncio.ensure_future(capacity.acquire()) for _ in range(2)]
    await until(lambda: capacity.waiting == 2)
    capacity.resize(3)
    assert (capacity.held, capacity.waiting) == (3, 1)
    capacity.resize(1)
    assert (capacity.limit, capacity.held, capacity.waiting) == (1, 3, 1)
    assert capacity.utilization == 3
    held[0].release()
    held[1].release()
    assert (capacity.held, capacity.waiting) == (1, 1)
    (await waiting[0]).release()
    (await waiting[1]).release()
    assert capacity.held == 0


async def test_limit_of_0_pauses() -> None:
    capacity = CapacitySource(2)
    capacity.resize(0)
    assert capacity.acquire_nowait() is None
    assert capacity.peek() is None
    waiting = asyncio.ensure_future(capacity.acquire(2))
    await until(lambda: capacity.waiting == 1)
    with pytest.raises(ValueError, match="cost of 3 slots"):
        _ = capacity.acquire(3)
    capacity.resize(2)
    (await waiting).release()


def test_resize_is_reentrant() -> None:
    others: list[Any] = []

    def clock() -> float:
        # As a signal handler would, inside the other call.
        while others:
            capacity.resize(others.pop())
        return 0.0

    def reported_limits() -> list[dict[str, Any]]:
        return [dict(capacity.limits), dict(capacity.snapshot().limit)]

    limits: dict[str, Any] = {"slots": 2, "memory": 8, "tokens": Rate(5, per=7.0, burst=3)}
    capacity = CapacitySource(limits, clock=clock)
    others.append({"memory": 6})
    capacity.resize({"slots": 3})
    assert reported_limits() == [limits | {"slots": 3, "memory": 6}] * 2
    # The last resize counts, and all views agree.
    others += [{"slots": 9, "memory": 4}, {"slots": 7}]
    capacity.resize({"slots": 5})
    assert reported_limits() == [limits | {"slots": 5, "memory": 4}] * 2


def test_clock_may_wait_for_a_resizing_thread() -> None:
    waits: list[threading.Thread] = []

    def clock() -> float:
        while waits:
            thread = waits.pop()
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
        return 0.0

    capacity = CapacitySource({"slots": 2, "memory": 8}, clock=clock)
    waits.append(threading.Thread(target=capacity.resize, args=[{"memory": 6}], daemon=True))
    capacity.resize({"slots": 3})
    assert capacity.limits == capacity.snapshot().limit == {"slots": 3, "memory": 6}


async def test_pause_and_resume() -> None:
    root = CapacitySource(2)
    leaf = CapacitySource(2, root)
    root.pause()
    assert [node.paused for node in (root, leaf)] == [True, True]
    assert leaf.acquire_nowait() is None
    assert leaf.peek() is None
    waiting = asyncio.ensure_future(leaf.acquire())
    await until(lambda: leaf.waiting == 1)
    root.resume()
    (await waiting).release()
    assert [node.paused for node in (root, leaf)] == [False, False]
    assert leaf.peek() == 2


async def test_close_ends_waiters_of_the_node_only() -> None:
    root = CapacitySource(1, name="root")
    leaf, other = CapacitySource(1, root, name="leaf"), CapacitySource(1, root)
    lease = await leaf.acquire()
    below = asyncio.ensure_future(leaf.acquire())
    beside = asyncio.ensure_future(other.acquire())
    await until(lambda: root.waiting == 2)
    leaf.close()
    leaf.close()
    assert leaf.closed
    with pytest.raises(ClosedError, match="'leaf'"):
        await below
    for use in (
        leaf.acquire,
        leaf.acquire_nowait,
        leaf.acquire_sync,
        leaf.pause,
        leaf.resume,
        leaf.peek,
        lambda: leaf.resize(3),
        lambda: leaf.cool_down(1),
        lambda: CapacitySource(1, leaf),
    ):
        with pytest.raises(ClosedError, match="'leaf'"):
            use()
    assert not beside.done()
    lease.release()
    (await beside).release()
    assert root.held == 0


async def test_close_closes_descendants() -> None:
    root = CapacitySource(1, name="root")
    leaf = CapacitySource(1, root)
    root.close()
    assert leaf.closed
    with pytest.raises(ClosedError):
        await leaf.acquire()
