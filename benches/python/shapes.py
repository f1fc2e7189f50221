"""Two small streams for the probes: one stage over a source, and concurrent calls."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from stages import inc, mapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    Source = AsyncIterable[int]
    Call = Callable[[int], Awaitable[int]]


def stage_by_headrace(source: Source) -> Any:
    from headrace import SourceIterObj

    return SourceIterObj(source).map(inc)


def stage_by_hand(source: Source) -> Any:
    return mapped(inc, aiter(source))


def stage_by_aiostream(source: Source) -> Any:
    from aiostream import stream

    return stream.map(stream.iterate(source), inc).stream()


def stage_by_streamable(source: Source) -> Any:
    from streamable import stream

    return stream(source).map(inc)


def stage_by_asyncstdlib(source: Source) -> Any:
    import asyncstdlib

    return asyncstdlib.map(inc, source)


def stage_by_aioitertools(source: Source) -> Any:
    import aioitertools

    return aioitertools.map(inc, source)


ONE_STAGE = {
    "headrace": stage_by_headrace,
    "by hand": stage_by_hand,
    "aiostream": stage_by_aiostream,
    "streamable": stage_by_streamable,
    "asyncstdlib": stage_by_asyncstdlib,
    "aioitertools": stage_by_aioitertools,
}


def calls_by_headrace(items: int, call: Call, limit: int) -> Any:
    from headrace import SourceIterObj

    return SourceIterObj(range(items)).map(call, concurrency=limit)


async def calls_by_hand(items: int, call: Call, limit: int) -> AsyncIterator[int]:
    """A queue of tasks, of which the oldest is awaited."""
    tasks: deque[asyncio.Task[int]] = deque()
    try:
        for x in range(items):
            if len(tasks) >= limit:
                yield await tasks.popleft()
            tasks.append(asyncio.ensure_future(call(x)))
        while tasks:
            yield await tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()


def calls_by_aiostream(items: int, call: Call, limit: int) -> Any:
    from aiostream import stream

    return stream.map(stream.iterate(range(items)), call, task_limit=limit).stream()


def calls_by_streamable(items: int, call: Call, limit: int) -> Any:
    from streamable import stream

    return stream(range(items)).map(call, concurrency=limit)


def calls_by_aiometer(items: int, call: Call, limit: int) -> Any:
    import aiometer

    return aiometer.amap(call, range(items), max_at_once=limit)


def calls_by_aiochan(items: int, call: Call, limit: int) -> Any:
    import aiochan

    return aiochan.from_range(items).async_pipe(limit, call)


def calls_by_pypeln(items: int, call: Call, limit: int) -> Any:
    from pypeln import task

    source = task.from_iterable(range(items), maxsize=limit)
    return task.map(call, source, workers=limit, maxsize=limit)


SIDE_BY_SIDE = {
    "headrace": calls_by_headrace,
    "by hand": calls_by_hand,
    "aiostream": calls_by_aiostream,
    "streamable": calls_by_streamable,
    "aiometer": calls_by_aiometer,
    "aiochan": calls_by_aiochan,
    "pypeln": calls_by_pypeln,
}
