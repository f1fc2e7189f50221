"""Law 16 by the clock: a heartbeat beside a stream that is always ready; and other laws where a task rests at every item.

What counts is how much later a timer is than on a bare loop in the same run. A beat is late by the time that passed, but
by no more than this thread has worked meanwhile: what other programs took of the processor is not the stream's doing.
What fails is measured again.

`HEADRACE_BUDGET_SECONDS=60` goes through all ten million items instead of the half second of them that do for every day;
`HEADRACE_BUDGET_ITEMS` sets their number, and with `-s` the figures are shown.
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
    """Notes how late each beat of a timer is, in seconds."""
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
    """The 99.9th percentile."""
    return sorted(late)[int(len(late) * 0.999)] if late else math.inf


async def lateness(work: Callable[[PullObj[int]], Awaitable[Any]]) -> tuple[float, float, int]:
    """How late the heart beats on a bare loop, how late beside the work, and how often it did."""
    async with heartbeat() as bare:
        await asyncio.sleep(min(SECONDS, 5))
    gc.collect()
    # In time that this thread works: other programs may leave it little of the wall's.
    until = time.thread_time() + SECONDS
    stream = SourceIterObj(range(ITEMS)).map(abs).take_while(lambda _: time.thread_time() < until)
    async with heartbeat() as beside:
        await work(stream)
    return nearly_worst(bare), nearly_worst(beside), len(beside)


async def holds(work: Callable[[PullObj[int]], Awaitable[Any]]) -> None:
    told: list[str] = []
    for _ in range(TRIES):
        bare, beside, beats = await lateness(work)
        told.append(
            f"bare {bare * 1e3:.2f} ms, beside the stream {beside * 1e3:.2f} ms in {beats} beats"
        )
        print(told[-1])
        if beats >= min(SECONDS, 1) / BEAT / 20 and beside - bare <= ALLOWED:
            return
    pytest.fail("the heart beats too late: " + "; ".join(told))


async def test_law_16_a_heart_beats_on_beside_a_loop_over_a_ready_stream() -> None:
    async def iterate(stream: PullObj[int]) -> None:
        async for _ in stream:
            pass

    await holds(iterate)


async def test_law_16_a_heart_beats_on_beside_a_stream_that_gives_nothing() -> None:
    """One pull draws everything, and drops it."""

    async def drop_all(stream: PullObj[int]) -> None:
        async for _ in stream.filter(lambda _: False):
            pytest.fail("nothing passes")

    await holds(drop_all)


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
async def test_law_16_a_heart_beats_on_beside_a_terminal(
    work: Callable[[PullObj[int]], Awaitable[Any]],
) -> None:
    await holds(work)


async def test_what_holds_the_loop_for_too_long_is_noticed() -> None:
    async def hog(stream: PullObj[int]) -> None:
        async for _ in stream:
            until = time.perf_counter() + 5 * BEAT
            while time.perf_counter() < until:
                pass

    bare, beside, _ = await lateness(hog)
    assert beside - bare > ALLOWED


@pytest.mark.usefixtures("tiny_budget")
async def test_law_16_who_finds_a_buffer_at_its_end_lets_no_turn_pass_before() -> None:
    """Between the two it could be closed, and would say that it was cut off when it was not, or the other way round."""
    queue: PushPullBufferObj[int] = PushPullBufferObj()
    for item in range(3):
        queue.sink.next_nowait(item)
    queue.end()
    assert [await anext(queue.source) for _ in range(3)] == [0, 1, 2]
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):
            anext(queue.source).__await__().send(None)


@pytest.mark.usefixtures("tiny_budget")
async def test_law_16_a_new_task_does_not_rest_for_one_that_is_gone() -> None:
    queue: PushPullBufferObj[int] = PushPullBufferObj()

    async def move(item: int) -> int:
        await queue.sink.next(item)
        return 1

    async def take() -> int:
        return await anext(queue.source)

    for item in range(100):
        # Each is likely to be where the one before it was.
        pushes = asyncio.create_task(move(item))
        await asyncio.sleep(0)
        assert pushes.done()
        del pushes
        pulls = asyncio.create_task(take())
        await asyncio.sleep(0)
        assert pulls.done()
        del pulls


# What holds whenever a task lets its loop turn: these count no turns.
WHENEVER = [
    "test_pull_closing.py",
    "test_merge_closing.py",
    "test_merge_identity.py",
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("budget", ["0,4096", "500000,2"])
def test_law_16_wherever_a_task_rests_nothing_else_changes(budget: str) -> None:
    """By other tests, in a process of their own, where the budget of a task is used up at each second item.

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
            *(f"tests/{file}" for file in WHENEVER),
        ],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "HEADRACE_TURN_BUDGET": budget},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
