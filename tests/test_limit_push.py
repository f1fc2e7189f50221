"""Pushes under a capacity: `SinkCapacityObj`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import (
    CapacitySource,
    ClosedError,
    PushChain,
    PushForkObj,
    PushMapObj,
    PushPullBufferObj,
    SinkCapacityObj,
    SinkCollectObj,
    SinkObj,
    WouldBlock,
)
from tests.support import budget_capacity, until, wrong


class Slow(SinkObj[int]):
    """A sink that accepts any number of items at once, each when its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.items: list[int] = []
        self.running = self.peak = 0

    async def next_impl(self, item: int) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.gate.wait()
            self.items.append(item)
        finally:
            self.running -= 1


async def test_push_holds_its_lease_until_acceptance() -> None:
    capacity = CapacitySource(2)
    sink = Slow()
    limited = PushChain.start(int).limit(capacity).into(sink)
    pushes = [asyncio.ensure_future(limited.next(number)) for number in range(5)]
    await until(lambda: (capacity.waiting, sink.running) == (3, 2))
    assert capacity.held == 2
    sink.gate.set()
    await asyncio.gather(*pushes)
    # Two at once, in any order; a push that must yield first is accepted later.
    assert (sorted(sink.items), sink.peak) == ([0, 1, 2, 3, 4], 2)
    assert capacity.held == 0
    await limited.return_()
    assert sink.closed


async def test_cancelled_or_failed_push_holds_nothing() -> None:
    capacity = CapacitySource(1)
    sink = Slow()
    limited = SinkCapacityObj(sink, capacity)
    pushes = [asyncio.ensure_future(limited.next(number)) for number in range(3)]
    await until(lambda: capacity.waiting == 2)
    for push in pushes[:2]:
        push.cancel()
    sink.gate.set()
    outcomes = await asyncio.gather(*pushes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:2]] == [asyncio.CancelledError] * 2
    assert sink.items == [2]
    assert capacity.held == capacity.waiting == 0
    await sink.return_()
    with pytest.raises(ClosedError) as closed:
        await limited.next(3)
    assert closed.value.item == 3
    assert capacity.held == 0


async def test_next_nowait_without_capacity_would_block() -> None:
    capacity = CapacitySource(1)
    sink = SinkCollectObj[int]()
    limited = SinkCapacityObj(sink, capacity)
    limited.next_nowait(1)
    lease = await capacity.acquire()
    with pytest.raises(WouldBlock, match="capacity") as refused:
        limited.next_nowait(2)
    assert refused.value.item == 2
    lease.release()
    assert capacity.held == 0
    assert limited.capacity is capacity
    limited.capacity = CapacitySource(1)
    limited.next_nowait(2)
    assert list(sink.buffer) == [1, 2]
    await limited.return_()


async def test_law_2_cancelled_push_spends_nothing() -> None:
    budget = budget_capacity(3)
    sink = Slow()
    limited = SinkCapacityObj(sink, budget, cost={"dollars": 1})
    for _ in range(5):
        push = asyncio.ensure_future(limited.next(7))
        await until(lambda: sink.running == 1)
        assert budget.held["dollars"] == 1
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push
        assert budget.held["dollars"] == 0
    sink.gate.set()
    await limited.next(7)
    assert budget.held["dollars"] == 1


async def test_refused_push_spends_nothing() -> None:
    budget = budget_capacity(3)
    buffer = PushPullBufferObj[int](1)
    limited = SinkCapacityObj(buffer.sink, budget, cost={"dollars": 1})
    limited.next_nowait(1)
    for _ in range(4):
        with pytest.raises(WouldBlock):
            limited.next_nowait(2)
        assert budget.held["dollars"] == 1
    await buffer.sink.return_()
    with pytest.raises(ClosedError):
        await limited.next(3)
    assert budget.held["dollars"] == 1

    class Slowly:
        async def next(self, item: int) -> None: ...
        async def return_(self, value: Any = None) -> None: ...
        async def throw(self, error: BaseException) -> None: ...

    limited = SinkCapacityObj(wrong(Slowly()), budget, cost={"dollars": 1})
    with pytest.raises(TypeError, match="has no next_nowait"):
        limited.next_nowait(1)
    assert budget.held["dollars"] == 1


async def test_failed_or_partly_accepted_push_is_charged() -> None:
    def refuse(number: int) -> int:
        raise ValueError(number)

    budget = budget_capacity(4)
    kept, slow = SinkCollectObj[int](), Slow()
    limited = SinkCapacityObj(PushMapObj(kept, refuse), budget, cost={"dollars": 1})
    with pytest.raises(ValueError, match="1"):
        await limited.next(1)
    with pytest.raises(ValueError, match="2"):
        limited.next_nowait(2)
    assert budget.held["dollars"] == 2
    fork = SinkCapacityObj(PushForkObj([kept, slow]), budget, cost={"dollars": 1})
    push = asyncio.ensure_future(fork.next(3))
    await until(lambda: slow.running == 1)
    push.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await push
    assert vars(cancelled.value)["accepted_by"] == (kept,)
    assert budget.held["dollars"] == 3


def test_next_nowait_needs_no_loop() -> None:
    budget = budget_capacity(1)
    kept = SinkCollectObj[int]()
    SinkCapacityObj(kept, budget, cost={"dollars": 1}).next_nowait(1)
    assert (kept.buffer, budget.held["dollars"]) == ([1], 1)
