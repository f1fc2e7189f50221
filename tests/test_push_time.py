"""`PushWindowTimeoutObj`: windows that time ends."""

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
    """Notes what came, and when it was accepted; takes a second for each."""

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


async def test_law_10_a_list_goes_on_when_it_is_full_or_when_its_time_is_up() -> None:
    begun = asyncio.get_running_loop().time()
    sink = Timed()
    line = PushMapObj[int, int](PushWindowTimeoutObj(sink, 3, 5), int)
    for n in range(3):
        await line.next(n)
        await asyncio.sleep(1)
    await line.next(3)
    await asyncio.sleep(4)
    await line.next(4)
    await asyncio.sleep(10)
    await line.next(5)
    await line.return_("end")
    assert [(at - begun, items) for at, items in sink.items] == [
        (2, [0, 1, 2]),
        (8, [3, 4]),
        (17, [5]),
    ]
    assert sink.ends == ["end"]
    with pytest.raises(ClosedError):
        await line.next(6)


async def test_law_13_size_and_seconds_are_live() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    line = PushWindowTimeoutObj(sink, 10, 100)
    assert (line.size, line.seconds) == (10, 100.0)
    line.size, line.seconds = 2, 1
    await line.next(1)
    await line.next(2)
    await line.next(3)
    await asyncio.sleep(2)
    assert sink.buffer == [[1, 2], [3]]
    with pytest.raises(ValueError, match="seconds must be positive"):
        line.seconds = -1


async def test_law_6_a_slow_sink_holds_up_the_push_that_fills_a_list() -> None:
    sink = Timed(10)
    line = PushWindowTimeoutObj(sink, 2, 1)
    await line.next(0)
    await asyncio.sleep(2)
    # The list of time is on its way; one more can be filled meanwhile.
    await line.next(1)
    push = asyncio.create_task(line.next(2))
    await asyncio.sleep(5)
    assert not push.done()
    await push
    await line.return_()
    assert [items for _, items in sink.items] == [[0], [1, 2]]


async def test_law_3_what_goes_wrong_with_a_list_of_time_is_raised_by_the_next_push() -> None:
    sink = Timed()
    sink.bad = ([1], [3])
    line = PushWindowTimeoutObj(sink, 5, 1)
    await line.next(1)
    await asyncio.sleep(2)
    with pytest.raises(OSError, match="1"):
        await line.next(2)
    await line.next(2)
    await asyncio.sleep(2)
    assert [items for _, items in sink.items] == [[2]]
    await line.next(3)
    await asyncio.sleep(2)
    with pytest.raises(OSError, match="3"):
        await line.return_()
    assert sink.ends == [None]


async def test_law_4_ending_waits_for_the_list_that_is_on_its_way() -> None:
    sink = Timed(10)
    line = PushWindowTimeoutObj(sink, 5, 1)
    await line.next(1)
    await asyncio.sleep(2)
    await line.next(2)
    ending = asyncio.create_task(line.return_())
    await asyncio.sleep(3)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert sink.ends == []
    await line.return_()
    assert [items for _, items in sink.items] == [[1], [2]]
    assert sink.ends == [None]


async def test_throw_drops_what_is_here_and_cancels_what_is_on_its_way() -> None:
    sink = Timed(10)
    line = PushWindowTimeoutObj(sink, 2, 1)
    await line.next(1)
    await asyncio.sleep(2)
    await line.next(2)
    error = KeyError("x")
    await line.throw(error)
    assert sink.items == []
    assert sink.ends == [error]
    await asyncio.sleep(100)
    assert sink.items == []


async def test_nowait_fills_lists_and_delivers_them_in_the_background() -> None:
    buffer: PushPullBufferObj[list[int]] = PushPullBufferObj(1)
    line = PushWindowTimeoutObj(buffer.sink, 2, 1)
    for n in range(5):
        line.next_nowait(n)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(WouldBlock) as caught:
        line.next_nowait(5)
    assert caught.value.item == 5
    assert await anext(buffer.source) == [0, 1]
    await asyncio.sleep(0.1)
    line.next_nowait(5)
    assert await anext(buffer.source) == [2, 3]
    assert await anext(buffer.source) == [4, 5]
    await line.return_()
    with pytest.raises(ClosedError):
        line.next_nowait(6)


async def test_done_is_passed_on_and_what_comes_after_it_is_dropped() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj(1)
    line = PushWindowTimeoutObj(sink, 2, 1)
    assert [(await line.next(n)).done for n in range(4)] == [False, True, True, True]
    await asyncio.sleep(5)
    assert sink.buffer == [[0, 1]]
    await line.return_()


async def test_law_5_one_that_is_dropped_says_what_was_lost_and_leaves_no_timer() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    line = PushWindowTimeoutObj(sink, 5, 10)
    await line.next(1)
    await line.next(2)
    with pytest.warns(ResourceWarning, match="2 items were lost"):
        del line
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
async def test_law_2_a_push_cancelled_at_any_time_is_made_good(at: float) -> None:
    sink = Timed(1)
    line = PushWindowTimeoutObj(sink, 2, 1.5)

    async def produce() -> None:
        for n in range(6):
            try:
                await line.next(n)
            except asyncio.CancelledError as cancelled:
                if not getattr(cancelled, "accepted_by", ()):
                    await line.next(n)
            try:
                await asyncio.sleep(0.4 * n)
            except asyncio.CancelledError:
                pass

    task = asyncio.create_task(produce())
    await asyncio.sleep(at)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await line.return_()
    assert [n for _, items in sink.items for n in items] == list(range(6))
