"""The kinds of sources over which every pull operator is tested."""

from __future__ import annotations

import contextlib
import gzip
import json
from typing import TYPE_CHECKING, Any

from headrace import (
    DependencyGraph,
    DependencySourceObj,
    PriorityDependencySourceObj,
    PrioritySourceObj,
    PullJournalObj,
    PullObj,
    PullObj1To1Link,
    PullTimerObj,
    PushPullBufferObj,
    SourceBufferObj,
    SourceCacheObj,
    SourceCancelledError,
    SourceIterObj,
    SourceLinesObj,
    SourceObj,
)
from headrace._core import JournalFile
from headrace.testing import Delay, ScriptedSource, Yields
from tests.support import wrong
from tests.sweep_types import SourceKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class UserSource(SourceObj[Any]):
    """A user-defined source whose `pull_impl` never waits."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__()
        self.items = items

    async def pull_impl(self) -> AsyncIterator[Any]:
        for item in self.items:
            yield item


def filled(items: list[Any]) -> PullObj[Any]:
    """Return the source of a buffer that was filled and ended."""
    buffer: PushPullBufferObj[Any] = PushPullBufferObj()
    for item in items:
        buffer.sink.next_nowait(item)
    with contextlib.suppress(StopIteration):
        # No pull waits, so that ending needs no event-loop iteration.
        buffer.sink.return_().send(None)
    return buffer.source


def ranked(items: list[Any]) -> PullObj[Any]:
    """Return a priority source with equal priorities, which keeps the order of the items."""
    source: PrioritySourceObj[Any] = PrioritySourceObj(priority=lambda _: 0)
    for item in items:
        source.sink.next_nowait(item)
    with contextlib.suppress(StopIteration):
        source.sink.return_().send(None)
    return source


def completed_graph(kind: type[DependencySourceObj], items: list[Any]) -> PullObj[Any]:
    """Return a graph in which each node depends on the previous one and is completed when it is pulled."""
    graph = DependencyGraph()
    graph.add_all([(n, (item,), [n - 1] if n else []) for n, item in enumerate(items)])
    source = kind(graph)

    def complete(given: tuple[Any]) -> Any:
        source.completed(given, None)
        return given[0]

    return source.map(complete)


class UserLink(PullObj1To1Link[Any, Any]):
    """A user-defined operator that changes nothing, and whose iterator survives a cancellation."""

    def __aiter__(self) -> UserLink:
        return self

    async def __anext__(self) -> Any:
        return await anext(self.source)


DIRECTORY: list[Path] = []
"""The directory for the files of this run."""


def written(content: bytes, *, zipped: bool = False) -> Path:
    """Return a file with this content."""
    if zipped:
        content = gzip.compress(content)
    path = DIRECTORY[0] / f"{hash(content):x}"
    if not path.exists():
        path.write_bytes(content)
    return path


def read_lines(items: list[Any], *, zipped: bool = False) -> PullObj[Any]:
    """Return the lines of a file with one item each."""
    lines = "".join(f"{json.dumps(item)}\n" for item in items)
    return SourceLinesObj(written(lines.encode(), zipped=zipped)).map(json.loads)


def replayed(items: list[Any]) -> PullObj[Any]:
    """Return the items out of a journal."""
    path = DIRECTORY[0] / f"{hash(repr(items)):x}.journal"
    file = JournalFile(str(path), skips_damage=False, syncs=False)
    for number, item in enumerate(items):
        # Once, also if the file is from an earlier test.
        file.store(number, item)
    file.close(False)
    return PullJournalObj(path)


def pausing(items: list[Any]) -> ScriptedSource:
    """Return a source that waits sometimes, also before its end and while it closes."""
    return ScriptedSource(
        [step for n, item in enumerate(items) for step in (Yields(n % 3), item)] + [Yields(1)],
        closing=1,
    )


def delayed(items: list[Any]) -> ScriptedSource:
    return ScriptedSource(
        [step for n, item in enumerate(items) for step in (Delay(n / 4), item)], closing=1
    )


SOURCES = [
    SourceKind("list", SourceIterObj, covers=(SourceIterObj,)),
    SourceKind(
        "buffer",
        SourceBufferObj,
        covers=(SourceBufferObj,),
        restarts=False,
        is_twin=True,
        bad=(
            (lambda: SourceBufferObj(wrong(3)), TypeError, r"items must be .*got 3 \(int\)"),
            (
                lambda: SourceBufferObj([], mode=wrong("filo")),
                ValueError,
                r"mode must be .*got 'filo' \(str\)",
            ),
        ),
    ),
    SourceKind(
        "buffer, last in first out",
        lambda items: SourceBufferObj(reversed(items), mode="lifo"),
        covers=(SourceBufferObj,),
        restarts=False,
        is_twin=True,
    ),
    SourceKind(
        "cache",
        lambda items: SourceIterObj(items).flat_map(SourceCacheObj),
        covers=(SourceCacheObj,),
        is_twin=True,
    ),
    SourceKind("queue", filled, restarts=False, is_twin=True),
    SourceKind(
        "queue by priority", ranked, covers=(PrioritySourceObj,), restarts=False, is_twin=True
    ),
    SourceKind(
        "graph",
        lambda items: completed_graph(DependencySourceObj, items),
        covers=(DependencySourceObj,),
        restarts=False,
        is_twin=True,
        bad=(
            (
                lambda: DependencySourceObj(wrong(3)),
                TypeError,
                r"graph must be a DependencyGraph, got 3 \(int\)",
            ),
        ),
    ),
    SourceKind(
        "graph by priority",
        lambda items: completed_graph(PriorityDependencySourceObj, items),
        covers=(PriorityDependencySourceObj,),
        restarts=False,
        is_twin=True,
        bad=(
            (
                lambda: PriorityDependencySourceObj(DependencyGraph(), ageing=-1),
                ValueError,
                r"ageing must not be negative, got -1 \(int\)",
            ),
        ),
    ),
    SourceKind(
        "journal",
        replayed,
        covers=(PullJournalObj,),
        is_twin=True,
        bad=((lambda: PullJournalObj(wrong(3)), TypeError, r"path must be .*got 3 \(int\)"),),
    ),
    SourceKind("pausing", pausing),
    SourceKind(
        "lines",
        read_lines,
        covers=(SourceLinesObj,),
        bad=(
            (lambda: SourceLinesObj(wrong(3)), TypeError, r"path must be .*got 3 \(int\)"),
            (
                lambda: SourceLinesObj("lines", encoding="utf-99"),
                ValueError,
                "encoding must .*'utf-99'",
            ),
            (
                lambda: SourceLinesObj("lines", encoding=wrong(8)),
                TypeError,
                r"encoding must .*got 8 \(int\)",
            ),
            (
                lambda: SourceLinesObj("lines", errors="loud"),
                ValueError,
                "errors must .*'loud'",
            ),
        ),
    ),
    SourceKind(
        "zipped lines",
        lambda items: read_lines(items, zipped=True),
        covers=(SourceLinesObj,),
        is_twin=True,
    ),
    SourceKind(
        "timer",
        lambda items: PullTimerObj(0.25, count=len(items)).map(items.__getitem__),
        covers=(PullTimerObj,),
        timed=True,
        bad=(
            (lambda: PullTimerObj(-1), ValueError, r"interval must be .*got -1 \(int\)"),
            (lambda: PullTimerObj(wrong("1")), TypeError, r"interval must be .*got '1' \(str\)"),
            (lambda: PullTimerObj(1, count=-1), ValueError, "count must be .*got -1"),
        ),
    ),
    SourceKind("user class", UserSource, is_twin=True),
    SourceKind("user link", lambda items: UserLink(pausing(items))),
    SourceKind(
        "generator",
        lambda items: pausing(items).as_generator(),
        excused_by=SourceCancelledError,
        restarts=False,
        drops=False,
    ),
]


TIMED_SOURCES = [
    SourceKind("delayed", delayed),
    *[source for source in SOURCES if source.timed],
]
