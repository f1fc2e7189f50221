"""Pipelines that lead into themselves are refused where they are built; those that only show at a pull raise."""

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
    """A user's operator, which no line runs in place."""

    def __aiter__(self) -> Through:
        return self

    async def __anext__(self) -> Any:
        return await anext(self.source)


class Generating(PullObj1To1Link[Any, Any]):
    """A user's operator over a generator."""

    async def pull_impl(self) -> AsyncIterator[Any]:
        async for item in self.source:
            yield item


class Holding(PullObj[Any]):
    """A user's stream that is made of nothing, and pulls its `source`."""

    def __init__(self, source: PullObj[Any]) -> None:
        super().__init__()
        self.source = source

    async def pull_impl(self) -> AsyncIterator[Any]:
        async for item in self.source:
            yield item


# What may stand between a stream and itself.
OVER: dict[str, Callable[[PullObj[Any]], PullObj[Any]]] = {
    "nothing": same,
    "map": lambda stream: stream.map(same),
    "two stages": lambda stream: stream.filter(bool).batch(2),
    "calls side by side": lambda stream: stream.map(same, concurrency=2),
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
    "own link": Through,
    "own generator": Generating,
}

MERGES: list[Any] = [
    PullConcatObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
]


def closed(*streams: PullObj[Any]) -> None:
    """Closes streams that a test leaves."""

    async def close() -> None:
        for stream in streams:
            await stream.aclose()

    asyncio.run(close())


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("kind", MERGES)
def test_law_14_a_merge_does_not_take_itself(kind: Any, over: str) -> None:
    merge = kind([1, 2])
    stream = OVER[over](merge)
    with pytest.raises(ValueError, match=r"\bsource must not lead back .*PushPullBufferObj"):
        merge.add(stream)
    assert len(merge.sources) == 1
    closed(stream)


@pytest.mark.parametrize("over", OVER)
def test_law_14_nor_does_one_with_labels_or_a_combiner(over: str) -> None:
    labelled = PullLabeledRaceObj[str, Any]({"a": [1]})
    stream = OVER[over](labelled)
    with pytest.raises(ValueError, match="PullLabeledRaceObj: source must not lead back"):
        labelled.add("b", stream)
    combiner = AsyncIteratorCombiner[Any]([1])
    race = OVER[over](combiner.race_generator())
    with pytest.raises(ValueError, match="AsyncIteratorCombiner: source must not lead back"):
        combiner.add(race)
    closed(stream, race)


REMADE: dict[str, tuple[Callable[[], PullObj[Any]], Callable[[Any, Any], None]]] = {
    "map": (
        lambda: SourceIterObj([1]).map(same),
        lambda stream, source: PullMapObj.__init__(stream, source, same),
    ),
    "calls side by side": (
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
    "own link": (lambda: Through([1]), Through.__init__),
}


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("remade", REMADE)
def test_law_14_a_stream_that_is_made_again_is_not_its_own_source(remade: str, over: str) -> None:
    make, remake = REMADE[remade]
    stream = make()
    with pytest.raises(ValueError, match="source must not lead back"):
        remake(stream, OVER[over](stream))


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("base", [PullMapObj, PullObj1To1Link, Through, Generating])
def test_law_14_a_class_that_hands_itself_out_before_it_is_made(base: Any, over: str) -> None:
    class Own(base):  # type: ignore[misc]
        def __init__(self) -> None:
            arguments = (same,) if base is PullMapObj else ()
            super().__init__(OVER[over](self), *arguments)

    with pytest.raises(ValueError, match="Own: source must not lead back"):
        Own()


# What may stand between a push object and itself.
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
    "own": PushObj1To1Link,
}


@pytest.mark.parametrize("below", BELOW)
@pytest.mark.parametrize("remade", ["map", "serial", "fork", "ring", "window"])
def test_law_14_a_push_object_is_not_its_own_sink(remade: str, below: str) -> None:
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
    stream, remake = makes[remade]
    with pytest.raises(ValueError, match=r"sinks? must not lead back .*PushPullBufferObj"):
        remake(stream, BELOW[below](stream))


def test_law_14_a_push_class_that_hands_itself_out_before_it_is_made() -> None:
    class Own(PushMapObj[Any, Any]):
        def __init__(self) -> None:
            super().__init__(PushMapObj(self, same), same)

    with pytest.raises(ValueError, match="Own: sink must not lead back"):
        Own()


async def test_a_buffer_may_lead_back() -> None:
    """It takes an item and gives it later."""
    buffer = PushPullBufferObj[int]()
    merge = PullRaceObj([0], buffer.source)
    stream = merge.take(3)
    async for n in stream:
        buffer.sink.next_nowait(n + 1)
    assert len(buffer) == 1
    await stream.aclose()


async def test_a_merge_that_is_read_still_takes_other_sources() -> None:
    merge = PullConcatObj([0])
    stream = merge.map(same)
    shared = SourceIterObj([1, 2]).tee(2)
    merge.add(shared[0])
    merge.add(shared[1].map(same))
    assert await collect(stream) == [0, 1, 2, 1, 2]


LATE: dict[str, Callable[[], PullObj[Any]]] = {}
"""Circles that only show when they are pulled."""


def late(make: Callable[[], PullObj[Any]]) -> Callable[[], PullObj[Any]]:
    LATE[make.__name__] = make
    return make


@late
def a_source_of_the_user() -> PullObj[Any]:
    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Any:
            return await anext(stream)

    stream = SourceIterObj(Source()).map(same)
    return stream


@late
def a_stream_of_the_user() -> PullObj[Any]:
    stream = SourceIterObj([1]).map(same)
    PullMapObj.__init__(stream, Holding(stream), same)
    return stream


@late
def a_stream_of_the_user_in_a_race() -> PullObj[Any]:
    race = PullRaceObj[Any]([])
    race.add(Holding(race))
    return race


@late
def an_iterator_of_the_user() -> PullObj[Any]:
    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> Any:
            return anext(stream).__await__().send(None)

    stream = SourceIterObj(Source()).map(same)
    return stream


@late
def an_item_that_is_the_stream() -> PullObj[Any]:
    source = SourceBufferObj[Any]()
    stream = source.flatten()
    source.buffer.append(stream)
    return stream


@late
def a_callable_that_gives_the_stream() -> PullObj[Any]:
    stream: PullObj[Any] = SourceIterObj([1]).flat_map(lambda _: stream)
    return stream


@late
def a_source_of_a_race() -> PullObj[Any]:
    async def source() -> AsyncIterator[Any]:
        yield await anext(stream)

    stream = PullRaceObj(source(), [1]).filter(lambda n: n != 1)
    return stream


@pytest.mark.parametrize("name", LATE)
async def test_what_shows_at_a_pull_raises(name: str) -> None:
    stream = LATE[name]()
    with pytest.raises(RuntimeError, match=r"itself|being pulled already"):
        await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("kind", ["callback", "sink", "map"])
@pytest.mark.parametrize("is_now", [False, True])
async def test_what_shows_at_a_push_raises(kind: str, is_now: bool) -> None:
    class Sink:
        def next(self, item: Any) -> Any:
            return line.next(item)

        def next_nowait(self, item: Any) -> Any:
            return line.next_nowait(item)

        async def return_(self, value: Any = None) -> Any:
            """Ends nothing."""

        async def throw(self, error: BaseException) -> Any:
            """Ends nothing."""

    def again(item: Any) -> Any:
        return line.next_nowait(item) if is_now else line.next(item)

    line: PushObj[Any]
    if kind == "callback":
        line = SinkCallbackObj(again)
    elif kind == "sink":
        line = PushMapObj(Sink(), same)
    else:
        line = PushMapObj(SinkNullObj(), again)
    with pytest.raises(RecursionError):
        if is_now:
            line.next_nowait(1)
        else:
            await line.next(1)


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


def test_law_17_callables_that_await_one_another_too_deeply_raise() -> None:
    """In a process of its own, which a stack that is used up would end."""
    done = subprocess.run(
        [sys.executable, "-c", DEEP],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 5), done.stderr
