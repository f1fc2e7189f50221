"""`drain_to`: a stream into a sink."""

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
from tests.support import Heart, turns, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def slowly(n: int) -> int:
    await asyncio.sleep(0)
    return n


class Slow(SinkObj[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []
        self.ends: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await turns(2)
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        await asyncio.sleep(0)
        self.ends.append(value)


async def test_drain_to_pushes_everything_and_ends_the_sink() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    await SourceIterObj(range(5)).map(slowly).drain_to(sink)
    assert sink.buffer == list(range(5))
    assert sink.closed
    shared: SinkCollectObj[int] = SinkCollectObj()
    for _ in range(2):
        await SourceIterObj(range(2)).drain_to(shared, forward_close=False)
    assert shared.buffer == [0, 1, 0, 1]
    assert not shared.closed


async def test_drain_to_stops_when_the_sink_is_done() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    stream = SourceIterObj(range(10))
    await stream.drain_to(PushTakeObj(PushWindowObj(sink, 2), 3))
    assert sink.buffer == [[0, 1], [2]]
    assert await anext(stream) == 3


async def test_law_3_an_error_of_either_side_ends_it_and_leaves_both_usable() -> None:
    sink: SinkCollectObj[float] = SinkCollectObj()
    stream = SourceIterObj([1, 0, 2])
    with pytest.raises(ZeroDivisionError):
        await stream.drain_to(PushMapObj[int, float](sink, lambda n: 1 / n))
    assert not sink.closed
    await stream.map(float).drain_to(sink)
    assert sink.buffer == [1.0, 2.0]


async def test_what_a_closed_sink_refuses_goes_back() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    await sink.return_()
    stream = SourceIterObj(range(3)).map(slowly)
    for target in (sink, PushMapObj[int, int](sink, lambda n: n)):
        with pytest.raises(ClosedError) as caught:
            await stream.drain_to(target)
        assert caught.value.item == 0
    assert await stream.collect() == [0, 1, 2]


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("at", range(1, 60))
async def test_law_2_a_cancelled_drain_to_loses_nothing(at: int, windowed: bool) -> None:
    sink = Slow()
    target: Any = PushWindowObj(PushMapObj[Any, Any](sink, slowly), 2) if windowed else sink
    stream: PullObj[int] = SourceIterObj(range(7)).map(slowly).filter(lambda _: True)
    task = asyncio.create_task(stream.drain_to(target))
    await turns(at)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await stream.drain_to(target)
    assert sink.items == ([[0, 1], [2, 3], [4, 5], [6]] if windowed else list(range(7)))
    assert sink.ends == [None]


async def test_law_2_what_a_fork_has_in_part_does_not_go_back() -> None:
    gate, sink = asyncio.Event(), SinkCollectObj[int]()

    async def wait(n: int) -> int:
        await gate.wait()
        return n

    fork = PushForkObj([sink, PushMapObj(SinkCollectObj[int](), wait)])
    stream = SourceIterObj(range(3))
    task = asyncio.create_task(stream.drain_to(fork))
    await turns(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert getattr(caught.value, "accepted_by", ()) in ((sink,), ())
    gate.set()
    await stream.drain_to(fork)
    assert sink.buffer == [0, 1, 2]


class Turning(SinkObj[Any]):
    """Accepts an item after one turn of the loop, or of whoever drives it by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await asyncio.sleep(0)
        self.items.append(item)


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("shape", ["plain", "window", "fork"])
async def test_law_2_a_drain_to_closed_by_hand_pushes_no_item_twice(shape: str, at: int) -> None:
    sink, other = Turning(), Turning()
    window: Any = PushWindowObj(sink, 1)
    target: Any = {
        "plain": other,
        "window": window,
        "fork": PushForkObj([other, window], concurrent=False),
    }[shape]
    stream = SourceIterObj(range(4))
    drain = stream.drain_to(target)
    with suppress(StopIteration):
        for _ in range(at):
            drain.send(None)
    drain.close()
    await stream.drain_to(target)
    assert sink.items == ([] if shape == "plain" else [[0], [1], [2], [3]])
    # A fork that had given an item to one branch does not get it again for the other.
    assert sorted(set(other.items)) == other.items
    assert len(other.items) >= {"plain": 4, "window": 0, "fork": 3}[shape]


async def test_law_16_draining_a_ready_stream_lets_the_loop_turn() -> None:
    async with Heart() as heart:
        sink: SinkCollectObj[int] = SinkCollectObj()
        await SourceIterObj(range(20_000)).drain_to(sink)
    assert len(sink.buffer) == 20_000
    assert heart.beats >= 20_000 // 4096


async def test_a_buffer_into_a_buffer() -> None:
    first: PushPullBufferObj[int] = PushPullBufferObj(2)
    second: PushPullBufferObj[int] = PushPullBufferObj(1)
    draining = asyncio.create_task(first.source.drain_to(second.sink))
    pulled = asyncio.create_task(second.source.collect())
    for n in range(20):
        await first.sink.next(n)
    await first.sink.return_()
    await draining
    assert await pulled == list(range(20))


async def test_a_stream_of_ones_own_is_drained_too() -> None:
    class Own(PullObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            for n in range(3):
                yield n

    sink: SinkCollectObj[int] = SinkCollectObj()
    await Own().drain_to(sink)
    assert sink.buffer == [0, 1, 2]


def test_law_14_what_is_no_sink_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"sink must be a push object, got 3 \(int\)"):
        wrong(SourceIterObj(range(3)).drain_to)(3)
