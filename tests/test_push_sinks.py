"""Sinks that collect, call, or drop their items."""

from __future__ import annotations

import asyncio

import pytest

from headrace import (
    ClosedError,
    IteratorResult,
    PushMapObj,
    SinkCallbackObj,
    SinkCollectObj,
    SinkNullObj,
)
from tests.push_support import push_all


async def test_collect_with_maxsize_is_done_and_drops_rest() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj(2)
    assert sink.maxsize == 2
    assert await push_all(sink, range(4)) == [False, True, True, True]
    assert sink.buffer == [0, 1]
    assert sink.next_nowait(5).done
    assert SinkCollectObj[int]().maxsize is None


async def test_callbacks_are_called_in_order_and_live() -> None:
    calls: list[tuple[str, int]] = []

    async def slow(n: int) -> None:
        await asyncio.sleep(0)
        calls.append(("slow", n))

    def fast(n: int) -> None:
        calls.append(("fast", n))

    sink: SinkCallbackObj[int] = SinkCallbackObj(slow, fast, slow)
    await push_all(PushMapObj(sink, int), [1])
    assert calls == [("slow", 1), ("fast", 1), ("slow", 1)]
    sink.callbacks = (fast,)
    calls.clear()
    await sink.next(2)
    sink.next_nowait(3)
    assert calls == [("fast", 2), ("fast", 3)]
    assert sink.callbacks == (fast,)

    def bad(n: int) -> None:
        raise OSError(n)

    sink.callbacks = (fast, bad)
    with pytest.raises(OSError, match="4") as caught:
        await sink.next(4)
    assert caught.value.__notes__ == ["raised by callbacks of SinkCallbackObj: item 4"]
    await sink.return_()
    with pytest.raises(ClosedError):
        await sink.next(5)


async def test_null_sink_accepts_everything() -> None:
    sink: SinkNullObj[int] = SinkNullObj()
    assert await push_all(PushMapObj(sink, int), range(3)) == [False] * 3
    assert sink.next_nowait(1) == IteratorResult(None, False)
    await sink.return_()
    with pytest.raises(ClosedError):
        sink.next_nowait(1)
