"""`PushWindowTimeoutObj`: batches that are full or whose time is up."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from headrace import (
    ClosedError,
    PushMapObj,
    PushPullBufferObj,
    PushWindowTimeoutObj,
    SinkCollectObj,
    SinkObj,
    WouldBlock,
)

pytestmark = pytest.mark.virtual


class Timed(SinkObj[Any]):
    """Records each item and the time of its acceptance; each item takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.items: list[Any] = []
        self.ends: list[Any] = []
        self.bad: tuple[Any, ...] = ()

    async def next_impl(self, item: Any) -> None:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if item in self.bad:
            raise OSError(item)
        self.items.append((asyncio.get_running_loop().time(), item))

    async def return_impl(self, value: Any) -> None:
        self.ends.append(value)

    async def throw_impl(self, error: BaseException) -> None:
        self.ends.append(error)


async def test_law_10_batch_is_pushed_when_full_or_timed_out() -> None:
    started = asyncio.get_running_loop().time()
    sink = Timed()
    pipeline = PushMapObj[int, int](PushWindowTimeoutObj(sink, 3, 5), int)
    for n in range(3):
        await pipeline.next(n)
        await asyncio.sleep(1)
    await pipeline.next(3)
    await asyncio.sleep(4)
    await pipeline.next(4)
    await asyncio.sleep(10)
    await pipeline.next(5)
    await pipeline.return_("end")
    assert [(at - started, items) for at, items in sink.items] == [
        (2, [0, 1, 2]),
        (8, [3, 4]),
        (17, [5]),
    ]
    assert sink.ends == ["end"]
    with pytest.raises(ClosedError):
        await pipeline.next(6)


async def test_law_13_size_and_timeout_are_live() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline = PushWindowTimeoutObj(sink, 10, 100)
    assert (pipeline.size, pipeline.seconds) == (10, 100.0)
    pipeline.size, pipeline.seconds = 2, 1
    await pipeline.next(1)
    await pipeline.next(2)
    await pipeline.next(3)
    await asyncio.sleep(2)
    assert sink.buffer == [[1, 2], [3]]
    with pytest.raises(ValueError, match="seconds must be positive"):
        pipeline.seconds = -1


async def test_law_6_slow_sink_blocks_push_that_fills_batch() -> None:
    sink = Timed(10)
    pipeline = PushWindowTimeoutObj(sink, 2, 1)
    await pipeline.next(0)
    await asyncio.sleep(2)
    # The batch that timed out is being delivered; another can be filled meanwhile.
    await pipeline.next(1)
    push = asyncio.create_task(pipeline.next(2))
    await asyncio.sleep(5)
    assert not push.done()
    await push
    await pipeline.return_()
    assert [items for _, items in sink.items] == [[0], [1, 2]]


async def test_law_3_background_error_is_raised_by_next_push() -> None:
    sink = Timed()
    sink.bad = ([1], [3])
    pipeline = PushWindowTimeoutObj(sink, 5, 1)
    await pipeline.next(1)
    await asyncio.sleep(2)
    with pytest.raises(OSError, match="1"):
        await pipeline.next(2)
    await pipeline.next(2)
    await asyncio.sleep(2)
    assert [items for _, items in sink.items] == [[2]]
    await pipeline.next(3)
    await asyncio.sleep(2)
    with pytest.raises(OSError, match="3"):
        await pipeline.return_()
    assert sink.ends == [None]


async def test_law_4_end_waits_for_batch_in_flight() -> None:
    sink = Timed(10)
    pipeline = PushWindowTimeoutObj(sink, 5, 1)
    await pipeline.next(1)
    await asyncio.sleep(2)
    await pipeline.next(2)
    ending = asyncio.create_task(pipeline.return_())
    await asyncio.sleep(3)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert sink.ends == []
    await pipeline.return_()
    assert [items for _, items in sink.items] == [[1], [2]]
    assert sink.ends == [None]


async def test_throw_drops_batch_and_cancels_delivery() -> None:
    sink = Timed(10)
    pipeline = PushWindowTimeoutObj(sink, 2, 1)
    await pipeline.next(1)
    await asyncio.sleep(2)
    await pipeline.next(2)
    error = KeyError("x")
    await pipeline.throw(error)
    assert sink.items == []
    assert sink.ends == [error]
    await asyncio.sleep(100)
    assert sink.items == []


async def test_nowait_fills_batches_delivered_in_background() -> None:
    buffer: PushPullBufferObj[list[int]] = PushPullBufferObj(1)
    pipeline = PushWindowTimeoutObj(buffer.sink, 2, 1)
    for n in range(5):
        pipeline.next_nowait(n)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(WouldBlock) as caught:
        pipeline.next_nowait(5)
    assert caught.value.item == 5
    assert await anext(buffer.source) == [0, 1]
    await asyncio.sleep(0.1)
    pipeline.next_nowait(5)
    assert await anext(buffer.source) == [2, 3]
    assert await anext(buffer.source) == [4, 5]
    await pipeline.return_()
    with pytest.raises(ClosedError):
        pipeline.next_nowait(6)


async def test_done_is_returned_and_later_items_are_dropped() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj(1)
    pipeline = PushWindowTimeoutObj(sink, 2, 1)
    assert [(await pipeline.next(n)).done for n in range(4)] == [False, True, True, True]
    await asyncio.sleep(5)
    assert sink.buffer == [[0, 1]]
    await pipeline.return_()


async def test_law_5_dropped_batch_warns_and_leaves_no_timer() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    pipeline = PushWindowTimeoutObj(sink, 5, 10)
    await pipeline.next(1)
    await pipeline.next(2)
    with pytest.warns(ResourceWarning, match="2 items were lost"):
        del pipeline
        gc.collect()
    await asyncio.sleep(100)
    assert sink.buffer == []
    slow = Timed(10)
    busy = PushWindowTimeoutObj(slow, 5, 1)
    await busy.next(1)
    await asyncio.sleep(2)
    with pytest.warns(ResourceWarning, match="1 items were lost"):
        del busy
        gc.collect()
    await asyncio.sleep(100)
    assert slow.items == []


@pytest.mark.parametrize("at", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 11.5, 12.5, 25.0])
async def test_law_2_push_cancelled_at_any_time_is_repaired(at: float) -> None:
    sink = Timed(1)
    pipeline = PushWindowTimeoutObj(sink, 2, 1.5)

    async def produce() -> None:
        for n in range(6):
            try:
                await pipeline.next(n)
            except asyncio.CancelledError as cancelled:
                if not getattr(cancelled, "accepted_by", ()):
                    await pipeline.next(n)
            try:
                await asyncio.sleep(0.4 * n)
            except asyncio.CancelledError:
                pass

    task = asyncio.create_task(produce())
    await asyncio.sleep(at)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await pipeline.return_()
    assert [n for _, items in sink.items for n in items] == list(range(6))
