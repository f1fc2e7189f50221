"""Pipelines that contain themselves are refused when they are built, or raise when they are used."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    CapacitySource,
    PullConcatObj,
    PullEagerObj,
    PullGateObj,
    PullLabeledRaceObj,
    PullMapObj,
    PullObj,
    PullObj1To1Link,
    PullPushBridgeObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullTimeoutObj,
    PullZipObj,
    PushCallbackObj,
    PushDistributeObj,
    PushFilterObj,
    PushForkObj,
    PushLabeledDistributeObj,
    PushMapObj,
    PushObj,
    PushObj1To1Link,
    PushPullBufferObj,
    PushRoundRobinObj,
    PushSerialObj,
    PushWindowTimeoutObj,
    SinkCallbackObj,
    SinkCapacityObj,
    SinkNullObj,
    SourceBufferObj,
    SourceCapacityObj,
    SourceIterObj,
    WaitObject,
)
from tests.support import collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def same(item: Any) -> Any:
    return item


class Through(PullObj1To1Link[Any, Any]):
    """A custom operator, which is never fused into a pipeline."""

    def __aiter__(self) -> Through:
        return self

    async def __anext__(self) -> Any:
        return await anext(self.source)


class Generating(PullObj1To1Link[Any, Any]):
    """A custom operator over a generator."""

    async def pull_impl(self) -> AsyncIterator[Any]:
        async for item in self.source:
            yield item


class Holding(PullObj[Any]):
    """A custom stream without declared sources, which pulls its `source`."""

    def __init__(self, source: PullObj[Any]) -> None:
        super().__init__()
        self.source = source

    async def pull_impl(self) -> AsyncIterator[Any]:
        async for item in self.source:
            yield item


# Operators between a stream and itself.
OPERATORS: dict[str, Callable[[PullObj[Any]], PullObj[Any]]] = {
    "nothing": same,
    "map": lambda stream: stream.map(same),
    "two stages": lambda stream: stream.filter(bool).batch(2),
    "concurrent calls": lambda stream: stream.map(same, concurrency=2),
    "prefetch": lambda stream: stream.prefetch(2),
    "timeout": lambda stream: stream.timeout(1),
    "batch with timeout": lambda stream: stream.batch(2, 1),
    "tee": lambda stream: stream.tee(2)[1],
    "gate": lambda stream: PullGateObj(stream, WaitObject()),
    "capacity": lambda stream: SourceCapacityObj(stream, CapacitySource(1)),
    "pool": lambda stream: stream.map_pool(same, CapacitySource(1)),
    "bridge": lambda stream: PullPushBridgeObj(stream, SinkNullObj()),
    "race": lambda stream: PullRaceObj(stream.map(same), [1]),
    "cutoff": lambda stream: PullRaceCutoffObj([1], stream.map(same)),
    "an iterable": SourceIterObj,
    "custom link": Through,
    "custom generator": Generating,
}

MERGES: list[Any] = [
    PullConcatObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
]


def close_all(*streams: PullObj[Any]) -> None:
    """Close the streams that a test leaves open."""

    async def close() -> None:
        for stream in streams:
            await stream.aclose()

    asyncio.run(close())


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("kind", MERGES)
def test_law_14_merge_refuses_itself_as_a_source(kind: Any, operator: str) -> None:
    merge = kind([1, 2])
    stream = OPERATORS[operator](merge)
    with pytest.raises(ValueError, match=r"\bsource must not lead back .*PushPullBufferObj"):
        merge.add(stream)
    assert len(merge.sources) == 1
    close_all(stream)


@pytest.mark.parametrize("operator", OPERATORS)
def test_law_14_labels_and_combiner_refuse_themselves(operator: str) -> None:
    labelled = PullLabeledRaceObj[str, Any]({"a": [1]})
    stream = OPERATORS[operator](labelled)
    with pytest.raises(ValueError, match="PullLabeledRaceObj: source must not lead back"):
        labelled.add("b", stream)
    combiner = AsyncIteratorCombiner[Any]([1])
    race = OPERATORS[operator](combiner.race_generator())
    with pytest.raises(ValueError, match="AsyncIteratorCombiner: source must not lead back"):
        combiner.add(race)
    close_all(stream, race)


REINITIALISED: dict[str, tuple[Callable[[], PullObj[Any]], Callable[[Any, Any], None]]] = {
    "map": (
        lambda: SourceIterObj([1]).map(same),
        lambda stream, source: PullMapObj.__init__(stream, source, same),
    ),
    "concurrent calls": (
        lambda: SourceIterObj([1]).map(same, concurrency=2),
        lambda stream, source: PullMapObj.__init__(stream, source, same, concurrency=2),
    ),
    "prefetch": (lambda: SourceIterObj([1]).prefetch(), PullEagerObj.__init__),
    "timeout": (
        lambda: SourceIterObj([1]).timeout(1),
        lambda stream, source: PullTimeoutObj.__init__(stream, source, 1),
    ),
    "iterable": (lambda: SourceIterObj([1]), SourceIterObj.__init__),
    "race": (lambda: PullRaceObj([1]), PullRaceObj.__init__),
    "gate": (
        lambda: PullGateObj([1], WaitObject()),
        lambda stream, source: PullGateObj.__init__(stream, source, WaitObject()),
    ),
    "capacity": (
        lambda: SourceCapacityObj([1], CapacitySource(1)),
        lambda stream, source: SourceCapacityObj.__init__(stream, source, CapacitySource(1)),
    ),
    "bridge": (
        lambda: PullPushBridgeObj([1], SinkNullObj()),
        lambda stream, source: PullPushBridgeObj.__init__(stream, source, SinkNullObj()),
    ),
    "custom link": (lambda: Through([1]), Through.__init__),
}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("reinitialised", REINITIALISED)
def test_law_14_reinitialised_stream_refuses_itself(reinitialised: str, operator: str) -> None:
    make, reinitialise = REINITIALISED[reinitialised]
    stream = make()
    with pytest.raises(ValueError, match="source must not lead back"):
        reinitialise(stream, OPERATORS[operator](stream))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("base", [PullMapObj, PullObj1To1Link, Through, Generating])
def test_law_14_subclass_cannot_be_its_own_source(base: Any, operator: str) -> None:
    class Own(base):  # type: ignore[misc]
        def __init__(self) -> None:
            arguments = (same,) if base is PullMapObj else ()
            super().__init__(OPERATORS[operator](self), *arguments)

    with pytest.raises(ValueError, match="Own: source must not lead back"):
        Own()


# Operators between a push object and itself.
BELOW: dict[str, Callable[[Any], PushObj[Any]]] = {
    "nothing": same,
    "map": lambda sink: PushMapObj(sink, same),
    "two stages": lambda sink: PushMapObj(PushFilterObj(sink, bool), same),
    "fork": lambda sink: PushForkObj([SinkNullObj(), PushMapObj(sink, same)]),
    "ring": lambda sink: PushRoundRobinObj([SinkNullObj(), sink]),
    "distribute": lambda sink: PushDistributeObj([sink], lambda _: 0),
    "labels": lambda sink: PushLabeledDistributeObj({"a": sink}, lambda _: "a"),
    "missing": lambda sink: PushLabeledDistributeObj({"a": SinkNullObj()}, str, sink),
    "serial": PushSerialObj,
    "callback": lambda sink: PushCallbackObj(sink, before=same),
    "window": lambda sink: PushWindowTimeoutObj(sink, 1, 1),
    "capacity": lambda sink: SinkCapacityObj(sink, CapacitySource(1)),
    "custom": PushObj1To1Link,
}


@pytest.mark.parametrize("through", BELOW)
@pytest.mark.parametrize("reinitialised", ["map", "serial", "fork", "ring", "window"])
def test_law_14_push_object_refuses_itself_as_a_sink(reinitialised: str, through: str) -> None:
    makes: dict[str, tuple[Any, Callable[[Any, Any], None]]] = {
        "map": (
            PushMapObj(SinkNullObj(), same),
            lambda stream, sink: PushMapObj.__init__(stream, sink, same),
        ),
        "serial": (PushSerialObj(SinkNullObj()), PushSerialObj.__init__),
        "fork": (
            PushForkObj([SinkNullObj()]),
            lambda fork, sink: PushForkObj.__init__(fork, [SinkNullObj(), sink]),
        ),
        "ring": (
            PushRoundRobinObj([SinkNullObj()]),
            lambda ring, sink: PushRoundRobinObj.__init__(ring, [sink]),
        ),
        "window": (
            PushWindowTimeoutObj(SinkNullObj(), 2, 1),
            lambda window, sink: PushWindowTimeoutObj.__init__(window, sink, 2, 1),
        ),
    }
    stream, reinitialise = makes[reinitialised]
    with pytest.raises(ValueError, match=r"sinks? must not lead back .*PushPullBufferObj"):
        reinitialise(stream, BELOW[through](stream))


def test_law_14_push_subclass_cannot_be_its_own_sink() -> None:
    class Own(PushMapObj[Any, Any]):
        def __init__(self) -> None:
            super().__init__(PushMapObj(self, same), same)

    with pytest.raises(ValueError, match="Own: sink must not lead back"):
        Own()


async def test_cycle_through_a_buffer_is_allowed() -> None:
    """Feed items back through a buffer, which stores them until the next pull."""
    buffer = PushPullBufferObj[int]()
    merge = PullRaceObj([0], buffer.source)
    stream = merge.take(3)
    async for n in stream:
        buffer.sink.next_nowait(n + 1)
    assert len(buffer) == 1
    await stream.aclose()


async def test_merge_in_use_accepts_other_sources() -> None:
    merge = PullConcatObj([0])
    stream = merge.map(same)
    shared = SourceIterObj([1, 2]).tee(2)
    merge.add(shared[0])
    merge.add(shared[1].map(same))
    assert await collect(stream) == [0, 1, 2, 1, 2]


DETECTED_LATE: dict[str, Callable[[], PullObj[Any]]] = {}
"""Cycles that are only detected when they are pulled."""


def detected_late(make: Callable[[], PullObj[Any]]) -> Callable[[], PullObj[Any]]:
    DETECTED_LATE[make.__name__] = make
    return make


@detected_late
def custom_async_iterator() -> PullObj[Any]:
    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Any:
            return await anext(stream)

    stream = SourceIterObj(Source()).map(same)
    return stream


@detected_late
def custom_stream() -> PullObj[Any]:
    stream = SourceIterObj([1]).map(same)
    PullMapObj.__init__(stream, Holding(stream), same)
    return stream


@detected_late
def custom_stream_in_a_merge() -> PullObj[Any]:
    race = PullRaceObj[Any]([])
    race.add(Holding(race))
    return race


@detected_late
def custom_iterator() -> PullObj[Any]:
    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> Any:
            return anext(stream).__await__().send(None)

    stream = SourceIterObj(Source()).map(same)
    return stream


@detected_late
def item_is_the_stream() -> PullObj[Any]:
    source = SourceBufferObj[Any]()
    stream = source.flatten()
    source.buffer.append(stream)
    return stream


@detected_late
def callable_returns_the_stream() -> PullObj[Any]:
    stream: PullObj[Any] = SourceIterObj([1]).flat_map(lambda _: stream)
    return stream


@detected_late
def source_of_a_merge() -> PullObj[Any]:
    async def source() -> AsyncIterator[Any]:
        yield await anext(stream)

    stream = PullRaceObj(source(), [1]).filter(lambda n: n != 1)
    return stream


@pytest.mark.parametrize("name", DETECTED_LATE)
async def test_cycle_detected_at_a_pull_raises(name: str) -> None:
    stream = DETECTED_LATE[name]()
    with pytest.raises(RuntimeError, match=r"itself|being pulled already"):
        await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("kind", ["callback", "sink", "map"])
@pytest.mark.parametrize("is_nowait", [False, True])
async def test_cycle_detected_at_a_push_raises(kind: str, is_nowait: bool) -> None:
    class Sink:
        def next(self, item: Any) -> Any:
            return chain.next(item)

        def next_nowait(self, item: Any) -> Any:
            return chain.next_nowait(item)

        async def return_(self, value: Any = None) -> Any:
            """Do nothing."""

        async def throw(self, error: BaseException) -> Any:
            """Do nothing."""

    def push_again(item: Any) -> Any:
        return chain.next_nowait(item) if is_nowait else chain.next(item)

    chain: PushObj[Any]
    if kind == "callback":
        chain = SinkCallbackObj(push_again)
    elif kind == "sink":
        chain = PushMapObj(Sink(), same)
    else:
        chain = PushMapObj(SinkNullObj(), push_again)
    with pytest.raises(RecursionError):
        if is_nowait:
            chain.next_nowait(1)
        else:
            await chain.next(1)


DEEP = """
import asyncio
from headrace import PushMapObj, SinkCallbackObj, SinkNullObj, SourceIterObj

def deep(make, first):
    for _ in range(20_000):
        first = make(first)
    return first

LINES = {
    "anext": lambda stream: SourceIterObj([1]).map(lambda _: anext(stream)),
    "next": lambda stream: SourceIterObj([1]).map(lambda _: stream.next()),
    "filter": lambda stream: SourceIterObj([1]).filter(lambda _: anext(stream)),
}
PUSHES = {
    "callback": lambda sink: SinkCallbackObj(lambda item: sink.next(item)),
    "map": lambda sink: PushMapObj(SinkNullObj(), lambda item: sink.next(item)),
}

async def main():
    for make in LINES.values():
        try:
            await anext(deep(make, SourceIterObj([1])))
        except RecursionError:
            print("refused")
    for make in PUSHES.values():
        try:
            await deep(make, SinkNullObj()).next(1)
        except RecursionError:
            print("refused")

asyncio.run(main())
"""


def test_law_17_too_deeply_nested_callables_raise() -> None:
    """Run in a process of its own, which a stack overflow would end."""
    done = subprocess.run(
        [sys.executable, "-c", DEEP],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 5), done.stderr
