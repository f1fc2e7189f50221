"""Error messages name a remedy, also to readers new to the code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    CapacitySource,
    PullObj,
    PushCallbackObj,
    PushMapObj,
    PushPullBufferObj,
    PushSerialObj,
    PushWindowTimeoutObj,
    SinkCapacityObj,
    SinkCollectObj,
    SinkWriterObj,
    SourceBufferObj,
    SourceIterObj,
    WouldBlock,
    WrongLoopError,
)
from headrace.push.base import push_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

# `WouldBlock` names the push that waits.


class OnlyWaits:
    """A custom sink without `next_nowait`."""

    async def next(self, item: Any) -> Any: ...

    async def return_(self, value: Any = None) -> Any: ...

    async def throw(self, error: BaseException) -> Any: ...


async def slow(item: object) -> object:
    await asyncio.sleep(1)
    return item


async def fast(_: object) -> None: ...


@pytest.mark.virtual
async def test_would_block_names_the_waiting_push() -> None:
    limit = CapacitySource(1)
    full: PushPullBufferObj[Any] = PushPullBufferObj(1)
    full.sink.next_nowait(0)
    collected = SinkCollectObj[Any]()
    serial = PushSerialObj(PushMapObj(collected, slow))
    first = asyncio.create_task(serial.next(0))
    await asyncio.sleep(0)
    timed: PushWindowTimeoutObj[Any] = PushWindowTimeoutObj(PushMapObj(collected, slow), 1, 10.0)
    await asyncio.sleep(0)
    with limit.acquire_nowait() or pytest.fail("the limit is held"):
        for sink in (
            SinkCapacityObj(collected, limit),
            PushMapObj(collected, slow),
            PushMapObj(full.sink, str),
            PushCallbackObj(collected, before=fast),
            PushCallbackObj(collected, after=fast),
            serial,
            timed,
        ):
            with pytest.raises(WouldBlock, match=r"await next\(item\)"):
                sink.next_nowait(1)
                sink.next_nowait(2)
    await first
    await timed.return_()


def test_missing_next_nowait_names_next() -> None:
    with pytest.raises(TypeError, match=r"it has no next_nowait\(\); await next\(item\)"):
        push_now(OnlyWaits(), 1)


@pytest.mark.loops("asyncio")
async def test_full_writer_names_the_remedies(tmp_path: Path) -> None:
    lines = SinkWriterObj[str](tmp_path / "lines", format="text", maxsize=1)
    with pytest.raises(WouldBlock, match=r"await next\(item\), or give a larger maxsize"):
        for _ in range(100_000):
            lines.next_nowait("x" * 1000)
    await lines.return_()


# One stream with two consumers.


@pytest.mark.virtual
async def test_duplicate_source_suggests_tee() -> None:
    source = SourceBufferObj([1])
    advice = r"its items would be split; give each a branch of its tee\(\)"
    with pytest.raises(ValueError, match=advice):
        AsyncIteratorCombiner(source, source)
    combiner = AsyncIteratorCombiner(source)
    with pytest.raises(ValueError, match=advice):
        combiner.add(source)
    await combiner.aclose()


@pytest.mark.virtual
async def test_callable_using_its_own_stream_names_remedy() -> None:
    async def pull(_: int) -> int:
        return await anext(stream)

    async def close(_: int) -> None:
        await stream.aclose()

    stream: Any = SourceBufferObj([1, 2]).map(pull)
    with pytest.raises(RuntimeError, match=r"pulled already.*give each a branch of its tee\(\)"):
        await anext(stream)
    stream = SourceBufferObj([1, 2]).map(close)
    with pytest.raises(RuntimeError, match=r"own callable.*let the consumer close it"):
        await anext(stream)


@pytest.mark.virtual
async def test_empty_reduce_suggests_an_initial_value() -> None:
    with pytest.raises(TypeError, match="without an initial value; give it one"):
        await SourceBufferObj([]).reduce(max)


async def forever() -> AsyncIterator[int]:
    while True:
        await asyncio.sleep(0)
        yield 1


@pytest.mark.parametrize("operator", ["prefetch", "tee", "merge"])
def test_wrong_loop_error_names_the_remedies(operator: str) -> None:
    source = SourceIterObj(forever())
    operators: dict[str, Callable[[], PullObj[int]]] = {
        "prefetch": source.prefetch,
        "tee": lambda: source.tee(2)[0],
        "merge": lambda: source.merge(SourceIterObj(forever())),
    }
    stream = operators[operator]()
    with asyncio.Runner() as here, asyncio.Runner() as there:
        here.run(anext(stream))
        with pytest.raises(WrongLoopError, match=r"use (it|them) there, or close (it|them) there"):
            there.run(anext(stream))
        here.run(stream.aclose())
