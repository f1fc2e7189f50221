"""Scenes of the push operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.journal import read_records
from marbles.fixtures import Called, File, Held, Resolved, Sink
from marbles.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PUSH"]


def recorded(path: Path) -> list[Any]:
    """Return the items in a journal."""
    return [record.value() for record in read_records(path)]


def line(code: str, pushed: str, **given: object) -> Scene:
    """Create a scene with one sink."""
    return Scene(code, given={**given, "sink": Sink()}, pushed=pushed)


PUSH = (
    Scene("SinkCollectObj(2)", pushed="a-b-c|", result="it.buffer"),
    Scene("SinkCallbackObj(log)", given={"log": Called()}, pushed="a-b-c|"),
    Scene("SinkNullObj()", pushed="a-b-c|"),
    Scene(
        "SinkWriterObj(path)",
        given={"path": File()},
        pushed="a-b|",
        until=None,
        result="path.read_text()",
    ),
    Scene(
        "SinkJournal(path)",
        given={"path": File(), "recorded": recorded},
        pushed="a-b|",
        until=None,
        result="recorded(path)",
    ),
    line("PushMapObj(sink, lambda n: n * 10)", "1-2-3|"),
    line("PushFilterObj(sink, lambda n: n % 2)", "1-2-3|"),
    line("PushReduceObj(sink, lambda text, letter: text + letter)", "a-b-c|"),
    line("PushDedupeObj(sink)", "a-b-a-b-c|"),
    line("PushTakeObj(sink, 2)", "a-b-c|"),
    line("PushCallbackObj(sink, before=log)", "a-b-c|", log=Called()),
    Scene(
        "PushSerialObj(sink)",
        given={"sink": Sink(takes=2)},
        pushed="(a b)c----|",
        together=True,
        says="The pushes overlap; the sink takes 2 s for each item.",
    ),
    line("PushFlattenObj(sink)", "(ab)--(cde)|"),
    line("PushFlatMapObj(sink, lambda word: word.upper())", "(ab)--(cde)|"),
    line("PushWindowObj(sink, 2)", "a-b--c-d-e|"),
    line("PushBufferObj(sink, lambda letters: letters[-1] == 'z')", "a-b-z--c-d|"),
    Scene(
        "PushSignalObj(sink, signal)",
        given={"sink": Sink(takes=1), "signal": Resolved()},
        pushed="a--b--c-|",
        says="The sink takes a second to accept an item.",
    ),
    Scene(
        "SinkCapacityObj(sink, slots)",
        given={"slots": Held(3), "sink": Sink()},
        pushed="a-b--c|",
        says="Another lease holds the only slot for 3 s; the push of a waits.",
    ),
    line("PushWindowTimeoutObj(sink, 3, 2)", "abcd----e-|"),
    Scene(
        "PushForkObj([store, log])",
        given={"store": Sink(takes=2), "log": Sink()},
        pushed="a-b-c-|",
        says="store takes 2 s for each item.",
    ),
    Scene(
        "PushDistributeObj([even, odd], lambda n: n % 2)",
        given={"even": Sink(), "odd": Sink()},
        pushed="1-2-3|",
    ),
    Scene(
        "PushRoundRobinObj([first, second])",
        given={"first": Sink(), "second": Sink()},
        pushed="a-b-c|",
    ),
    Scene(
        "PushLabeledDistributeObj({True: even, False: odd},\n                         lambda n: n % 2 == 0)",
        given={"even": Sink(), "odd": Sink()},
        pushed="1-2-3|",
    ),
)
