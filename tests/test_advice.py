"""A message says what to do instead, also to somebody who does not know the code."""

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

# Each way to push without waiting names the one that waits.


class OnlyWaits:
    """A sink of somebody's own, in which a push always waits."""

    async def next(self, item: Any) -> Any: ...

    async def return_(self, value: Any = None) -> Any: ...

    async def throw(self, error: BaseException) -> Any: ...


async def slow(item: object) -> object:
    await asyncio.sleep(1)
    return item


async def fast(_: object) -> None: ...


@pytest.mark.virtual
async def test_a_push_that_would_wait_says_how_to_wait() -> None:
    limit = CapacitySource(1)
    full: PushPullBufferObj[Any] = PushPullBufferObj(1)
    full.sink.next_nowait(0)
    kept = SinkCollectObj[Any]()
    serial = PushSerialObj(PushMapObj(kept, slow))
    first = asyncio.create_task(serial.next(0))
    await asyncio.sleep(0)
    late: PushWindowTimeoutObj[Any] = PushWindowTimeoutObj(PushMapObj(kept, slow), 1, 10.0)
    await asyncio.sleep(0)
    with limit.acquire_nowait() or pytest.fail("the limit is held"):
        for sink in (
            SinkCapacityObj(kept, limit),
            PushMapObj(kept, slow),
            PushMapObj(full.sink, str),
            PushCallbackObj(kept, before=fast),
            PushCallbackObj(kept, after=fast),
            serial,
            late,
        ):
            with pytest.raises(WouldBlock, match=r"await next\(item\)"):
                sink.next_nowait(1)
                sink.next_nowait(2)
    await first
    await late.return_()


def test_a_sink_that_only_waits_is_named_with_what_it_has() -> None:
    with pytest.raises(TypeError, match=r"it has no next_nowait\(\); await next\(item\)"):
        push_now(OnlyWaits(), 1)


@pytest.mark.loops("asyncio")
async def test_a_writer_that_is_full_says_how_to_wait(tmp_path: Path) -> None:
    lines = SinkWriterObj[str](tmp_path / "lines", format="text", maxsize=1)
    with pytest.raises(WouldBlock, match=r"await next\(item\), or give a larger maxsize"):
        for _ in range(100_000):
            lines.next_nowait("x" * 1000)
    await lines.return_()


# A stream that two want.


@pytest.mark.virtual
async def test_a_stream_that_is_given_twice_says_how_to_split_it() -> None:
    source = SourceBufferObj([1])
    advice = r"its items would be split; give each a branch of its tee\(\)"
    with pytest.raises(ValueError, match=advice):
        AsyncIteratorCombiner(source, source)
    combiner = AsyncIteratorCombiner(source)
    with pytest.raises(ValueError, match=advice):
        combiner.add(source)
    await combiner.aclose()


@pytest.mark.virtual
async def test_a_callable_that_turns_to_its_own_stream_is_told_what_it_may() -> None:
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
async def test_reducing_nothing_says_that_an_initial_value_helps() -> None:
    with pytest.raises(TypeError, match="without an initial value; give it one"):
        await SourceBufferObj([]).reduce(max)


async def forever() -> AsyncIterator[int]:
    while True:
        await asyncio.sleep(0)
        yield 1


@pytest.mark.parametrize("way", ["prefetch", "tee", "merge"])
def test_a_stream_of_another_loop_says_where_to_use_it(way: str) -> None:
    source = SourceIterObj(forever())
    ways: dict[str, Callable[[], PullObj[int]]] = {
        "prefetch": source.prefetch,
        "tee": lambda: source.tee(2)[0],
        "merge": lambda: source.merge(SourceIterObj(forever())),
    }
    stream = ways[way]()
    with asyncio.Runner() as here, asyncio.Runner() as there:
        here.run(anext(stream))
        with pytest.raises(WrongLoopError, match=r"use (it|them) there, or close (it|them) there"):
            there.run(anext(stream))
        here.run(stream.aclose())
