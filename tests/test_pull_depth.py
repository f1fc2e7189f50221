"""Law 17: deep pipelines need no recursion. Operators that nest have a depth limit."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from headrace import (
    CapacitySource,
    PullConcatObj,
    PullGateObj,
    PullMapObj,
    PullObj,
    PullPushBridgeObj,
    PullPushDistributeObj,
    PullRaceObj,
    SinkNullObj,
    SourceBufferObj,
    SourceIterObj,
    WaitObject,
)
from tests.support import collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Wrap: TypeAlias = "Callable[[PullObj[int]], PullObj[int]]"


def behind_gate(source: PullObj[int]) -> PullObj[int]:
    """Put a source behind a gate that stays open."""
    signal: WaitObject[None] = WaitObject()
    signal.stop()
    return PullGateObj(source, signal)


def bridged(source: PullObj[int]) -> PullObj[int]:
    return PullPushBridgeObj(source, SinkNullObj(), forward_close=False)


def distributed(source: PullObj[int]) -> PullObj[int]:
    return PullPushDistributeObj(source, [SinkNullObj()], lambda _: 0, forward_close=False)


def shared(source: PullObj[int]) -> PullObj[int]:
    return source.tee(1)[0]


def deep(wrap: Wrap, depth: int, source: PullObj[int] | None = None) -> PullObj[int]:
    stream = SourceIterObj(range(3)) if source is None else source
    for _ in range(depth):
        stream = wrap(stream)
    return stream


def limited(source: PullObj[int]) -> PullObj[int]:
    return source.limit(CapacitySource(1))


NESTED: list[Wrap] = [behind_gate, bridged, distributed, limited, shared]


@pytest.mark.parametrize("wrap", NESTED)
async def test_law_17_hundred_nested_stages_run_and_close(wrap: Wrap) -> None:
    stream = deep(wrap, 100)
    assert await anext(stream) == 0
    assert await collect(stream.map(lambda n: n)) == [1, 2]
    await stream.aclose()
    with contextlib.suppress(RuntimeError):
        stream.restart()
        assert await collect(stream) == [0, 1, 2]
    await deep(wrap, 100).aclose()


@pytest.mark.parametrize("wrap", NESTED)
@pytest.mark.parametrize("other", NESTED)
async def test_law_17_one_more_nested_stage_is_refused(wrap: Wrap, other: Wrap) -> None:
    half = deep(other, 50).map(lambda n: n)
    nested = deep(wrap, 50, PullRaceObj(half, [7]).filter(lambda n: n != 7))
    with pytest.raises(
        ValueError,
        match=r"source must have at most 99 gates, .* got 100; put \.prefetch\(1\) between",
    ):
        wrap(PullConcatObj([1], nested))
    # The remedy in the message works: `prefetch` has its own task, so the depth starts again.
    assert await collect(deep(other, 100, deep(wrap, 100).prefetch(1))) == [0, 1, 2]
    assert await collect(nested) == [0, 1, 2]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda stream: stream.prefetch(1),
        lambda stream: stream.timeout(1_000),
        lambda stream: stream.map(lambda n: n, concurrency=2),
        lambda stream: PullMapObj(stream.prefetch(2), lambda n: n),
        PullConcatObj,
        lambda stream: stream.merge([]),
    ],
)
async def test_law_17_thousand_streams_of_a_kind_restart(wrap: Wrap) -> None:
    source = SourceBufferObj([1])
    stream = deep(wrap, 1_000, source)
    stream.restart()
    assert await collect(stream) == [1]
    source.buffer.append(2)
    stream.restart()
    assert await collect(stream) == [2]
    await stream.aclose()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda stream: stream.prefetch(1),
        lambda stream: stream.timeout(1_000),
        lambda stream: stream.throttle(1_000_000),
        lambda stream: stream.map(lambda n: n, concurrency=2),
        lambda stream: stream.map_pool(str, 1),
        lambda stream: stream.merge([]),
    ],
)
async def test_law_17_thousand_streams_that_were_never_pulled_close(wrap: Wrap) -> None:
    closed = False

    class Source(SourceIterObj[int]):
        async def aclose(self) -> None:
            nonlocal closed
            closed = True
            await super().aclose()

    await deep(wrap, 1_000, Source([1])).aclose()
    assert closed


async def test_law_17_deep_restart_raises_a_source_error() -> None:
    async def once() -> AsyncIterator[int]:
        yield 1

    stream = deep(lambda stream: stream.prefetch(1), 1_000, SourceIterObj(once()))
    assert await collect(stream) == [1]
    with pytest.raises(RuntimeError, match=r"cannot restart: the source .* runs once"):
        stream.restart()
    # Nothing has changed, so it is still at its end.
    assert await collect(stream) == []


def test_law_17_overridden_restart_is_called() -> None:
    calls: list[str] = []

    class Mine(PullObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            yield 1

        def restart(self) -> None:
            calls.append("mine")
            super().restart()

    stream = behind_gate(Mine().map(str).prefetch(1).filter(bool)).take(1)  # type: ignore[arg-type]
    stream.restart()
    assert calls == ["mine"]


@pytest.mark.loops("asyncio")
async def test_law_17_pipeline_costs_are_linear_in_stages() -> None:
    async def costs(depth: int) -> list[float]:
        """Return the best of three times, in seconds, of the first item, restart, `return_` and `throw`."""
        runs: list[list[float]] = []
        for _ in range(3):
            one, other = (deep(lambda stream: stream.map(abs), depth) for _ in range(2))
            moments = [time.process_time()]
            assert await anext(one) == 0
            moments.append(time.process_time())
            one.restart()
            moments.append(time.process_time())
            await one.return_()
            moments.append(time.process_time())
            with pytest.raises(KeyError):
                await other.throw(KeyError())
            moments.append(time.process_time())
            runs.append([end - begin for begin, end in itertools.pairwise(moments)])
        return [min(times) for times in zip(*runs, strict=True)]

    # Quadratic work would take a hundred times as long for ten times the stages.
    few, many = await costs(1_000), await costs(10_000)
    assert all(much < 40 * little + 0.001 for little, much in zip(few, many, strict=True)), (
        few,
        many,
    )


class Nested(PullObj[int]):
    """A user-defined stream that pulls another one in its generator."""

    def __init__(self, source: PullObj[int]) -> None:
        super().__init__()
        self.source = source

    async def pull_impl(self) -> AsyncIterator[int]:
        async for item in self.source:
            yield item


@pytest.mark.parametrize(
    "wrap",
    [
        Nested,
        SourceIterObj,
        lambda stream: SourceIterObj([stream]).flatten(),
        lambda stream: SourceIterObj(Nested(stream)),
    ],
)
async def test_law_17_too_deep_for_the_stack_raises(wrap: Any) -> None:
    with pytest.raises(RecursionError):
        await anext(deep(wrap, 20_000))
    # The depth limit depends on the build.
    for depth in (300, 1_000, 3_000):
        with contextlib.suppress(RecursionError):
            assert await anext(deep(wrap, depth)) == 0
    # Later streams are not affected.
    assert await collect(deep(wrap, 20)) == [0, 1, 2]
    assert await collect(deep(lambda stream: stream.prefetch(1), 10, deep(wrap, 20))) == [0, 1, 2]


@pytest.mark.skipif(
    sys.platform != "linux", reason="the stack size of a thread is read on Linux only"
)
@pytest.mark.parametrize("kilobytes", [256, 512, 1024])
def test_law_17_too_deep_for_a_small_stack_raises(kilobytes: int) -> None:
    """Run in a separate process, since a stack overflow would end it."""
    # CPython 3.13 deallocates 20,000 nested objects of a Python class recursively. The garbage collector must not do that
    # on the small stack, so it is disabled.
    program = f"""
import asyncio, gc, threading
gc.disable()
from headrace import SourceIterObj
from tests.test_pull_depth import Nested, deep

async def main():
    for wrap in (Nested, SourceIterObj, lambda stream: SourceIterObj([stream]).flatten()):
        for depth in (1_000, 20_000):
            try:
                await anext(deep(wrap, depth))
            except RecursionError:
                print("refused")
        assert await anext(deep(wrap, 10)) == 0

threading.stack_size({kilobytes} << 10)
thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["refused"] * len(done.stdout.split())
    assert done.stdout.count("refused") >= 3
