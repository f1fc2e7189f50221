"""Scenes of objects without an upstream operator: sources, queues, and bridges between pull and push."""

from __future__ import annotations

from headrace import PushPullBufferObj
from marbles.fixtures import File, Graph, Made, Recorded, Sink, Source
from marbles.scene import Scene

__all__ = ["SOURCES"]

SOURCES = (
    Scene("SourceBufferObj([1, 2, 3])", takes=1, says="The consumer takes a second for each item."),
    Scene("SourceCacheObj('v')"),
    Scene("SourceIterObj(range(3))", takes=1, says="The consumer takes a second for each item."),
    Scene(
        "SourceLinesObj(path).map(str.strip)",
        given={"path": File("ab\ncd\nef\n")},
        takes=1,
        until=None,
        says="The consumer takes a second for each item.",
    ),
    Scene(
        "PullJournalObj(path)",
        given={"path": Recorded("abc")},
        takes=1,
        says="The consumer takes a second for each item.",
    ),
    Scene("PullTimerObj(2, count=3)"),
    Scene(
        "PushPullBufferObj(2)",
        pushed="(a b c d e f |)",
        into="it.sink",
        out={"pulled": "it.source"},
        takes=1,
        says="The consumer takes a second for each item. Two are held: the push of d waits for space.",
    ),
    Scene(
        "PushPullObj(buffer.sink, buffer.source.map(str.upper))",
        given={"buffer": Made(PushPullBufferObj)},
        pushed="a-b-c|",
        out={"pulled": "it.source"},
    ),
    Scene(
        "SourceIterObj(source).tee(2)",
        shows="tee",
        given={"source": Source("abc|")},
        out={"one": "it[0]", "other": "it[1]"},
    ),
    Scene(
        "PullPushBridgeObj(source, store, log)",
        given={"source": Source("a-b-c|"), "store": Sink(takes=3), "log": Sink()},
        says="store takes 3 s for each item.",
    ),
    Scene(
        "PullPushDistributeObj(source, [even, odd], lambda n: n % 2)",
        given={"source": Source("1-2-3|"), "even": Sink(), "odd": Sink()},
    ),
    Scene(
        "PrioritySourceObj(priority={'a': 0, 'b': 0, 'z': 1}.get,\n                  ageing=60, clock=loop.time)",
        pushed="(a b)z--|",
        into="it.sink",
        takes=2,
        says="The consumer takes 2 s for each item. z is the most urgent.",
    ),
    Scene(
        "DependencySourceObj(graph)",
        given={"graph": Graph({"a": [], "b": [], "c": ["a", "b"], "d": ["c"]}, "-a-b--c-d")},
        says="c depends on a and b, and d on c.",
    ),
    Scene(
        "PriorityDependencySourceObj(graph,\n"
        "                            priority={'a': 0, 'z': 1, 'c': 0}.get)",
        given={"graph": Graph({"a": [], "z": [], "c": ["a", "z"]}, "--a-z-c")},
    ),
)
