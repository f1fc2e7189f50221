"""Guarantee 16: a heartbeat beside a stream that is always ready, and other guarantees with a yield at each item.

The measure is how much later a timer fires than on a bare loop in the same run. The delay of a beat is capped by the
time that this thread worked meanwhile: time taken by other programs is not the stream's fault.
A failed measurement is repeated.

`HEADRACE_BUDGET_SECONDS=60` goes through all ten million items instead of half a second of them, which is enough for
everyday runs; `HEADRACE_BUDGET_ITEMS` sets their number, and `-s` shows the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullObj, PushPullBufferObj, SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

ITEMS = int(os.environ.get("HEADRACE_BUDGET_ITEMS", "10_000_000"))
SECONDS = float(os.environ.get("HEADRACE_BUDGET_SECONDS", "0.5"))
BEAT = 0.001
ALLOWED = 0.003
TRIES = 3

pytestmark = pytest.mark.timeout(60 + 4 * TRIES * SECONDS)


@contextlib.asynccontextmanager
async def heartbeat() -> AsyncGenerator[list[float], None]:
    """Record the delay of each beat of a timer, in seconds."""
    late: list[float] = []

    async def beat() -> None:
        while True:
            due, worked = time.perf_counter() + BEAT, time.thread_time()
            await asyncio.sleep(BEAT)
            late.append(min(time.perf_counter() - due, time.thread_time() - worked))

    task = asyncio.create_task(beat())
    try:
        yield late
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def nearly_worst(late: list[float]) -> float:
    """Return the 99.9th percentile."""
    return sorted(late)[int(len(late) * 0.999)] if late else math.inf


async def lateness(work: Callable[[PullObj[int]], Awaitable[Any]]) -> tuple[float, float, int]:
    """Return the delay of beats on a bare loop, their delay beside the work, and their number."""
    async with heartbeat() as bare:
        await asyncio.sleep(min(SECONDS, 5))
    gc.collect()
    # CPU time of this thread: other programs may leave it little of the wall time.
    until = time.thread_time() + SECONDS
    stream = SourceIterObj(range(ITEMS)).map(abs).take_while(lambda _: time.thread_time() < until)
    async with heartbeat() as beside:
        await work(stream)
    return nearly_worst(bare), nearly_worst(beside), len(beside)


async def check_heartbeat(work: Callable[[PullObj[int]], Awaitable[Any]]) -> None:
    attempts: list[str] = []
    for _ in range(TRIES):
        bare, beside, beats = await lateness(work)
        attempts.append(
            f"bare {bare * 1e3:.2f} ms, beside the stream {beside * 1e3:.2f} ms in {beats} beats"
        )
        print(attempts[-1])
        if beats >= min(SECONDS, 1) / BEAT / 20 and beside - bare <= ALLOWED:
            return
    pytest.fail("the heartbeat is too late: " + "; ".join(attempts))


async def test_law_16_heartbeat_during_a_loop_over_ready_items() -> None:
    async def iterate(stream: PullObj[int]) -> None:
        async for _ in stream:
            pass

    await check_heartbeat(iterate)


async def test_law_16_heartbeat_while_all_items_are_dropped() -> None:
    """One pull takes every item from the source and drops it."""

    async def drop_all(stream: PullObj[int]) -> None:
        async for _ in stream.filter(lambda _: False):
            pytest.fail("nothing passes")

    await check_heartbeat(drop_all)


@pytest.mark.parametrize(
    "work",
    [
        PullObj.collect,
        PullObj.count,
        lambda stream: stream.for_each(bool),
        lambda stream: stream.reduce(max),
    ],
    ids=["collect", "count", "for_each", "reduce"],
)
async def test_law_16_heartbeat_during_a_terminal(
    work: Callable[[PullObj[int]], Awaitable[Any]],
) -> None:
    await check_heartbeat(work)


async def test_measure_detects_a_blocked_loop() -> None:
    async def hog(stream: PullObj[int]) -> None:
        async for _ in stream:
            until = time.perf_counter() + 5 * BEAT
            while time.perf_counter() < until:
                pass

    bare, beside, _ = await lateness(hog)
    assert beside - bare > ALLOWED


@pytest.mark.usefixtures("tiny_budget")
async def test_law_16_end_of_buffer_is_raised_without_a_yield() -> None:
    """Raise the end without a yield after the last item: a close in between would change which error is raised."""
    queue: PushPullBufferObj[int] = PushPullBufferObj()
    for item in range(3):
        queue.sink.next_nowait(item)
    queue.end()
    assert [await anext(queue.source) for _ in range(3)] == [0, 1, 2]
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):
            anext(queue.source).__await__().send(None)


@pytest.mark.usefixtures("tiny_budget")
async def test_law_16_new_task_has_its_own_budget() -> None:
    queue: PushPullBufferObj[int] = PushPullBufferObj()

    async def move(item: int) -> int:
        await queue.sink.next(item)
        return 1

    async def take() -> int:
        return await anext(queue.source)

    for item in range(100):
        # Each task probably has the address of the one before it.
        pushes = asyncio.create_task(move(item))
        await asyncio.sleep(0)
        assert pushes.done()
        del pushes
        pulls = asyncio.create_task(take())
        await asyncio.sleep(0)
        assert pulls.done()
        del pulls


# Files whose tests hold wherever a task yields: they count no loop iterations.
YIELD_INDEPENDENT = [
    "test_pull_closing.py",
    "test_merge_closing.py",
    "test_merge_identity.py",
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("budget", ["0,4096", "500000,2"])
def test_law_16_yields_change_no_other_behaviour(budget: str) -> None:
    """Run other tests in a process of their own, where a task uses up its budget at each item or each second one.

    `HEADRACE_TURN_BUDGET`, in nanoseconds and items, is read by `conftest.py`.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(f"tests/{file}" for file in YIELD_INDEPENDENT),
        ],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "HEADRACE_TURN_BUDGET": budget},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
