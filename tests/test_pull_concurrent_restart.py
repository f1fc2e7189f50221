"""`map` with a concurrency: iteration after a break, and restarts, guarantee 11."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from headrace import PullMapObj
from tests.concurrent_sources import VARIANTS, RecordedSource, slow
from tests.support import collect, yield_to_loop


@pytest.mark.parametrize("variant", VARIANTS)
async def test_law_11_iteration_continues_after_a_break(
    variant: dict[str, Any],
) -> None:
    stream = PullMapObj(range(8), slow, **variant)
    received: list[int] = []
    async for item in stream:
        received.append(item)
        if len(received) == 3:
            break
    received += await collect(stream)
    assert sorted(received) == [n * 10 for n in range(8)]
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    stream.restart()
    assert sorted(await collect(stream)) == [n * 10 for n in range(8)]
    assert sorted(await collect(stream.filter(lambda _: True))) == []


async def test_law_11_restart_is_refused_while_calls_run() -> None:
    generator = RecordedSource(5)
    stream = PullMapObj(generator, slow, concurrency=2).filter(lambda _: True)
    assert await anext(stream) == 0
    with pytest.raises(RuntimeError, match="cannot restart while calls of PullMapObj run ahead"):
        stream.restart()
    assert await anext(stream) == 10
    await stream.aclose()
    stream.restart()
    assert await collect(stream) == [0, 10, 20, 30, 40]
    kept = PullMapObj(range(5), slow, on_cancel="keep")
    assert [await anext(kept), await anext(kept)] == [0, 10]
    await yield_to_loop(3)
    # Restart is allowed, since the driver waits for the next pull.
    kept.restart()
    assert await collect(kept) == [0, 10, 20, 30, 40]
    once = PullMapObj(iter(range(5)), slow, concurrency=2)
    assert await collect(once) == [0, 10, 20, 30, 40]
    with pytest.raises(RuntimeError, match="cannot restart"):
        once.restart()


@pytest.mark.parametrize("pulled", [0, 1, 5])
@pytest.mark.parametrize("after", range(1, 8))
async def test_law_11_restart_during_closing_is_refused(pulled: int, after: int) -> None:
    async def work(n: int) -> int:
        try:
            await yield_to_loop(2)
        finally:
            await yield_to_loop(1)
        return n

    stream = PullMapObj(RecordedSource(4), work, concurrency=2)
    for _ in range(pulled):
        with contextlib.suppress(StopAsyncIteration):
            await anext(stream)
    closing = asyncio.ensure_future(stream.aclose())
    await yield_to_loop(after)
    if closing.done():
        stream.restart()
    else:
        with pytest.raises(RuntimeError, match="it is being closed"):
            stream.restart()
    await closing
    stream.restart()
    assert await collect(stream) == [0, 1, 2, 3]
