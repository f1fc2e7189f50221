"""`drain_to`: push the items of a stream into a sink."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullObj,
    PushForkObj,
    PushMapObj,
    PushPullBufferObj,
    PushTakeObj,
    PushWindowObj,
    SinkCollectObj,
    SinkObj,
    SourceIterObj,
)
from tests.support import Heart, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def delayed(n: int) -> int:
    await asyncio.sleep(0)
    return n


class Slow(SinkObj[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []
        self.ends: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await yield_to_loop(2)
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        await asyncio.sleep(0)
        self.ends.append(value)


async def test_drain_to_pushes_all_and_ends_sink() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    await SourceIterObj(range(5)).map(delayed).drain_to(sink)
    assert sink.buffer == list(range(5))
    assert sink.closed
    shared: SinkCollectObj[int] = SinkCollectObj()
    for _ in range(2):
        await SourceIterObj(range(2)).drain_to(shared, forward_close=False)
    assert shared.buffer == [0, 1, 0, 1]
    assert not shared.closed


async def test_drain_to_stops_when_sink_is_done() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    stream = SourceIterObj(range(10))
    await stream.drain_to(PushTakeObj(PushWindowObj(sink, 2), 3))
    assert sink.buffer == [[0, 1], [2]]
    assert await anext(stream) == 3


async def test_law_3_failed_drain_leaves_both_sides_usable() -> None:
    sink: SinkCollectObj[float] = SinkCollectObj()
    stream = SourceIterObj([1, 0, 2])
    with pytest.raises(ZeroDivisionError):
        await stream.drain_to(PushMapObj[int, float](sink, lambda n: 1 / n))
    assert not sink.closed
    await stream.map(float).drain_to(sink)
    assert sink.buffer == [1.0, 2.0]


async def test_item_refused_by_closed_sink_is_put_back() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    await sink.return_()
    stream = SourceIterObj(range(3)).map(delayed)
    for target in (sink, PushMapObj[int, int](sink, lambda n: n)):
        with pytest.raises(ClosedError) as caught:
            await stream.drain_to(target)
        assert caught.value.item == 0
    assert await stream.collect() == [0, 1, 2]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("at", range(1, 60))
async def test_law_2_cancelled_drain_loses_nothing(at: int, batched: bool) -> None:
    sink = Slow()
    target: Any = PushWindowObj(PushMapObj[Any, Any](sink, delayed), 2) if batched else sink
    stream: PullObj[int] = SourceIterObj(range(7)).map(delayed).filter(lambda _: True)
    task = asyncio.create_task(stream.drain_to(target))
    await yield_to_loop(at)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await stream.drain_to(target)
    assert sink.items == ([[0, 1], [2, 3], [4, 5], [6]] if batched else list(range(7)))
    assert sink.ends == [None]


async def test_law_2_partly_delivered_item_is_not_put_back() -> None:
    gate, sink = asyncio.Event(), SinkCollectObj[int]()

    async def wait(n: int) -> int:
        await gate.wait()
        return n

    fork = PushForkObj([sink, PushMapObj(SinkCollectObj[int](), wait)])
    stream = SourceIterObj(range(3))
    task = asyncio.create_task(stream.drain_to(fork))
    await yield_to_loop(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert getattr(caught.value, "accepted_by", ()) in ((sink,), ())
    gate.set()
    await stream.drain_to(fork)
    assert sink.buffer == [0, 1, 2]


class Yielding(SinkObj[Any]):
    """Accepts an item after one event-loop iteration, or one manual `send`."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await asyncio.sleep(0)
        self.items.append(item)


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("shape", ["plain", "batch", "fork"])
async def test_law_2_drain_closed_manually_repeats_no_item(shape: str, at: int) -> None:
    sink, other = Yielding(), Yielding()
    batch: Any = PushWindowObj(sink, 1)
    target: Any = {
        "plain": other,
        "batch": batch,
        "fork": PushForkObj([other, batch], concurrent=False),
    }[shape]
    stream = SourceIterObj(range(4))
    drain = stream.drain_to(target)
    with suppress(StopIteration):
        for _ in range(at):
            drain.send(None)
    drain.close()
    await stream.drain_to(target)
    assert sink.items == ([] if shape == "plain" else [[0], [1], [2], [3]])
    # An item that one branch of the fork accepted is not pushed to the other branch again.
    assert sorted(set(other.items)) == other.items
    assert len(other.items) >= {"plain": 4, "batch": 0, "fork": 3}[shape]


async def test_law_16_draining_yields_to_event_loop() -> None:
    async with Heart() as heart:
        sink: SinkCollectObj[int] = SinkCollectObj()
        await SourceIterObj(range(20_000)).drain_to(sink)
    assert len(sink.buffer) == 20_000
    assert heart.beats >= 20_000 // 4096


async def test_drain_buffer_into_buffer() -> None:
    first: PushPullBufferObj[int] = PushPullBufferObj(2)
    second: PushPullBufferObj[int] = PushPullBufferObj(1)
    draining = asyncio.create_task(first.source.drain_to(second.sink))
    pulled = asyncio.create_task(second.source.collect())
    for n in range(20):
        await first.sink.next(n)
    await first.sink.return_()
    await draining
    assert await pulled == list(range(20))


async def test_drain_user_defined_stream() -> None:
    class Own(PullObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            for n in range(3):
                yield n

    sink: SinkCollectObj[int] = SinkCollectObj()
    await Own().drain_to(sink)
    assert sink.buffer == [0, 1, 2]


def test_law_14_drain_to_non_sink_raises_at_once() -> None:
    with pytest.raises(TypeError, match=r"sink must be a push object, got 3 \(int\)"):
        wrong(SourceIterObj(range(3)).drain_to)(3)
