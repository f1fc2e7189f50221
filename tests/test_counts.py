"""Integers at their limits: each works, at no cost that grows with its size, or is refused by name and value."""

from __future__ import annotations

import asyncio
import math
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    CapacitySource,
    HierarchicalTaskPoolRunner,
    PullConcatObj,
    PullInOrderObj,
    PullLabeledRaceObj,
    PullRaceObj,
    PullTimerObj,
    PushDedupeObj,
    PushPullBufferObj,
    PushTakeObj,
    PushWindowObj,
    PushWindowTimeoutObj,
    Retry,
    SinkCollectObj,
    SinkNullObj,
    SinkWriterObj,
    SourceIterObj,
    Task,
)
from headrace.testing import RecordingSink, ScriptedSource, Yields
from tests.support import collect

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Use = Callable[[Any], Coroutine[Any, Any, Any]]

HUGE = (2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70)
BAD = (-1, True, 1.0, math.nan, math.inf, "1", None)

USES: dict[str, tuple[str, Use]] = {}
"""Uses of an integer, by their name: the parameter and a function that passes it."""


def uses(parameter: str) -> Callable[[Use], Use]:
    def add(use: Use) -> Use:
        USES[use.__name__] = parameter, use
        return use

    return add


def source() -> SourceIterObj[int]:
    return SourceIterObj([0, 1, 2])


async def read_and_close(stream: Any) -> None:
    """Read a stream to its end, and close it."""
    async with stream:
        await collect(stream)


async def push(sink: Any) -> None:
    for n in range(3):
        await sink.next(n)
    await sink.return_()


@uses("n")
async def tee(n: Any) -> None:
    for branch in source().tee(n):
        await branch.aclose()


@uses("maxsize")
async def tee_maxsize(n: Any) -> None:
    (branch,) = source().tee(1, maxsize=n)
    await read_and_close(branch)


@uses("size")
async def batch(n: Any) -> None:
    await read_and_close(source().batch(n))


@uses("size")
async def take(n: Any) -> None:
    await read_and_close(source().take(n))


@uses("size")
async def skip(n: Any) -> None:
    await read_and_close(source().skip(n))


@uses("size")
async def batch_timeout(n: Any) -> None:
    await read_and_close(source().batch(n, 1))


@uses("buffer_size")
async def prefetch(n: Any) -> None:
    await read_and_close(source().prefetch(n))


@uses("concurrency")
async def map_concurrency(n: Any) -> None:
    await read_and_close(source().map(bool, concurrency=n))


@uses("per_key")
async def map_per_key(n: Any) -> None:
    await read_and_close(source().map(bool, concurrency=2**80, partition_by=hash, per_key=n))


@uses("maxsize")
async def dedupe(n: Any) -> None:
    if n is not None:
        await read_and_close(source().dedupe(maxsize=n))


@uses("maxsize")
async def in_order(n: Any) -> None:
    await read_and_close(PullInOrderObj(source(), int, maxsize=n))


@uses("burst")
async def throttle(n: Any) -> None:
    await read_and_close(source().throttle(1e9, burst=n))


@uses("count")
async def timer(n: Any) -> None:
    if n is not None:
        await read_and_close(PullTimerObj(0.001, count=n).take(2))


@uses("prefetch")
async def concat(n: Any) -> None:
    await read_and_close(PullConcatObj(source(), prefetch=n))


@uses("prefetch")
async def merge(n: Any) -> None:
    await read_and_close(PullRaceObj(source().prefetch(1), prefetch=n))


@uses("prefetch")
async def labelled_merge(n: Any) -> None:
    await read_and_close(PullLabeledRaceObj({"a": source()}, prefetch=n))


@uses("prefetch")
async def combiner(n: Any) -> None:
    await read_and_close(AsyncIteratorCombiner(source(), prefetch=n).race_generator())


@uses("maxsize")
async def buffer(n: Any) -> None:
    if n is not None:
        await push(PushPullBufferObj[int](n).sink)


@uses("maxsize")
async def sink_collect(n: Any) -> None:
    if n is not None:
        await push(SinkCollectObj[int](maxsize=n))


@uses("size")
async def push_batch(n: Any) -> None:
    await push(PushWindowObj(SinkNullObj(), n))


@uses("size")
async def push_batch_timeout(n: Any) -> None:
    await push(PushWindowTimeoutObj(SinkNullObj(), n, 1))


@uses("size")
async def push_take(n: Any) -> None:
    await push(PushTakeObj(SinkNullObj(), n))


@uses("maxsize")
async def push_dedupe(n: Any) -> None:
    if n is not None:
        await push(PushDedupeObj(SinkNullObj(), maxsize=n))


@uses("maxsize")
async def sink_writer(n: Any) -> None:
    sink: SinkWriterObj[str] = SinkWriterObj(os.devnull, maxsize=n)
    await sink.next("x")
    await sink.return_()


def pool(**options: Any) -> HierarchicalTaskPoolRunner:
    async def work() -> None:
        """Do nothing."""

    return HierarchicalTaskPoolRunner([Task(work)] * 3, CapacitySource(2), **options)


@uses("lookahead")
async def lookahead(n: Any) -> None:
    await read_and_close(pool(lookahead=n).run_tasks())


@uses("max_buffered")
async def max_buffered(n: Any) -> None:
    await read_and_close(pool(max_buffered=n).run_tasks())


@uses("window")
async def pool_window(n: Any) -> None:
    if n is not None:
        await read_and_close(pool(window=n, ordered=True).run_tasks())


@uses("lookahead")
async def map_pool(n: Any) -> None:
    await read_and_close(source().map_pool(bool, CapacitySource(2), lookahead=n))


@uses("retries")
async def retry(n: Any) -> None:
    # The delay is bounded for any number of retries.
    assert 0 < Retry(n).delay(ValueError(), 10_000) <= 60


@uses("count")
async def iterations(n: Any) -> None:
    Yields(n)


@uses("closing")
async def scripted(n: Any) -> None:
    ScriptedSource([], closing=n)


@uses("iterations")
async def recording(n: Any) -> None:
    RecordingSink[Any](iterations=n)


@pytest.mark.parametrize("value", [0, *HUGE, *BAD], ids=repr)
@pytest.mark.parametrize("use", USES)
def test_number_at_its_limits_works_or_is_refused(use: str, value: Any) -> None:
    parameter, run = USES[use]
    refusal: Exception | None = None
    try:
        asyncio.run(run(value))
    except (TypeError, ValueError) as error:
        refusal = error
    if refusal is not None:
        # The error names the parameter and shows the value.
        assert re.search(rf"\b{parameter}\b", str(refusal))
        assert repr(value) in str(refusal)
        assert value == 0 or value in BAD or value >= 2**63 or use == "tee"
    else:
        accepted = isinstance(value, int) and not isinstance(value, bool)
        # For some parameters None means that there is no limit.
        assert accepted or value is None


def test_number_of_tee_branches_is_bounded() -> None:
    with pytest.raises(ValueError, match=r"n must be at most 100000, got 100001 \(int\)"):
        source().tee(100_001)
