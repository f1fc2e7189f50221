"""Every pull operator over every source, guarantee by guarantee; a new operator is one more row of a table.

`SOURCES` and `ROWS` are the tables. Each test runs over all of them. The last test fails if an exported class is in
neither. Attributes that can be set while a stream runs are in `SWAPS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import itertools
import json
import operator
import re
import weakref
from collections import Counter
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

import headrace
from headrace import (
    SKIP,
    CapacitySource,
    DependencyGraph,
    DependencySourceObj,
    OrderError,
    PriorityDependencySourceObj,
    PrioritySourceObj,
    PullBufferObj,
    PullCallbackObj,
    PullCatchObj,
    PullConcatObj,
    PullDedupeObj,
    PullEagerObj,
    PullFilterObj,
    PullFlatMapObj,
    PullFlattenObj,
    PullGateObj,
    PullInOrderObj,
    PullLabeledRaceObj,
    PullLabeledRaceRobinObj,
    PullLabeledRoundRobinObj,
    PullLabeledZipObj,
    PullMapObj,
    PullMapPoolObj,
    PullObj,
    PullObj1To1Link,
    PullPushBridgeObj,
    PullPushDistributeObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullReduceObj,
    PullRoundRobinObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullThrottleObj,
    PullTimeoutObj,
    PullTimerObj,
    PullWindowObj,
    PullWindowTimeoutObj,
    PullZipObj,
    PushPullBufferObj,
    SinkCollectObj,
    SinkNullObj,
    SourceBufferObj,
    SourceCacheObj,
    SourceCancelledError,
    SourceCapacityObj,
    SourceIterObj,
    SourceLinesObj,
    SourceObj,
    WaitObject,
    WrongLoopError,
)
from headrace.testing import Delay, Raise, ScriptedSource, Yields, sweep, sweep_endings
from tests.support import EXPORTED, Heart, collect, until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

    from headrace.testing import Interruption

    Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class SourceKind:
    """A kind of source."""

    name: str
    make: Callable[[list[Any]], Any]
    """Create a source of these items."""
    _: KW_ONLY
    covers: tuple[type, ...] = ()
    excused_by: type[Exception] | None = None
    """The error that a pull raises after a cancelled one, if the source may lose items."""
    restarts: bool = True
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    drops: bool = True
    """Whether a pending awaitable may be closed: its clean-up does not wait."""
    timed: bool = False
    """Whether it runs on the virtual clock only."""
    is_twin: bool = False
    """Whether it waits as another source does: sweeps try it with sync callables only."""

    def open(self, items: Iterable[Any]) -> PullObj[Any]:
        """Return a stream of these items."""
        source = self.make(list(items))
        return source if isinstance(source, PullObj) else SourceIterObj(source)


@dataclass(frozen=True)
class Row:
    """An operator in one configuration."""

    name: str
    build: Callable[[Any, Wrap], PullObj[Any]]
    """Build the operator over a source; the second argument wraps each of its callables."""
    model: Callable[[list[Any]], list[Any]]
    """The same in plain Python."""
    _: KW_ONLY
    covers: tuple[type, ...]
    identity: Callable[[PullObj[Any]], PullObj[Any]] | None = None
    """Add the operator to a stream, configured so that it changes nothing."""
    depth: int = 10_000
    """How many identities are stacked in the test of depth."""
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    """Invalid constructions, each with the type and the text of its error."""
    items: tuple[Any, ...] = (0, 1, 2, 3, 4, 5)
    is_simple: bool = True
    """Whether it has at most one callable, whose last argument is an item of the source."""
    ready: Iterable[Any] | None = None
    """Many ready items, if not `items` repeated."""
    calls: Literal["none", "exact", "at least once"] = "at least once"
    """How often an async callable is called for an item whose pull is cancelled."""
    ordered: bool = True
    restarts: Literal["always", "at rest", "never"] = "always"
    """When it can restart: an operator with running tasks cannot."""
    owns_tasks: bool = False
    """Whether it emits a `ResourceWarning` if it is dropped."""
    timed: bool = False
    """Whether it runs on the virtual clock only."""
    errors_count: bool = False
    """Whether an error of a source counts as an item in the model."""
    sources: tuple[str, ...] | None = None
    """The names of the sources to test it with, if a few represent all."""
    has_own_anext: bool = False
    """Whether its class has a user-defined `__anext__`, which cannot take back the items of a cancelled terminal."""

    def is_same(self, received: list[Any], expected: list[Any]) -> bool:
        """Return whether the items are the promised ones, in the promised order if it has one."""
        if self.ordered:
            return received == expected
        return sorted(received, key=repr) == sorted(expected, key=repr)

    def expected(self) -> list[Any]:
        return self.model(list(self.items))

    def kinds(self) -> list[CallCounter]:
        """Return the wrappers to test its callables with: sync and, if it has callables, async."""
        return (
            [CallCounter(False)]
            if self.calls == "none"
            else [CallCounter(False), CallCounter(True)]
        )


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


class Branch(PullFilterObj[Any]):
    """One of two branches, which owns the other."""

    def __init__(self, source: PullObj[Any]) -> None:
        self.other, branch = source.tee(2, maxsize=100_000)
        super().__init__(branch, lambda _: True)

    async def aclose(self) -> None:
        try:
            await self.other.aclose()
        finally:
            await super().aclose()


DIRECTORY: list[Path] = []
"""The directory for the files of this run."""


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    DIRECTORY.append(tmp_path_factory.mktemp("lines"))
    yield
    DIRECTORY.clear()


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


class Always(WaitObject[Any]):
    """A signal that is resolved whenever it is awaited."""

    def wait(self) -> Coroutine[Any, Any, Any]:
        self.resolve()
        return super().wait()


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
NESTED: tuple[list[int], ...] = ([0, 1], [], [2], [3, 4, 5])


def reject_some(n: int) -> int:
    if n % 3 == 1:
        raise LookupError(n)
    return n


def catching(source: PullObj[Any], substitute: Callable[[int], Any]) -> PullObj[Any]:
    """Handle the error of every third item; let other errors through."""

    def handler(error: Exception) -> Any:
        if isinstance(error, LookupError):
            return substitute(error.args[0])
        raise error

    return PullCatchObj(source.map(reject_some), handler)


def of_last(function: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    """Return a condition on a list: the function of its last item."""
    return lambda items: function(items[-1])


def split(items: list[int]) -> list[list[int]]:
    """Split into lists that end with a multiple of three."""
    parts: list[list[int]] = [[]]
    for n in items:
        parts[-1].append(n)
        if n % 3 == 0:
            parts.append([])
    return parts if parts[-1] else parts[:-1]


def _timeout(on_timeout: Literal["raise", "skip"]) -> Row:
    return Row(
        f"timeout, {on_timeout}",
        lambda source, _: PullTimeoutObj(source, 100, on_timeout=on_timeout),
        lambda items: items,
        covers=(PullTimeoutObj,),
        identity=lambda stream: stream.timeout(100, on_timeout=on_timeout),
        depth=2_000,
        bad=(
            (lambda: PullTimeoutObj([1], -1), ValueError, r"timeout must .*got -1 \(int\)"),
            (lambda: PullTimeoutObj([1], wrong("1")), TypeError, r"timeout must .*got '1' \(str\)"),
            (
                lambda: PullTimeoutObj([1], 1, on_timeout=wrong("no")),
                ValueError,
                "on_timeout must be .*got 'no'",
            ),
        ),
        calls="none",
        restarts="at rest",
        owns_tasks=True,
    )


def _batch_timeout(timeout: float) -> Row:
    """Batches may be cut early, so only their items are compared."""
    return Row(
        f"batch with timeout, {timeout} s",
        lambda source, _: PullWindowTimeoutObj(source, 4, timeout).flatten(),
        lambda items: items,
        covers=(PullWindowTimeoutObj,),
        identity=lambda stream: stream.batch(2, timeout).flatten(),
        depth=2_000,
        bad=(
            (lambda: PullWindowTimeoutObj([1], 0, 1), ValueError, "size must be .*got 0"),
            (lambda: PullWindowTimeoutObj([1], 2, -1), ValueError, "timeout must .*got -1"),
        ),
        calls="none",
        restarts="at rest",
        owns_tasks=True,
    )


# Longer than the source it is zipped with, even where errors cost rows.
NUMBERED = range(100, 20_200)


def _merged(
    name: str,
    kind: type[PullObj[Any]],
    model: Callable[[list[Any]], list[Any]],
    others: Callable[[], list[Any]],
    *,
    identity: Callable[[PullObj[Any]], PullObj[Any]],
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = (),
    ordered: bool = True,
) -> Row:
    """Return a row for an operator over several sources; their labels, if it has any, are their numbers."""
    is_labelled = "Labeled" in kind.__name__
    repeated = [1]
    make = cast("Callable[..., PullObj[Any]]", kind)

    def combine(*sources: Any) -> PullObj[Any]:
        return make(dict(enumerate(sources))) if is_labelled else make(*sources)

    needed: list[Any] = []
    empty, second = "sources", "sources[1]"
    if kind is PullRaceCutoffObj:
        needed, empty, second = [[1]], "cutoffs", "cutoffs[0]"
    return Row(
        name,
        lambda source, _: combine(source, *others()),
        model,
        covers=(kind,),
        identity=identity,
        depth=2_000,
        bad=(
            (
                lambda: combine(*needed),
                ValueError,
                f"{kind.__name__}: {empty} must be one stream at least, got none",
            ),
            (
                lambda: combine(repeated, repeated),
                ValueError,
                re.escape(f"{second} must not be sources[0] again, [1]"),
            ),
            (
                lambda: combine([1], 7),
                TypeError,
                re.escape(second) + r" must be an iterable .*not 7 \(int\)",
            ),
            *bad,
        ),
        calls="none",
        ordered=ordered,
        restarts="at rest",
        owns_tasks=True,
        errors_count=True,
        # One is polled in place, one gets its own task, and one would be ended by a cancellation.
        sources=("list", "pausing", "generator"),
    )


def interleave(*lists: list[Any]) -> list[Any]:
    rounds = itertools.zip_longest(*lists, fillvalue=SKIP)
    return [item for items in rounds for item in items if item is not SKIP]


def with_label(label: int, items: Iterable[Any]) -> list[tuple[int, Any]]:
    return [(label, item) for item in items]


ROWS = [
    Row(
        "map",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10)),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n),
        bad=(
            (lambda: PullMapObj([1], wrong(3)), TypeError, r"transform must be .*got 3 \(int\)"),
            (lambda: PullMapObj(wrong(7), str), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "concurrent map",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10), concurrency=3),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, concurrency=2),
        depth=2_000,
        bad=(
            (
                lambda: PullMapObj([1], str, concurrency=0),
                ValueError,
                r"concurrency must be at least 1, got 0 \(int\)",
            ),
            (
                lambda: PullMapObj([1], str, concurrency=wrong(1.5)),
                TypeError,
                r"concurrency must be .*got 1.5 \(float\)",
            ),
            (
                lambda: PullMapObj([1], str, concurrency=3, window=2),
                ValueError,
                r"window must be at least concurrency \(3\), got 2",
            ),
            (
                lambda: PullMapObj([1], wrong(3), concurrency=2),
                TypeError,
                r"transform must be .*got 3 \(int\)",
            ),
        ),
        calls="exact",
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "concurrent map, unordered",
        lambda source, wrap: PullMapObj(
            source, wrap(lambda n: n * 10), concurrency=3, ordered=False
        ),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, concurrency=2, ordered=False),
        depth=2_000,
        calls="exact",
        ordered=False,
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map under a capacity",
        lambda source, wrap: PullMapPoolObj(source, wrap(lambda n: n * 10), CapacitySource(3)),
        lambda items: [n * 10 for n in items],
        covers=(PullMapPoolObj,),
        identity=lambda stream: stream.map_pool(lambda n: n, CapacitySource(2), ordered=True),
        depth=1_000,
        bad=(
            (
                lambda: PullMapPoolObj([1], wrong(3), CapacitySource(2)),
                TypeError,
                r"fn must be callable, not 3 \(int\)",
            ),
            (
                lambda: PullMapPoolObj(wrong(7), str, CapacitySource(2)),
                TypeError,
                r"source must be .*got 7 \(int\)",
            ),
            (
                lambda: PullMapPoolObj([1], str, wrong(2)),
                TypeError,
                r"capacity must be a CapacitySource, not 2",
            ),
        ),
        calls="exact",
        ordered=False,
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map under a capacity, ordered",
        lambda source, wrap: PullMapPoolObj(
            source, wrap(lambda n: n * 10), CapacitySource(3), ordered=True
        ),
        lambda items: [n * 10 for n in items],
        covers=(PullMapPoolObj,),
        calls="exact",
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map with on_cancel keep",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10), on_cancel="keep"),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, on_cancel="keep"),
        depth=2_000,
        bad=(
            (
                lambda: PullMapObj([1], str, on_cancel=wrong("drop")),
                ValueError,
                "on_cancel must be .*got 'drop'",
            ),
        ),
        calls="exact",
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map, raw",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10), raw=True),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, raw=True),
        calls="none",
    ),
    Row(
        "tap",
        lambda source, wrap: PullCallbackObj(source, wrap(lambda n: n * 10)),
        lambda items: items,
        covers=(PullCallbackObj,),
        identity=lambda stream: stream.tap(bool),
        bad=(
            (lambda: PullCallbackObj([1]), TypeError, "callbacks must be .*got none"),
            (
                lambda: PullCallbackObj([1], print, wrong(3)),
                TypeError,
                r"callbacks\[1\] must be .*got 3 \(int\)",
            ),
            (lambda: PullCallbackObj(wrong(7), print), TypeError, r"source must be .*got 7"),
        ),
    ),
    Row(
        "several callbacks",
        lambda source, wrap: PullCallbackObj(
            source, wrap(lambda n: n), unwrapped(bool), wrap(lambda n: -n)
        ),
        lambda items: items,
        covers=(PullCallbackObj,),
    ),
    Row(
        "in_order",
        lambda source, wrap: PullInOrderObj(source, wrap(lambda n: n)),
        sorted,
        covers=(PullInOrderObj,),
        identity=lambda stream: stream.in_order(lambda n: n),
        bad=(
            (lambda: PullInOrderObj([1], wrong(3)), TypeError, r"index must be .*got 3 \(int\)"),
            (
                lambda: PullInOrderObj([1], int, maxsize=0),
                ValueError,
                "maxsize must be at least 1 .*got 0",
            ),
            (
                lambda: PullInOrderObj([1], int, start=wrong("0")),
                TypeError,
                r"start must be .*got '0' \(str\)",
            ),
            (lambda: PullInOrderObj(wrong(7), int), TypeError, r"source must be .*got 7 \(int\)"),
        ),
        items=(2, 0, 1, 5, 3, 4),
        ready=range(20_000),
    ),
    Row(
        "catch",
        lambda source, wrap: catching(source, wrap(lambda n: n * 100)),
        lambda items: [n * 100 if n % 3 == 1 else n for n in items],
        covers=(PullCatchObj,),
        identity=lambda stream: stream.catch(lambda _: SKIP),
        bad=(
            (lambda: PullCatchObj([1], wrong(3)), TypeError, r"handler must be .*got 3 \(int\)"),
            (lambda: PullCatchObj(wrong(7), str), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "catch and skip",
        lambda source, wrap: catching(source, wrap(lambda _: SKIP)),
        lambda items: [n for n in items if n % 3 != 1],
        covers=(PullCatchObj,),
    ),
    Row(
        "filter",
        lambda source, wrap: PullFilterObj(source, wrap(lambda n: n % 3)),
        lambda items: [n for n in items if n % 3],
        covers=(PullFilterObj,),
        identity=lambda stream: stream.filter(lambda _: True),
        bad=(
            (lambda: PullFilterObj([1], wrong(3)), TypeError, r"predicate must be .*got 3 \(int\)"),
            (lambda: PullFilterObj(wrong(7), bool), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "accumulate",
        lambda source, wrap: PullReduceObj(source, wrap(operator.add), 100),
        lambda items: list(itertools.accumulate(items, initial=100))[1:],
        covers=(PullReduceObj,),
        identity=lambda stream: stream.accumulate(lambda _, n: n, 0),
        bad=(
            (lambda: PullReduceObj([1], wrong(3)), TypeError, r"reducer must be .*got 3 \(int\)"),
            (lambda: PullReduceObj(wrong(7), max), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "accumulate from the first item",
        lambda source, wrap: PullReduceObj(source, wrap(operator.add)),
        lambda items: list(itertools.accumulate(items)),
        covers=(PullReduceObj,),
        identity=lambda stream: stream.accumulate(lambda _, n: n),
    ),
    Row(
        "dedupe",
        lambda source, wrap: PullDedupeObj(source, key=wrap(lambda n: n // 2)),
        lambda items: list({n // 2: n for n in reversed(items)}.values())[::-1],
        covers=(PullDedupeObj,),
        identity=lambda stream: stream.dedupe(),
        bad=(
            (lambda: PullDedupeObj([1], key=wrong(3)), TypeError, r"key must be .*got 3 \(int\)"),
            (lambda: PullDedupeObj([1], maxsize=0), ValueError, r"maxsize must be .*got 0 \(int\)"),
            (
                lambda: PullDedupeObj([1], maxsize=2, consecutive=True),
                ValueError,
                "maxsize has no meaning with consecutive=True, got 2",
            ),
        ),
    ),
    Row(
        "dedupe consecutive",
        lambda source, _: PullDedupeObj(source, consecutive=True),
        lambda items: [n for n, _ in itertools.groupby(items)],
        covers=(PullDedupeObj,),
        identity=lambda stream: stream.dedupe(consecutive=True),
        items=(1, 1, 2, 1, 1, 1, 3),
        calls="none",
    ),
    Row(
        "take",
        lambda source, _: PullTakeObj(source, 4),
        lambda items: items[:4],
        covers=(PullTakeObj,),
        identity=lambda stream: stream.take(100),
        bad=(
            (lambda: PullTakeObj([1], -1), ValueError, r"size must be .*got -1 \(int\)"),
            (lambda: PullTakeObj([1], wrong(1.5)), TypeError, r"size must be .*got 1.5 \(float\)"),
        ),
        calls="none",
    ),
    Row(
        "skip",
        lambda source, _: PullSkipObj(source, 2),
        lambda items: items[2:],
        covers=(PullSkipObj,),
        identity=lambda stream: stream.skip(0),
        bad=(
            (lambda: PullSkipObj([1], -1), ValueError, r"size must be .*got -1 \(int\)"),
            (lambda: PullSkipObj([1], wrong("2")), TypeError, r"size must be .*got '2' \(str\)"),
        ),
        calls="none",
    ),
    Row(
        "take_while",
        lambda source, wrap: PullTakeWhileObj(source, wrap(lambda n: n < 4)),
        lambda items: list(itertools.takewhile(lambda n: n < 4, items)),
        covers=(PullTakeWhileObj,),
        identity=lambda stream: stream.take_while(lambda _: True),
        bad=(
            (
                lambda: PullTakeWhileObj([1], wrong(3)),
                TypeError,
                r"predicate must be .*got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "skip_while",
        lambda source, wrap: PullSkipWhileObj(source, wrap(lambda n: n < 2)),
        lambda items: list(itertools.dropwhile(lambda n: n < 2, items)),
        covers=(PullSkipWhileObj,),
        identity=lambda stream: stream.skip_while(lambda _: False),
        bad=(
            (
                lambda: PullSkipWhileObj([1], wrong(3)),
                TypeError,
                r"predicate must be .*got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "flatten",
        lambda source, _: PullFlattenObj(source),
        lambda items: list(itertools.chain.from_iterable(items)),
        covers=(PullFlattenObj,),
        identity=lambda stream: stream.map(lambda n: (n,)).flatten(),
        bad=((lambda: PullFlattenObj(wrong(3)), TypeError, r"source must be .*got 3 \(int\)"),),
        items=NESTED,
        calls="none",
    ),
    Row(
        "flatten of waiting sources",
        lambda source, _: PullFlattenObj(source.map(pausing)),
        lambda items: list(itertools.chain.from_iterable(items)),
        covers=(PullFlattenObj,),
        items=NESTED,
        calls="none",
    ),
    Row(
        "flat_map",
        lambda source, wrap: PullFlatMapObj(source, wrap(lambda n: [n] * (n % 3))),
        lambda items: [n for n in items for _ in range(n % 3)],
        covers=(PullFlatMapObj,),
        identity=lambda stream: stream.flat_map(lambda n: (n,)),
        bad=(
            (
                lambda: PullFlatMapObj([1], wrong(3)),
                TypeError,
                r"transform must be .*got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "batch",
        lambda source, _: PullWindowObj(source, 4),
        lambda items: [items[at : at + 4] for at in range(0, len(items), 4)],
        covers=(PullWindowObj,),
        identity=lambda stream: stream.batch(1).flatten(),
        bad=(
            (lambda: PullWindowObj([1], 0), ValueError, r"size must be .*got 0 \(int\)"),
            (lambda: PullWindowObj([1], wrong("2")), TypeError, r"size must be .*got '2' \(str\)"),
            (
                lambda: PullWindowObj([1], 2, partial=wrong("no")),
                ValueError,
                "partial must be .*got 'no'",
            ),
        ),
        calls="none",
    ),
    Row(
        "batch_until",
        lambda source, wrap: PullBufferObj(source, of_last(wrap(lambda n: n % 3 == 0))),
        split,
        covers=(PullBufferObj,),
        identity=lambda stream: stream.batch_until(lambda _: True).flatten(),
        bad=(
            (
                lambda: PullBufferObj([1], wrong(3)),
                TypeError,
                r"condition must be .*got 3 \(int\)",
            ),
            (
                lambda: PullBufferObj([1], bool, partial=wrong("no")),
                ValueError,
                "partial must be .*got 'no'",
            ),
        ),
    ),
    Row(
        "tee, the only branch",
        lambda source, _: source.tee(1)[0],
        lambda items: items,
        covers=(),
        identity=lambda stream: stream.tee(1)[0],
        depth=100,
        bad=(
            (lambda: SourceIterObj([1]).tee(0), ValueError, "n must be at least 1, got 0"),
            (
                lambda: SourceIterObj([1]).tee(2, maxsize=0),
                ValueError,
                "maxsize must be at least 1, got 0",
            ),
            (
                lambda: SourceIterObj([1]).tee(2, overflow=wrong("drop")),
                ValueError,
                "overflow must be .*got 'drop'",
            ),
        ),
        calls="none",
        restarts="never",
    ),
    Row(
        "tee, a branch ahead of another",
        lambda source, _: Branch(source),
        lambda items: items,
        covers=(),
        calls="none",
        restarts="never",
    ),
    Row(
        "prefetch",
        lambda source, _: PullEagerObj(source, 2),
        lambda items: items,
        covers=(PullEagerObj,),
        identity=lambda stream: stream.prefetch(),
        bad=(
            (
                lambda: PullEagerObj([1], 0),
                ValueError,
                r"buffer_size must be at least 1, got 0",
            ),
            (
                lambda: PullEagerObj([1], wrong("2")),
                TypeError,
                r"buffer_size must be .*got '2' \(str\)",
            ),
            (lambda: PullEagerObj(wrong(7)), TypeError, r"source must be .*got 7 \(int\)"),
        ),
        calls="none",
        restarts="at rest",
        owns_tasks=True,
    ),
    _timeout("raise"),
    _timeout("skip"),
    # Batches of ready items, of items within some delays, and full batches.
    _batch_timeout(0),
    _batch_timeout(0.4),
    _batch_timeout(100),
    Row(
        "throttle",
        lambda source, _: PullThrottleObj(source, 1e9, burst=100),
        lambda items: items,
        covers=(PullThrottleObj,),
        identity=lambda stream: stream.throttle(1e9, burst=100),
        bad=(
            (lambda: PullThrottleObj([1], 0), ValueError, r"rate must be .*got 0 \(int\)"),
            (lambda: PullThrottleObj([1], -1), ValueError, r"rate must be .*got -1 \(int\)"),
            (lambda: PullThrottleObj([1], 1, per=0), ValueError, r"per must be .*got 0 \(int\)"),
            (lambda: PullThrottleObj([1], 1, burst=0), ValueError, "burst must be .*got 0"),
        ),
        calls="none",
    ),
    Row(
        "throttle that waits",
        lambda source, _: PullThrottleObj(source, 2),
        lambda items: items,
        covers=(PullThrottleObj,),
        calls="none",
        timed=True,
    ),
    Row(
        "capacity",
        lambda source, _: SourceCapacityObj(source, CapacitySource(1)),
        lambda items: items,
        covers=(SourceCapacityObj,),
        bad=(
            (
                lambda: SourceCapacityObj([1], wrong(3)),
                TypeError,
                r"capacity must be a CapacitySource, got 3 \(int\)",
            ),
            (
                lambda: SourceCapacityObj([1], CapacitySource(1), cost=2),
                ValueError,
                "a cost of 2 slots can never be granted",
            ),
        ),
        calls="none",
    ),
    _merged(
        "concat",
        PullConcatObj,
        lambda items: [*items, 10, 11],
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.concat(()),
        bad=(
            (
                lambda: PullConcatObj([1], prefetch=0),
                ValueError,
                "prefetch must be at least 1 .*got 0",
            ),
            (
                lambda: PullConcatObj([1], errors=wrong("loud")),
                ValueError,
                "errors must be .*got 'loud'",
            ),
        ),
    ),
    _merged(
        "zip",
        PullZipObj,
        lambda items: list(zip(items, NUMBERED, strict=False)),
        lambda: [NUMBERED],
        identity=lambda stream: stream.zip(NUMBERED).map(operator.itemgetter(0)),
        bad=(
            (
                lambda: PullZipObj([1], [2], strict=True, longest=wrong(True)),
                ValueError,
                "strict must not be true together with longest, got True and True",
            ),
            (
                lambda: PullZipObj([1], [2], fill=0),
                ValueError,
                "fill has no meaning without longest=True, got 0",
            ),
        ),
    ),
    _merged(
        "round_robin",
        PullRoundRobinObj,
        lambda items: interleave(items, [10, 11]),
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.round_robin(()),
    ),
    _merged(
        "merge",
        PullRaceObj,
        lambda items: [*items, 10, 11],
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.merge(()),
        ordered=False,
    ),
    _merged(
        "fair merge",
        PullRaceRobinObj,
        lambda items: [*items, 10, 11],
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.merge((), fair=True),
        ordered=False,
    ),
    _merged(
        "take_until",
        PullRaceCutoffObj,
        lambda items: items,
        lambda: [pausing([])],
        identity=lambda stream: stream.take_until(()),
        bad=(
            (
                lambda: PullRaceCutoffObj([1], [2], error=wrong("end")),
                TypeError,
                r"error must be an exception or None, got 'end' \(str\)",
            ),
        ),
    ),
    _merged(
        "labelled zip",
        PullLabeledZipObj,
        lambda items: [((0, item), (1, n)) for item, n in zip(items, NUMBERED, strict=False)],
        lambda: [NUMBERED],
        identity=lambda stream: PullLabeledZipObj({"it": stream}).map(lambda row: row[0][1]),
        bad=(
            (
                lambda: PullLabeledZipObj(wrong([1])),
                TypeError,
                r"sources must be a mapping .*not \[1\] \(list\)",
            ),
        ),
    ),
    _merged(
        "labelled round_robin",
        PullLabeledRoundRobinObj,
        lambda items: interleave(with_label(0, items), with_label(1, [10, 11])),
        lambda: [pausing([10, 11])],
        identity=lambda stream: PullLabeledRoundRobinObj({"it": stream}).map(
            operator.itemgetter(1)
        ),
    ),
    _merged(
        "labelled merge",
        PullLabeledRaceObj,
        lambda items: with_label(0, items) + with_label(1, [10, 11]),
        lambda: [pausing([10, 11])],
        identity=lambda stream: PullLabeledRaceObj({"it": stream}).map(operator.itemgetter(1)),
        ordered=False,
    ),
    _merged(
        "labelled fair merge",
        PullLabeledRaceRobinObj,
        lambda items: with_label(0, items) + with_label(1, [10, 11]),
        lambda: [pausing([10, 11])],
        identity=lambda stream: PullLabeledRaceRobinObj({"it": stream}).map(operator.itemgetter(1)),
        ordered=False,
    ),
    Row(
        "user link",
        lambda source, _: UserLink(source),
        lambda items: items,
        covers=(),
        bad=((lambda: UserLink(wrong(3)), TypeError, r"source must be .*got 3 \(int\)"),),
        calls="none",
        has_own_anext=True,
    ),
    Row(
        "several operators",
        lambda source, wrap: (
            source.map(wrap(lambda n: n + 1))
            .flat_map(wrap(lambda n: [n, n]))
            .filter(wrap(lambda n: n != 3))
            .batch(3)
            .flatten()
            .accumulate(wrap(operator.add), 0)
        ),
        lambda items: list(
            itertools.accumulate(m for n in items for m in (n + 1, n + 1) if m != 3)
        ),
        covers=(),
        is_simple=False,
    ),
    Row(
        "bridge",
        lambda source, _: PullPushBridgeObj(
            source, SinkNullObj(), SinkCollectObj(), forward_close=False
        ),
        lambda items: items,
        covers=(PullPushBridgeObj,),
        bad=(
            (lambda: PullPushBridgeObj([1]), ValueError, "sinks must hold .*got none"),
            (
                lambda: PullPushBridgeObj([1], wrong(3)),
                TypeError,
                r"sinks\[0\] must be a push object, got 3 \(int\)",
            ),
            (
                lambda: PullPushBridgeObj(wrong(3), SinkNullObj()),
                TypeError,
                r"source must be .*got 3 \(int\)",
            ),
        ),
        calls="none",
    ),
    Row(
        "distributing bridge",
        lambda source, wrap: PullPushDistributeObj(
            source, [SinkNullObj(), SinkCollectObj()], wrap(lambda n: n % 2), forward_close=False
        ),
        lambda items: items,
        covers=(PullPushDistributeObj,),
        bad=(
            (
                lambda: PullPushDistributeObj([1], [], int),
                ValueError,
                "sinks must hold .*got none",
            ),
            (
                lambda: PullPushDistributeObj([1], wrong(3), int),
                TypeError,
                r"sinks must be an iterable of push objects, got 3 \(int\)",
            ),
            (
                lambda: PullPushDistributeObj([1], [SinkNullObj()], wrong(3)),
                TypeError,
                r"selector must be callable, got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "gate",
        lambda source, _: PullGateObj(source, Always()),
        lambda items: items,
        covers=(PullGateObj,),
        bad=(
            (
                lambda: PullGateObj([1], wrong(3)),
                TypeError,
                r"wait_obj must be a WaitObject, got 3 \(int\)",
            ),
        ),
        calls="none",
    ),
]


@dataclass
class CallCounter:
    """Wraps callables as sync or async ones, and counts their calls per run."""

    is_async: bool
    runs: list[Counter[Any]] = field(default_factory=list)
    _count: int = 0

    def begin(self) -> None:
        self._count = 0
        self.runs.append(Counter())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self._count += 1
        name, calls = self._count, self.runs[-1]

        def sync(*arguments: Any) -> Any:
            calls[name, *arguments] += 1
            return function(*arguments)

        async def slow(*arguments: Any) -> Any:
            result = sync(*arguments)
            await yield_to_loop(1 + arguments[-1] % 2)
            return result

        return slow if self.is_async else sync


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class OddError(BaseException):
    """An error that is no `Exception`, like the outcomes of pytest."""


class RaisingAt:
    """Wraps callables so that the call number `at` raises an error."""

    def __init__(
        self, at: int, *, is_async: bool, raises: type[BaseException] = ValueError
    ) -> None:
        self.error = raises(at)
        self.raised_for: list[Any] = []
        self._left = at
        self._is_async = is_async

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def sync(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                self.raised_for.append(arguments[-1])
                raise self.error
            return function(*arguments)

        async def slow(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            return sync(*arguments)

        return slow if self._is_async else sync


def as_params(table: list[Any]) -> list[Any]:
    return [pytest.param(entry, id=entry.name.replace(" ", "-")) for entry in table]


def holds(item: Any, part: Any) -> bool:
    """Return whether an item, which may be nested in tuples, contains this object."""
    return item is part or (isinstance(item, tuple) and any(holds(each, part) for each in item))


async def run_to_end(stream: PullObj[Any]) -> tuple[list[Any], list[BaseException]]:
    """Return the items and errors of a stream, up to its end."""
    items: list[Any] = []
    errors: list[BaseException] = []
    while True:
        try:
            items.append(await anext(stream))
        except StopAsyncIteration:
            return items, errors
        except (ValueError, OddError) as error:
            errors.append(error)


# Less than the timeout of a test, so that the sweep reports where it hangs. A run takes milliseconds.
TIMEOUT = 20.0


every_row = pytest.mark.parametrize("row", as_params([row for row in ROWS if not row.timed]))


def is_tested_with(row: Row, source: SourceKind) -> bool:
    """Return whether a row is tested with a source; of the twins it gets every third."""
    if row.timed or source.timed:
        return False
    if row.sources is not None:
        return source.name in row.sources
    twins = [other for other in SOURCES if other.is_twin]
    return not source.is_twin or (ROWS.index(row) + twins.index(source)) % 3 == 0


rows_and_sources = pytest.mark.parametrize(
    ("row", "source"),
    [
        pytest.param(row, source, id=f"{row.name}-{source.name}".replace(" ", "-"))
        for row in ROWS
        for source in SOURCES
        if is_tested_with(row, source)
    ],
)


@dataclass(frozen=True)
class Swap:
    """An attribute that is replaced while the stream runs."""

    name: str
    build: Callable[[PullObj[Any]], PullObj[Any]]
    attribute: str
    value: Any
    expected: list[Any]
    _: KW_ONLY
    pulled_before: int = 2
    """How many items are pulled before that."""
    items: Any = range(6)
    pause: float = 0
    """How long the consumer sleeps after each item."""
    timed: Literal["in", "out"] | None = None
    """Whether each item is paired with its time, before or after the operator."""


async def sleep_one(n: int) -> int:
    await asyncio.sleep(1)
    return n


SWAPS = [
    Swap(
        "transform of map",
        lambda stream: stream.map(lambda n: n * 10),
        "transform",
        lambda n: n + 100,
        [0, 10, 102, 103, 104, 105],
    ),
    Swap(
        "transform of map, raw",
        lambda stream: stream.map(lambda n: n * 10, raw=True),
        "transform",
        lambda n: n + 100,
        [0, 10, 102, 103, 104, 105],
    ),
    Swap(
        "transform of map with on_cancel keep",
        lambda stream: stream.map(lambda n: n * 10, on_cancel="keep"),
        "transform",
        lambda n: n + 100,
        [0, 10, 102, 103, 104, 105],
    ),
    Swap(
        "concurrency of map",
        lambda stream: stream.map(sleep_one, concurrency=2, window=4),
        "concurrency",
        4,
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)],
        timed="out",
    ),
    Swap(
        "predicate of filter",
        lambda stream: stream.filter(lambda n: n % 2 == 0),
        "predicate",
        lambda n: n % 2,
        [0, 2, 3, 5],
    ),
    Swap(
        "predicate of take_while",
        lambda stream: stream.take_while(lambda _: True),
        "predicate",
        lambda n: n < 4,
        [0, 1, 2, 3],
    ),
    Swap(
        "predicate of skip_while",
        lambda stream: stream.skip_while(lambda n: n < 5),
        "predicate",
        lambda n: n < 2,
        [2, 3, 4, 5],
        pulled_before=0,
    ),
    Swap(
        "reducer",
        lambda stream: stream.accumulate(operator.add),
        "reducer",
        operator.sub,
        [0, 1, -1, -4, -8, -13],
    ),
    Swap(
        "accumulator",
        lambda stream: stream.accumulate(operator.add, 0),
        "accumulator",
        100,
        [0, 1, 102, 105, 109, 114],
    ),
    Swap(
        "transform of flat_map",
        lambda stream: stream.flat_map(lambda n: [n, n]),
        "transform",
        lambda n: [n],
        [0, 0, 1, 1, 2, 3, 4, 5],
        pulled_before=3,
    ),
    Swap(
        "size of batch",
        lambda stream: stream.batch(2),
        "size",
        1,
        [[0, 1], [2], [3], [4], [5]],
        pulled_before=1,
    ),
    Swap("size of take", lambda stream: stream.take(3), "size", 5, [0, 1, 2, 3, 4]),
    Swap("size of skip", lambda stream: stream.skip(4), "size", 2, [2, 3, 4, 5], pulled_before=0),
    Swap(
        "condition",
        lambda stream: stream.batch_until(lambda items: items[-1] % 3 == 0),
        "condition",
        lambda _: True,
        [[0], [1, 2, 3], [4], [5]],
    ),
    Swap(
        "callbacks",
        lambda stream: stream.map(lambda n: [n]).tap(lambda item: item.append("a")),
        "callbacks",
        [lambda item: item.append("b"), lambda item: item.append("c")],
        [[0, "a"], [1, "a"], [2, "b", "c"], [3, "b", "c"], [4, "b", "c"], [5, "b", "c"]],
    ),
    Swap(
        "index",
        lambda stream: stream.in_order(lambda n: n),
        "index",
        lambda n: 7 - n,
        [0, 1, 5, 4, 3, 2],
    ),
    Swap(
        "handler",
        lambda stream: stream.map(reject_some).catch(lambda _: -1),
        "handler",
        lambda _: SKIP,
        [0, -1, 2, 3, 5],
    ),
    Swap(
        "buffer_size",
        lambda stream: stream.prefetch(),
        "buffer_size",
        3,
        [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2)],
        pause=1,
        timed="in",
    ),
    Swap(
        "seconds of timeout",
        lambda stream: stream.timeout(2, on_timeout="skip"),
        "seconds",
        0.5,
        [0, 1],
        items=PullTimerObj(1, count=6),
    ),
    Swap(
        "size of batch with timeout",
        lambda stream: stream.batch(2, 100),
        "size",
        3,
        [[0, 1], [2, 3, 4], [5]],
        pulled_before=1,
    ),
    Swap(
        "seconds of batch with timeout",
        lambda stream: stream.batch(10, 1.5),
        "seconds",
        0,
        [([0, 1], 2.5), ([2], 3), ([3], 4), ([4], 5), ([5], 6)],
        pulled_before=1,
        items=PullTimerObj(1, count=6),
        timed="out",
    ),
    *[
        Swap(
            f"{attribute} of throttle",
            lambda stream: stream.throttle(1),
            attribute,
            value,
            [(n, time) for n, time in enumerate(times)],
            timed="out",
        )
        for attribute, value, times in (
            ("rate", 2, [0, 1, 1.5, 2, 2.5, 3]),
            ("per", 3, [0, 1, 4, 7, 10, 13]),
            ("burst", 3, [0, 1, 1, 1, 2, 3]),
        )
    ],
]

ENTRIES: list[Row | SourceKind] = [*ROWS, *SOURCES]

every_source = pytest.mark.parametrize(
    "source", as_params([source for source in SOURCES if not source.timed])
)


TIMED_SOURCES = [
    SourceKind("delayed", delayed),
    *[source for source in SOURCES if source.timed],
]


async def _law_2(row: Row, source: SourceKind, interruptions: list[Interruption]) -> None:
    for wrap_counted in row.kinds()[: 1 if source.is_twin else 2]:

        def build(wrap_counted: CallCounter = wrap_counted) -> PullObj[Any]:
            wrap_counted.begin()
            return row.build(source.open(row.items), wrap_counted)

        await sweep(
            build,
            row.expected(),
            interruptions=interruptions,
            ordered=row.ordered,
            excused_by=source.excused_by,
            timeout=TIMEOUT,
        )
        uninterrupted = wrap_counted.runs[0]
        for calls in wrap_counted.runs if source.excused_by is None else ():
            assert calls.keys() == uninterrupted.keys()
            if wrap_counted.is_async and row.calls == "at least once":
                assert all(calls[key] >= count for key, count in uninterrupted.items())
            else:
                assert calls == uninterrupted


@every_row
async def test_law_1_nothing_is_requested_before_a_pull(row: Row) -> None:
    for kind in row.kinds():
        kind.begin()
        source = ScriptedSource(row.items)
        stream = row.build(SourceIterObj(source), kind)
        unawaited = anext(stream)
        await yield_to_loop(3)
        assert (source.opens, source.pulls, kind.runs[0].total()) == (0, 0, 0)
        unawaited.close()
        assert await anext(stream) in row.expected()
        await stream.aclose()


@rows_and_sources
async def test_law_2_cancelled_pull_loses_nothing(row: Row, source: SourceKind) -> None:
    await _law_2(row, source, ["cancel", "late", "twice", "timeout"])


@rows_and_sources
async def test_law_2_dropped_awaitable_loses_nothing(row: Row, source: SourceKind) -> None:
    if source.drops:
        await _law_2(row, source, ["drop"])


async def test_law_2_dropped_awaitable_of_generator_raises() -> None:
    await sweep(
        lambda: SourceIterObj(ScriptedSource([1, Yields(1), 2]).as_generator()),
        [1, 2],
        interruptions=["drop"],
        excused_by=SourceCancelledError,
    )


@rows_and_sources
async def test_law_3_callable_error_costs_one_item(row: Row, source: SourceKind) -> None:
    for kind in row.kinds():
        for at in itertools.count():
            reject_some = RaisingAt(at, is_async=kind.is_async)
            items, errors = await run_to_end(row.build(source.open(row.items), reject_some))
            if not reject_some.raised_for:
                break
            # The same object, with one note that names its origin.
            assert errors == [reject_some.error]
            assert len(reject_some.error.__notes__) == 1
            if row.is_simple:
                remaining = [item for item in row.items if item not in reject_some.raised_for]
                assert row.is_same(items, row.model(remaining))


@every_row
async def test_law_3_callable_base_exception_costs_one_item(row: Row) -> None:
    for kind in row.kinds():
        for at in itertools.count():
            reject_some = RaisingAt(at, is_async=kind.is_async, raises=OddError)
            items, errors = await run_to_end(row.build(SourceIterObj(row.items), reject_some))
            if not reject_some.raised_for:
                break
            assert errors == [reject_some.error]
            if row.is_simple:
                remaining = [item for item in row.items if item not in reject_some.raised_for]
                assert row.is_same(items, row.model(remaining))


class Unclosable:
    """An iterator over these items whose `aclose` raises an error."""

    def __init__(self, items: Iterable[Any], raises: type[BaseException]) -> None:
        self.closes = 0
        self._raises = raises
        self._items = iter(items)

    def __aiter__(self) -> Unclosable:
        return self

    async def __anext__(self) -> Any:
        await yield_to_loop(1)
        for item in self._items:
            return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closes += 1
        raise self._raises


@pytest.mark.parametrize("raises", [ValueError, OddError, KeyboardInterrupt])
async def test_law_4_error_of_aclose_leaves_no_source_open(
    raises: type[BaseException],
) -> None:
    outer, inner = Unclosable(range(3), raises), Unclosable(range(3), raises)
    stream = SourceIterObj(outer).flat_map(lambda _: inner)
    assert await anext(stream) == 0
    with pytest.raises(BaseException) as catching:
        await stream.aclose()
    # Within a group it would not end the program.
    kind = raises if raises is KeyboardInterrupt else BaseExceptionGroup
    assert isinstance(catching.value, kind)
    assert (inner.closes, outer.closes) == (1, 1)


@every_row
@pytest.mark.parametrize("raises", [ValueError, OddError])
async def test_law_3_source_error_costs_nothing_else(row: Row, raises: type[BaseException]) -> None:
    for at in range(len(row.items) + 1):
        for kind in row.kinds():
            kind.begin()
            error = raises(at)
            script = [*row.items[:at], Yields(1), Raise(error), *row.items[at:]]
            source = ScriptedSource(script)
            items, errors = await run_to_end(row.build(SourceIterObj(source), kind))
            expected = row.expected()
            if row.errors_count:
                outcomes_ = row.model([*row.items[:at], error, *row.items[at:]])
                expected = [item for item in outcomes_ if not holds(item, error)]
            assert row.is_same(items, expected)
            # An operator that ends early may never pull the error.
            assert errors == ([error] if source.pulls > at else [])


@rows_and_sources
async def test_law_4_and_law_5_every_ending_closes_all(row: Row, source: SourceKind) -> None:
    await _laws_4_and_5(row, source)


@pytest.mark.virtual
@pytest.mark.parametrize("row", as_params(ROWS))
async def test_law_2_law_4_and_law_10_on_the_virtual_clock(row: Row) -> None:
    for source in TIMED_SOURCES:
        await _law_2(row, source, ["cancel", "late", "twice", "timeout"])
        await _laws_4_and_5(row, source)


async def _laws_4_and_5(row: Row, source: SourceKind) -> None:
    for wrap_counted in row.kinds()[: 1 if source.is_twin else 2]:

        def build(wrap_counted: CallCounter = wrap_counted) -> PullObj[Any]:
            wrap_counted.begin()
            return row.build(source.open(row.items), wrap_counted)

        assert await sweep_endings(build, timeout=TIMEOUT) > 0


async def test_law_4_closing_again_does_nothing() -> None:
    source = ScriptedSource([1, 2])
    stream = SourceIterObj(source).map(str)
    assert await anext(stream) == "1"
    await stream.aclose()
    await stream.aclose()
    assert source.closes == 1


async def test_law_4_cancelled_aclose_closes_other_sources() -> None:
    inner, outer = ScriptedSource([1, 2], closing=3), ScriptedSource([0], closing=3)
    stream = SourceIterObj(outer).flat_map(lambda _: inner)
    assert await anext(stream) == 1
    closing = asyncio.create_task(stream.aclose())
    await yield_to_loop(2)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (inner.closes, inner.closed, outer.closes, outer.closed) == (1, 0, 1, 1)


@every_row
async def test_law_5_dropped_stream_leaves_nothing(row: Row) -> None:
    streams = [
        row.build(source.open(row.items), unwrapped) for source in SOURCES if not source.timed
    ]
    for stream in streams:
        await anext(stream)
        del stream
    references = [weakref.ref(stream) for stream in streams]
    with pytest.warns(ResourceWarning) if row.owns_tasks else contextlib.nullcontext():
        streams.clear()
        gc.collect()
        # Tasks close the sources that they own. A dropped generator is closed by the loop, in a task.
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert [stream() for stream in references] == [None] * len(references)


@every_row
async def test_law_9_second_loop_is_refused(row: Row) -> None:
    stream = row.build(SourceIterObj(row.items), unwrapped)
    received = [await anext(stream)]

    async def in_other_loop() -> Any:
        return await anext(stream)

    with pytest.raises(WrongLoopError):
        await asyncio.to_thread(lambda: asyncio.run(in_other_loop()))
    assert row.is_same(received + await collect(stream), row.expected())


@rows_and_sources
async def test_law_11_iteration_continues_ends_and_restarts(row: Row, source: SourceKind) -> None:
    for kind in row.kinds():
        kind.begin()
        expected = row.expected()
        stream = row.build(source.open(row.items), kind)
        assert aiter(stream) is stream
        received: list[Any] = []
        async for item in stream:
            received.append(item)
            if len(received) == 2:
                break
        received += await collect(stream)
        assert row.is_same(received, expected)
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        if row.restarts == "never":
            with pytest.raises(RuntimeError, match="cannot restart"):
                stream.restart()
        elif source.restarts:
            stream.restart()
            assert row.is_same(await collect(stream), expected)
            stream.restart()
            assert await anext(stream) in expected
            if row.restarts == "always":
                stream.restart()
                assert row.is_same(await collect(stream), expected)
        await stream.aclose()
    # A generator that was replaced by a restart is closed by the loop, in a task.
    await yield_to_loop(4)


# A pull that first yields to the event loop would be queued later.
@pytest.mark.usefixtures("large_budget")
@rows_and_sources
async def test_law_12_concurrent_pulls_are_served_in_order(row: Row, source: SourceKind) -> None:
    to_cancel = [None, 0, 2, 4] if source.excused_by is None else [None]
    for kind, cancelled in itertools.product(row.kinds(), to_cancel):
        kind.begin()
        stream = row.build(source.open(row.items), kind)
        pulls = [asyncio.ensure_future(_next(stream)) for _ in range(5)]
        if cancelled is not None:
            pulls[cancelled].cancel()
        results = await asyncio.gather(*pulls, return_exceptions=True)
        expected = [*row.expected(), *[None] * 5]
        if cancelled is not None and isinstance(results[cancelled], asyncio.CancelledError):
            del results[cancelled]
        if row.ordered:
            assert results == expected[: len(results)]
        rest = await collect(stream)
        assert row.is_same([item for item in results if item is not None] + rest, row.expected())
        await stream.aclose()


async def _next(stream: PullObj[Any]) -> Any:
    return (await stream.next()).value


@pytest.mark.virtual
@pytest.mark.parametrize("swap", as_params(SWAPS))
async def test_law_13_new_value_applies_to_next_item(swap: Swap) -> None:
    def timed(item: Any) -> Any:
        return item, asyncio.get_running_loop().time()

    source = SourceIterObj(swap.items).filter(lambda _: True)
    stream = swap.build(source.map(timed) if swap.timed == "in" else source)
    pipeline = stream.map(timed) if swap.timed == "out" else stream.filter(lambda _: True)
    received: list[Any] = []
    while True:
        if len(received) == swap.pulled_before:
            setattr(stream, swap.attribute, swap.value)
        if (result := await pipeline.next()).done:
            break
        received.append(result.value)
        await asyncio.sleep(swap.pause)
    assert received == swap.expected


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        pytest.param(*bad, id=f"{row.name}-{number}".replace(" ", "-"))
        for row in ENTRIES
        for number, bad in enumerate(row.bad)
    ],
)
def test_law_14_error_names_parameter_and_value(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


@every_row
async def test_law_16_ready_stream_yields_to_event_loop(row: Row) -> None:
    pulled = 0

    def endless() -> Iterator[Any]:
        nonlocal pulled
        for item in itertools.islice(row.ready or itertools.cycle(row.items), 20_000):
            pulled += 1
            yield item

    async with Heart() as heart:
        await collect(row.build(SourceIterObj(endless()), unwrapped))
    assert heart.beats >= pulled // 4096


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("row", as_params([row for row in ROWS if row.identity is not None]))
async def test_law_17_deep_pipeline_runs_and_closes(row: Row) -> None:
    assert row.identity is not None
    stream: PullObj[Any] = SourceIterObj(range(3))
    for _ in range(row.depth):
        stream = row.identity(stream)
    assert await anext(stream) == 0
    assert await collect(stream) == [1, 2]
    await stream.aclose()


@dataclass
class TerminalStream:
    """The items that a terminal received, as a stream; a cancelled terminal is started again."""

    stream: PullObj[Any]
    terminal: str
    wrap_counted: CallCounter

    def __post_init__(self) -> None:
        self.received_items: list[Any] = []
        self.is_finished = False
        self.counted = self.stream.tap(self.received_items.append)

    async def __anext__(self) -> Any:
        if not self.is_finished:
            await self.run()
            self.is_finished = True
        if not self.received_items:
            raise StopAsyncIteration
        return self.received_items.pop(0)

    def __aiter__(self) -> TerminalStream:
        return self

    async def run(self) -> None:
        match self.terminal:
            case "collect":
                self.received_items += await self.stream.collect()
            case "count":
                await self.counted.count()
            case "for_each":
                await self.stream.for_each(self.record)
            case "reduce":
                await self.stream.reduce(self.record, None)
            case _:
                while (item := await self.stream.first(self)) is not self:
                    self.received_items.append(item)

    async def record(self, *arguments: Any) -> None:
        if self.wrap_counted.is_async:
            await yield_to_loop(2)
        self.received_items.append(arguments[-1])

    async def aclose(self) -> None:
        await self.counted.aclose()


@pytest.mark.parametrize("terminal", ["collect", "count", "first", "for_each", "reduce"])
@every_source
async def test_law_2_cancelled_terminal_loses_nothing(terminal: str, source: SourceKind) -> None:
    for wrap_counted in (CallCounter(False), CallCounter(True)):

        def build(wrap_counted: CallCounter = wrap_counted) -> Any:
            wrap_counted.begin()
            pipeline = (
                source.open(range(6)).map(wrap_counted(lambda n: n + 1)).filter(lambda n: n != 3)
            )
            return TerminalStream(pipeline.batch(2).flatten(), terminal, wrap_counted)

        await sweep(
            build,
            [1, 2, 4, 5, 6],
            interruptions=["cancel", "late", "twice", "timeout"],
            excused_by=source.excused_by,
            timeout=TIMEOUT,
        )


@pytest.mark.parametrize(
    "row", as_params([row for row in ROWS if not (row.timed or row.has_own_anext)])
)
async def test_law_2_cancelled_collect_puts_items_back(row: Row) -> None:
    for wrap_counted in row.kinds():

        def build(wrap_counted: CallCounter = wrap_counted) -> Any:
            wrap_counted.begin()
            stream = row.build(SourceIterObj(pausing(list(row.items))), wrap_counted)
            return TerminalStream(stream, "collect", wrap_counted)

        await sweep(
            build,
            row.expected(),
            interruptions=["cancel", "timeout"],
            ordered=row.ordered,
            timeout=TIMEOUT,
        )


@pytest.mark.parametrize(
    ("make", "kind", "message", "remaining"),
    [
        pytest.param(
            lambda: SourceIterObj([0, 2, 2, 1]).in_order(lambda n: n),
            OrderError,
            "index 2 .* was given to an item before",
            [0, 1, 2],
            id="an index that repeats",
        ),
        pytest.param(
            lambda: SourceIterObj([5, 1, 2, 0]).in_order(lambda n: n, maxsize=2),
            OrderError,
            "index 2 .* too early: 2 items wait for 0 already, and maxsize is 2",
            [0, 1, 5],
            id="an index beyond maxsize",
        ),
        pytest.param(
            lambda: SourceIterObj([1, 0, -2]).in_order(lambda n: n),
            OrderError,
            "index -2 .* below the first one, 0",
            [0, 1],
            id="an index below the first",
        ),
        pytest.param(
            lambda: SourceIterObj([1, 2]).flat_map(lambda n: wrong(n if n == 1 else [n])),
            TypeError,
            r"got 1 \(int\)\nraised by transform of PullFlatMapObj",
            [2],
            id="flat_map of a non-iterable",
        ),
        pytest.param(
            lambda: SourceIterObj([[0], wrong(1), [2]]).flatten(),
            TypeError,
            r"got 1 \(int\)\nraised by item of PullFlattenObj",
            [0, 2],
            id="flatten of a non-iterable",
        ),
        pytest.param(
            lambda: SourceIterObj([0, [1], 2]).dedupe(),
            TypeError,
            "unhashable .*\nraised by key of PullDedupeObj",
            [0, 2],
            id="dedupe of an unhashable item",
        ),
        pytest.param(
            lambda: SourceLinesObj(written(b"a\n\xff\nc\n")).map(str.strip),
            UnicodeDecodeError,
            "\nline 2 of ",
            ["a", "c"],
            id="a line that is not UTF-8",
        ),
        pytest.param(
            lambda: SourceLinesObj(DIRECTORY[0] / "vanished").map(str.strip),
            FileNotFoundError,
            "vanished",
            [],
            id="a missing file",
        ),
    ],
)
async def test_law_3_bad_item_costs_only_itself(
    make: Callable[[], PullObj[Any]], kind: type[Exception], message: str, remaining: list[Any]
) -> None:
    errors: list[Exception] = []

    def handler(error: Exception) -> Any:
        errors.append(error)
        return SKIP

    assert await make().catch(handler).collect() == remaining
    (error,) = errors
    assert isinstance(error, kind)
    assert re.search(message, "\n".join([str(error), *getattr(error, "__notes__", ())]))


def test_every_exported_class_has_a_row() -> None:
    bases = {PullObj, PullObj1To1Link, SourceObj}
    exported = {
        exported_class
        for name in EXPORTED
        if isinstance(exported_class := getattr(headrace, name), type)
        and issubclass(exported_class, PullObj)
    }
    covered = {kind for entry in ENTRIES for kind in entry.covers}
    assert exported - bases - covered == set()
