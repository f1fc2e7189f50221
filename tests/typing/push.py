"""The types that a checker infers for push objects, buffers, queues and signals. Checked, never run."""

from __future__ import annotations

from threading import Thread
from typing import Any, assert_type

from headrace import (
    IteratorResult,
    PullMapObj,
    PushChain,
    PushFilterObj,
    PushForkObj,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    SinkCallbackObj,
    SinkCollectObj,
    SinkNullObj,
    SinkWriterObj,
    SourceIterObj,
    SourceObj,
    WaitObject,
)
from headrace.buffer import BufferStatistics
from headrace.queue import Queue


async def slow_length(text: str) -> int:
    return len(text)


async def sinks() -> None:
    """Sinks."""
    kept = SinkCollectObj[int]()
    assert_type(kept.buffer, list[int])
    assert_type(await kept.next(1), IteratorResult[Any])
    nothing: SinkNullObj[str] = SinkNullObj()
    await nothing.next("a")
    await nothing.next(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lines: SinkWriterObj[dict[str, int]] = SinkWriterObj("lines.jsonl")
    await lines.next({"a": 1})
    await SinkCallbackObj(len).next("text")


async def pipelines() -> None:
    """A pipeline is written from its end, or as a chain from its top."""
    kept = SinkCollectObj[int]()
    lengths = PushMapObj(kept, len)
    await lengths.next("text")
    chain = PushChain.start(str)
    assert_type(chain, PushChain[str, str])
    assert_type(chain.map(len), PushChain[str, int])
    assert_type(chain.map(slow_length), PushChain[str, int])
    assert_type(chain.filter(str.isupper), PushChain[str, str])
    assert_type(chain.batch(3), PushChain[str, list[str]])
    top = chain.map(len).into(kept)
    assert_type(top, PushObj[str])
    await top.next("text")
    await top.next(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chain.into(kept)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(chain.map(len).fork(kept, kept), PushObj[str])
    assert_type(PushForkObj([kept, SinkCollectObj[int]()]), PushForkObj[int])
    await PushFilterObj(kept, lambda number: number > 1).next(2)


async def between(loud: PushObj[str]) -> None:
    """Items that are pushed into one end are pulled from the other."""
    buffer: PushPullBufferObj[str] = PushPullBufferObj(10, overflow="drop_oldest")
    Thread(target=buffer.sink.next_nowait, args=("a",)).start()
    buffer.sink.next_nowait(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(buffer.source, SourceObj[str])
    assert_type(await anext(buffer.source), str)
    assert_type(buffer.source.map(len), PullMapObj[str, int])
    assert_type(buffer.statistics(), BufferStatistics)
    await buffer.source.drain_to(loud)
    await SourceIterObj([1]).drain_to(loud)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queue: Queue[int] = Queue(3)
    assert_type(await queue.get(), int)
    assert_type(queue.get_sync(), int)
    await queue.put("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    signal = WaitObject[int]()
    assert_type(await signal.wait(), int)
