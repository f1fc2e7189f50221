"""A missing `await` emits a RuntimeWarning, as with a coroutine, if the operation had work to do."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING

import pytest

from headrace import CapacitySource, PullRaceObj, PushPullBufferObj, SinkCollectObj, SourceIterObj
from headrace.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        (lambda: SinkCollectObj[int]().next(1), "a push was never awaited.*write `await sink.next"),
        (
            lambda: PushPullBufferObj[int]().sink.next(1),
            "a push was never awaited.*write `await sink.next",
        ),
        (
            lambda: CapacitySource(1).acquire(),
            "acquire.. was never awaited.*write `async with capacity.acquire",
        ),
        (lambda: SourceIterObj([1]).collect(), "never awaited: write `await stream.collect"),
        (lambda: Queue[int]().put(1), "put.. was never awaited.*write `await queue.put"),
    ],
    ids=["push", "push into a buffer", "acquire", "collect", "put"],
)
async def test_missing_await_warns(forget: Callable[[], object], message: str) -> None:
    with pytest.warns(RuntimeWarning, match=message) as warned:
        forget()
    assert len(warned) == 1


async def test_no_warning_if_awaited_or_nothing_to_do() -> None:
    capacity, buffer, queue = CapacitySource(1), PushPullBufferObj[int](1), Queue[int](1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with capacity.acquire():
            waiting = asyncio.ensure_future(capacity.acquire(owner=None))
            await asyncio.sleep(0)
            waiting.cancel()
        await buffer.sink.next(1)
        await queue.put(1)
        for full in (buffer.sink.next(2), queue.put(2)):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(full, 0)
            del full
        asyncio.ensure_future(queue.put(3)).cancel()
        # A pull that is never awaited has taken nothing, and is often created ahead of time.
        unawaited = anext(PullRaceObj([1], [2]))
        del unawaited
        await asyncio.sleep(0)
        gc.collect()
