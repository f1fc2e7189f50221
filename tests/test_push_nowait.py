"""`next_nowait` of pipelines, sinks and user-defined objects."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    IteratorResult,
    PushCallbackObj,
    PushDedupeObj,
    PushDistributeObj,
    PushFlatMapObj,
    PushFlattenObj,
    PushForkObj,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    PushReduceObj,
    PushSerialObj,
    PushSignalObj,
    PushWindowObj,
    SinkCallbackObj,
    SinkCapacityObj,
    SinkCollectObj,
    SinkNullObj,
    SinkObj,
    WaitObject,
    WouldBlock,
)
from tests.support import wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def test_next_nowait_delivers_or_returns_item() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    assert PushMapObj(sink, str).next_nowait(1) == IteratorResult(None, False)
    assert sink.buffer == ["1"]
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(1)
    pipeline = PushMapObj(buffer.sink, str)
    pipeline.next_nowait(1)
    item = object()
    with pytest.raises(WouldBlock) as caught:
        pipeline.next_nowait(item)
    assert caught.value.item is item

    async def asynchronous(n: Any) -> Any:
        return n

    with pytest.raises(WouldBlock):
        PushMapObj(sink, asynchronous).next_nowait(item)
    assert sink.buffer == ["1"]


class Appending(SinkObj[Any]):
    """A user-defined sink whose `next_nowait` returns a given value."""

    def __init__(self, returns: Any) -> None:
        super().__init__()
        self.items: list[Any] = []
        self._returns = returns

    def next_nowait(self, item: Any) -> Any:
        self.items.append(item)
        return self._returns


PIPELINES: dict[str, Callable[[Any], PushObj[Any]]] = {
    "map": lambda sink: PushMapObj(sink, lambda item: item),
    "window": lambda sink: PushWindowObj(sink, 1),
    "fork": lambda sink: PushForkObj([SinkNullObj(), sink]),
    "distribute": lambda sink: PushDistributeObj([sink], lambda _: 0),
    "serial": PushSerialObj,
    "callback": lambda sink: PushCallbackObj(sink, before=lambda item: item),
    "signal": lambda sink: PushSignalObj(sink, WaitObject()),
    "capacity": lambda sink: SinkCapacityObj(sink, CapacitySource(1)),
}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_next_nowait_returning_none_accepts_item(pipeline: str) -> None:
    """`next_nowait` may return None, as `next` may."""
    sink = Appending(None)
    assert PIPELINES[pipeline](sink).next_nowait(1) == IteratorResult(None, False)
    assert len(sink.items) == 1


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_next_nowait_returning_other_value_raises(pipeline: str) -> None:
    sink = Appending(5)
    message = r"next_nowait of Appending must be None or an IteratorResult, got 5 \(int\)"
    with pytest.raises(TypeError, match=message) as caught:
        PIPELINES[pipeline](sink).next_nowait(1)
    assert len(sink.items) == 1
    if pipeline not in ("fork", "distribute"):
        assert getattr(caught.value, "accepted_by", ()) == (sink,)


async def test_nowait_item_is_refused_or_held_by_batch() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(1)
    pipeline = PushMapObj[int, int](PushWindowObj(PushMapObj(buffer.sink, tuple), 2), int)
    for n in range(4):
        assert pipeline.next_nowait(n) == IteratorResult(None, False)
    # The second list waits in the batch stage, which accepts no third one.
    with pytest.raises(WouldBlock) as caught:
        pipeline.next_nowait(4)
    assert caught.value.item == 4
    assert await anext(buffer.source) == (0, 1)
    pipeline.next_nowait(4)
    assert await anext(buffer.source) == (2, 3)
    await pipeline.return_()
    assert await anext(buffer.source) == (4,)


async def test_nowait_dedupe_and_flatten_lose_nothing() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(2)
    pipeline = PushFlattenObj[int](PushDedupeObj(buffer.sink))
    pulled: list[int] = []
    for items in ([1, 2, 1, 3], [3, 4], [5]):
        while True:
            try:
                pipeline.next_nowait(items)
                break
            except WouldBlock:
                pulled.append(await anext(buffer.source))
    ending = asyncio.create_task(pipeline.return_())
    pulled += [item async for item in buffer.source]
    await ending
    assert pulled == [1, 2, 3, 4, 5]


async def test_nowait_with_async_callable_changes_nothing() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()

    async def later(n: int) -> AsyncIterator[int]:
        yield n

    async def delayed(n: int) -> int:
        return n

    pipelines: list[PushObj[Any]] = [
        PushFlatMapObj(sink, later),
        PushReduceObj(sink, wrong(lambda _, n: delayed(n)), 0),
        PushCallbackObj(sink, before=delayed),
        PushCallbackObj(sink, after=delayed),
        SinkCallbackObj(delayed),
    ]
    for pipeline in pipelines:
        with pytest.raises(WouldBlock) as caught:
            pipeline.next_nowait(7)
        assert caught.value.item == 7
    assert sink.buffer == []
    await pipelines[0].return_()
    assert sink.buffer == []

    class Async(SinkObj[int]):
        async def next_impl(self, item: int) -> None:
            pass

    with pytest.raises(RuntimeError, match="async next_impl"):
        Async().next_nowait(1)
