"""Lines under a capacity: `source.limit(capacity)` and `SinkCapacityObj`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    ClosedError,
    PushChain,
    QuotaCapacitySource,
    Rate,
    SinkCapacityObj,
    SinkCollectObj,
    SinkObj,
    SourceCapacityObj,
    SourceIterObj,
    WouldBlock,
)
from tests.support import Gate, collect, turns, until, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Watched:
    """Endless, one turn an item, under the eyes of a capacity."""

    def __init__(self, capacity: CapacitySource) -> None:
        self.capacity = capacity
        self.running = self.peak = 0

    async def items(self) -> AsyncIterator[int]:
        while True:
            self.running += 1
            self.peak = max(self.peak, self.running)
            assert self.running <= self.capacity.held
            await asyncio.sleep(0)
            self.running -= 1
            yield 1


async def test_nothing_is_asked_for_before_the_lease_is_there() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire(detached=True)
    asked: list[int] = []

    def source() -> Any:
        for number in range(3):
            asked.append(number)
            yield number

    stream = SourceIterObj(source()).limit(capacity)
    assert isinstance(stream, SourceCapacityObj)
    pull = asyncio.ensure_future(anext(stream))
    await until(lambda: capacity.waiting == 1)
    assert not asked
    lease.release()
    assert await pull == 0
    # The next stage has it: nothing is held meanwhile.
    assert capacity.held == 0
    assert await stream.collect() == [1, 2]
    assert capacity.held == 0


async def test_streams_share_what_a_capacity_has() -> None:
    capacity = CapacitySource(2)
    watched = Watched(capacity)
    streams = [SourceIterObj(watched.items()).limit(capacity).take(20) for _ in range(5)]
    assert await asyncio.gather(*(collect(stream) for stream in streams)) == [[1] * 20] * 5
    assert watched.peak == 2
    assert capacity.held == capacity.waiting == 0
    for stream in streams:
        await stream.aclose()


async def test_a_pull_that_fails_or_ends_holds_nothing() -> None:
    capacity = CapacitySource(3)

    def picky(number: int) -> int:
        if number == 1:
            raise ValueError(number)
        return number

    stream = SourceIterObj([0, 1, 2]).map(picky).limit(capacity, cost=2, priority=1)
    assert await anext(stream) == 0
    with pytest.raises(ValueError, match="1"):
        await anext(stream)
    assert capacity.held == 0
    assert await collect(stream) == [2]
    assert capacity.held == 0


async def test_a_cancelled_pull_holds_nothing_and_loses_nothing() -> None:
    capacity = CapacitySource(1)
    gate = Gate()
    stream = SourceIterObj([1, 2]).map(gate).limit(capacity)
    for waits_for_lease in (True, False):
        lease = await capacity.acquire(detached=True) if waits_for_lease else None
        pull = asyncio.ensure_future(anext(stream))
        await turns(3)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        if lease is not None:
            lease.release()
        assert capacity.held == capacity.waiting == 0
    gate.open.set()
    assert await stream.collect() == [10, 20]
    await stream.aclose()


@pytest.mark.virtual
async def test_a_rate_paces_a_line() -> None:
    loop = asyncio.get_running_loop()
    pace = QuotaCapacitySource(Rate(2, per=1.0), clock=loop.time)
    begun = loop.time()
    times = [loop.time() - begun async for _ in SourceIterObj(range(4)).limit(pace)]
    assert times == pytest.approx([0, 0.5, 1, 1.5])


async def test_a_capacity_that_is_closed_ends_nothing_else() -> None:
    capacity, other = CapacitySource(1), CapacitySource(1)
    stream = SourceIterObj([1, 2]).limit(capacity)
    capacity.close()
    with pytest.raises(ClosedError):
        await anext(stream)
    stream.capacity = other
    assert stream.capacity is other
    assert await collect(stream) == [1, 2]


async def test_a_stream_can_be_restarted() -> None:
    stream = SourceIterObj([1, 2]).limit(CapacitySource(1))
    assert await collect(stream) == [1, 2]
    stream.restart()
    assert await collect(stream) == [1, 2]


# Push.


class Slow(SinkObj[int]):
    """Takes as many at once as it is given, and as long as it is told to."""

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


async def test_a_push_holds_its_lease_until_the_sink_has_the_item() -> None:
    capacity = CapacitySource(2)
    sink = Slow()
    line = PushChain.start(int).limit(capacity).into(sink)
    pushes = [asyncio.ensure_future(line.next(number)) for number in range(5)]
    await until(lambda: (capacity.waiting, sink.running) == (3, 2))
    assert capacity.held == 2
    sink.gate.set()
    await asyncio.gather(*pushes)
    assert (sink.items, sink.peak) == ([0, 1, 2, 3, 4], 2)
    assert capacity.held == 0
    await line.return_()
    assert sink.closed


async def test_a_push_that_is_cancelled_or_fails_holds_nothing() -> None:
    capacity = CapacitySource(1)
    sink = Slow()
    line = SinkCapacityObj(sink, capacity)
    pushes = [asyncio.ensure_future(line.next(number)) for number in range(3)]
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
        await line.next(3)
    assert closed.value.item == 3
    assert capacity.held == 0


async def test_a_push_that_cannot_wait() -> None:
    capacity = CapacitySource(1)
    sink = SinkCollectObj[int]()
    line = SinkCapacityObj(sink, capacity)
    line.next_nowait(1)
    lease = await capacity.acquire()
    with pytest.raises(WouldBlock, match="capacity") as refused:
        line.next_nowait(2)
    assert refused.value.item == 2
    lease.release()
    assert capacity.held == 0
    assert line.capacity is capacity
    line.capacity = CapacitySource(1)
    line.next_nowait(2)
    assert list(sink.buffer) == [1, 2]
    await line.return_()


@pytest.mark.parametrize(
    "make",
    [
        lambda *a, **k: SourceCapacityObj([1], *a, **k),
        lambda *a, **k: SinkCapacityObj(SinkCollectObj(), *a, **k),
    ],
)
def test_law_14_bad_input_fails_at_construction(make: Any) -> None:
    capacity = CapacitySource(2)
    with pytest.raises(TypeError, match=r"capacity must be a CapacitySource, got 3 \(int\)"):
        make(wrong(3))
    with pytest.raises(ValueError, match="cost must not be negative"):
        make(capacity, cost=-1)
    with pytest.raises(ValueError, match="can never be had"):
        make(capacity, cost=3)
    with pytest.raises(TypeError, match=r"priority must be an integer, got 'high' \(str\)"):
        make(capacity, priority="high")
