"""Every pull operator over every source, law by law: a new one is one more line in a table.

`SOURCES` and `ROWS` are the tables. Each test runs over all of them; the last one fails if an exported class is in
neither. What can be set midway stands in `SWAPS`.
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
from tests.support import EXPORTED, Heart, collect, turns, until, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

    from headrace.testing import Interruption

    Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Open:
    """A kind of source."""

    name: str
    make: Callable[[list[Any]], Any]
    """A source of these items."""
    _: KW_ONLY
    covers: tuple[type, ...] = ()
    excused_by: type[Exception] | None = None
    """What the pull after a cancelled one raises, if it may lose items."""
    restarts: bool = True
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    drops: bool = True
    """An awaitable of it may be closed while it waits: its clean-up does not wait."""
    timed: bool = False
    """Used on the virtual clock only."""
    is_twin: bool = False
    """It waits as another one does: sweeps try it with sync callables only."""

    def open(self, items: Iterable[Any]) -> PullObj[Any]:
        """A stream of these items."""
        source = self.make(list(items))
        return source if isinstance(source, PullObj) else SourceIterObj(source)


@dataclass(frozen=True)
class Row:
    """An operator, set to something."""

    name: str
    build: Callable[[Any, Wrap], PullObj[Any]]
    """The operator over a source; each callable of it goes through the second argument."""
    model: Callable[[list[Any]], list[Any]]
    """The same in plain Python."""
    _: KW_ONLY
    covers: tuple[type, ...]
    identity: Callable[[PullObj[Any]], PullObj[Any]] | None = None
    """The operator set so that it changes nothing."""
    depth: int = 10_000
    """How many of those are tried in a line."""
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    """Bad inputs, and what is said about them."""
    items: tuple[Any, ...] = (0, 1, 2, 3, 4, 5)
    is_simple: bool = True
    """It has one callable at most, whose last argument is an item of the source."""
    ready: Iterable[Any] | None = None
    """Many items that are there at once, if not `items` over and over."""
    calls: Literal["none", "exact", "at least once"] = "at least once"
    """How often an async callable is called for an item whose pull is cancelled, if it may be async."""
    ordered: bool = True
    restarts: Literal["always", "at rest", "never"] = "always"
    """When it can: an operator with tasks of its own cannot while they run."""
    owns_tasks: bool = False
    """Tells with a `ResourceWarning` if it is dropped."""
    timed: bool = False
    """Runs on the virtual clock only."""
    errors_count: bool = False
    """An error of a source has the place of an item in the model."""
    sources: tuple[str, ...] | None = None
    """The names of the sources that it meets, if some stand for all."""
    has_own_anext: bool = False
    """Its class is a user's with an `__anext__`, which takes back nothing that a terminal had."""

    def is_same(self, received: list[Any], expected: list[Any]) -> bool:
        """Whether it is what the operator promises, in its order if it has one."""
        if self.ordered:
            return received == expected
        return sorted(received, key=repr) == sorted(expected, key=repr)

    def expected(self) -> list[Any]:
        return self.model(list(self.items))

    def kinds(self) -> list[Called]:
        """The callables to try it with: sync and async ones, if it has any."""
        return [Called(False)] if self.calls == "none" else [Called(False), Called(True)]


class ByImplementation(SourceObj[Any]):
    """A user's source, whose `pull_impl` never waits."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__()
        self.items = items

    async def pull_impl(self) -> AsyncIterator[Any]:
        for item in self.items:
            yield item


def filled(items: list[Any]) -> PullObj[Any]:
    """The far end of a buffer that was filled and ended."""
    buffer: PushPullBufferObj[Any] = PushPullBufferObj()
    for item in items:
        buffer.sink.next_nowait(item)
    with contextlib.suppress(StopIteration):
        # Nobody waits, so that ending takes no turn of the loop.
        buffer.sink.return_().send(None)
    return buffer.source


def ranked(items: list[Any]) -> PullObj[Any]:
    """The same through an order of priority, in which they stand as they came."""
    source: PrioritySourceObj[Any] = PrioritySourceObj(priority=lambda _: 0)
    for item in items:
        source.sink.next_nowait(item)
    with contextlib.suppress(StopIteration):
        source.sink.return_().send(None)
    return source


def settled(kind: type[DependencySourceObj], items: list[Any]) -> PullObj[Any]:
    """A graph in which each node waits for the one before, which is completed as soon as it is pulled."""
    graph = DependencyGraph()
    graph.add_all([(n, (item,), [n - 1] if n else []) for n, item in enumerate(items)])
    source = kind(graph)

    def complete(given: tuple[Any]) -> Any:
        source.completed(given, None)
        return given[0]

    return source.map(complete)


class Through(PullObj1To1Link[Any, Any]):
    """A user's operator that changes nothing, and whose iterator is cancelled without a loss."""

    def __aiter__(self) -> Through:
        return self

    async def __anext__(self) -> Any:
        return await anext(self.source)


class Branch(PullFilterObj[Any]):
    """One of two branches, which keeps the other open."""

    def __init__(self, source: PullObj[Any]) -> None:
        self.other, branch = source.tee(2, maxsize=100_000)
        super().__init__(branch, lambda _: True)

    async def aclose(self) -> None:
        try:
            await self.other.aclose()
        finally:
            await super().aclose()


FILES: list[Path] = []
"""The folder of this run's files."""


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    FILES.append(tmp_path_factory.mktemp("lines"))
    yield
    FILES.clear()


def written(content: bytes, *, zipped: bool = False) -> Path:
    """A file with this in it."""
    if zipped:
        content = gzip.compress(content)
    path = FILES[0] / f"{hash(content):x}"
    if not path.exists():
        path.write_bytes(content)
    return path


def read(items: list[Any], *, zipped: bool = False) -> PullObj[Any]:
    """The lines of a file, one item in each."""
    lines = "".join(f"{json.dumps(item)}\n" for item in items)
    return SourceLinesObj(written(lines.encode(), zipped=zipped)).map(json.loads)


class Always(WaitObject[Any]):
    """A signal that is there whenever it is waited for."""

    def wait(self) -> Coroutine[Any, Any, Any]:
        self.resolve()
        return super().wait()


def halting(items: list[Any]) -> ScriptedSource:
    """A source that waits now and then, also before its end, and while it closes."""
    return ScriptedSource(
        [step for n, item in enumerate(items) for step in (Yields(n % 3), item)] + [Yields(1)],
        closing=1,
    )


def delayed(items: list[Any]) -> ScriptedSource:
    return ScriptedSource(
        [step for n, item in enumerate(items) for step in (Delay(n / 4), item)], closing=1
    )


SOURCES = [
    Open("list", SourceIterObj, covers=(SourceIterObj,)),
    Open(
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
    Open(
        "buffer, last in first out",
        lambda items: SourceBufferObj(reversed(items), mode="lifo"),
        covers=(SourceBufferObj,),
        restarts=False,
        is_twin=True,
    ),
    Open(
        "cache",
        lambda items: SourceIterObj(items).flat_map(SourceCacheObj),
        covers=(SourceCacheObj,),
        is_twin=True,
    ),
    Open("queue", filled, restarts=False, is_twin=True),
    Open("queue by priority", ranked, covers=(PrioritySourceObj,), restarts=False, is_twin=True),
    Open(
        "graph",
        lambda items: settled(DependencySourceObj, items),
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
    Open(
        "graph by priority",
        lambda items: settled(PriorityDependencySourceObj, items),
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
    Open("halting", halting),
    Open(
        "lines",
        read,
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
    Open(
        "zipped lines",
        lambda items: read(items, zipped=True),
        covers=(SourceLinesObj,),
        is_twin=True,
    ),
    Open(
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
    Open("own class", ByImplementation, is_twin=True),
    Open("own link", lambda items: Through(halting(items))),
    Open(
        "generator",
        lambda items: halting(items).as_generator(),
        excused_by=SourceCancelledError,
        restarts=False,
        drops=False,
    ),
]
NESTED: tuple[list[int], ...] = ([0, 1], [], [2], [3, 4, 5])


def picky(n: int) -> int:
    if n % 3 == 1:
        raise LookupError(n)
    return n


def caught(source: PullObj[Any], answer: Callable[[int], Any]) -> PullObj[Any]:
    """Every third item is answered for; other errors are let through."""

    def handler(error: Exception) -> Any:
        if isinstance(error, LookupError):
            return answer(error.args[0])
        raise error

    return PullCatchObj(source.map(picky), handler)


def of_last(function: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    """A condition on a list: that function of its last item."""
    return lambda items: function(items[-1])


def parted(items: list[int]) -> list[list[int]]:
    """Lists that end with what can be divided by three."""
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
    """A list may leave early: what is compared is what is in them."""
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


# Longer than anything that is zipped with it, also where errors cost rows.
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
    """An operator over a source and others; the labels, if it wants any, are their numbers."""
    is_labelled = "Labeled" in kind.__name__
    again = [1]
    make = cast("Callable[..., PullObj[Any]]", kind)

    def over(*sources: Any) -> PullObj[Any]:
        return make(dict(enumerate(sources))) if is_labelled else make(*sources)

    needed: list[Any] = []
    none, second = "sources", "sources[1]"
    if kind is PullRaceCutoffObj:
        needed, none, second = [[1]], "cutoffs", "cutoffs[0]"
    return Row(
        name,
        lambda source, _: over(source, *others()),
        model,
        covers=(kind,),
        identity=identity,
        depth=2_000,
        bad=(
            (
                lambda: over(*needed),
                ValueError,
                f"{kind.__name__}: {none} must be one stream at least, got none",
            ),
            (
                lambda: over(again, again),
                ValueError,
                re.escape(f"{second} must not be sources[0] again, [1]"),
            ),
            (
                lambda: over([1], 7),
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
        # What is polled in place, what gets a task of its own, and what a cancellation would end.
        sources=("list", "halting", "generator"),
    )


def in_turn(*lists: list[Any]) -> list[Any]:
    rounds = itertools.zip_longest(*lists, fillvalue=SKIP)
    return [item for items in rounds for item in items if item is not SKIP]


def labelled(label: int, items: Iterable[Any]) -> list[tuple[int, Any]]:
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
        "map side by side",
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
        "map side by side, unordered",
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
        "map that keeps",
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
            source, wrap(lambda n: n), plain(bool), wrap(lambda n: -n)
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
        lambda source, wrap: caught(source, wrap(lambda n: n * 100)),
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
        lambda source, wrap: caught(source, wrap(lambda _: SKIP)),
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
        "flatten of what waits",
        lambda source, _: PullFlattenObj(source.map(halting)),
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
        parted,
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
    # With what is there at once, with what comes within some delays, and full.
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
                "a cost of 2 slots can never be had",
            ),
        ),
        calls="none",
    ),
    _merged(
        "concat",
        PullConcatObj,
        lambda items: [*items, 10, 11],
        lambda: [halting([10, 11])],
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
        lambda items: in_turn(items, [10, 11]),
        lambda: [halting([10, 11])],
        identity=lambda stream: stream.round_robin(()),
    ),
    _merged(
        "merge",
        PullRaceObj,
        lambda items: [*items, 10, 11],
        lambda: [halting([10, 11])],
        identity=lambda stream: stream.merge(()),
        ordered=False,
    ),
    _merged(
        "fair merge",
        PullRaceRobinObj,
        lambda items: [*items, 10, 11],
        lambda: [halting([10, 11])],
        identity=lambda stream: stream.merge((), fair=True),
        ordered=False,
    ),
    _merged(
        "take_until",
        PullRaceCutoffObj,
        lambda items: items,
        lambda: [halting([])],
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
        lambda items: in_turn(labelled(0, items), labelled(1, [10, 11])),
        lambda: [halting([10, 11])],
        identity=lambda stream: PullLabeledRoundRobinObj({"it": stream}).map(
            operator.itemgetter(1)
        ),
    ),
    _merged(
        "labelled merge",
        PullLabeledRaceObj,
        lambda items: labelled(0, items) + labelled(1, [10, 11]),
        lambda: [halting([10, 11])],
        identity=lambda stream: PullLabeledRaceObj({"it": stream}).map(operator.itemgetter(1)),
        ordered=False,
    ),
    _merged(
        "labelled fair merge",
        PullLabeledRaceRobinObj,
        lambda items: labelled(0, items) + labelled(1, [10, 11]),
        lambda: [halting([10, 11])],
        identity=lambda stream: PullLabeledRaceRobinObj({"it": stream}).map(operator.itemgetter(1)),
        ordered=False,
    ),
    Row(
        "own link",
        lambda source, _: Through(source),
        lambda items: items,
        covers=(),
        bad=((lambda: Through(wrong(3)), TypeError, r"source must be .*got 3 \(int\)"),),
        calls="none",
        has_own_anext=True,
    ),
    Row(
        "a line of several",
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
        "bridge that distributes",
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
class Called:
    """Makes callables of a kind, and counts how often each is called with what, run by run."""

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
            await turns(1 + arguments[-1] % 2)
            return result

        return slow if self.is_async else sync


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class OddError(BaseException):
    """An error that is no `Exception`, as the outcomes of pytest are."""


class Picky:
    """Makes callables of which one raises an error, at one call."""

    def __init__(
        self, at: int, *, is_async: bool, raises: type[BaseException] = ValueError
    ) -> None:
        self.error = raises(at)
        self.refused: list[Any] = []
        self._left = at
        self._is_async = is_async

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def sync(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                self.refused.append(arguments[-1])
                raise self.error
            return function(*arguments)

        async def slow(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            return sync(*arguments)

        return slow if self._is_async else sync


def named(table: list[Any]) -> list[Any]:
    return [pytest.param(entry, id=entry.name.replace(" ", "-")) for entry in table]


def holds(item: Any, part: Any) -> bool:
    """Whether this is a part of an item that may be made of tuples."""
    return item is part or (isinstance(item, tuple) and any(holds(each, part) for each in item))


async def outcomes(stream: PullObj[Any]) -> tuple[list[Any], list[BaseException]]:
    """What a stream gives, and what it raises, to its end."""
    items: list[Any] = []
    errors: list[BaseException] = []
    while True:
        try:
            items.append(await anext(stream))
        except StopAsyncIteration:
            return items, errors
        except (ValueError, OddError) as error:
            errors.append(error)


# Of a run, which takes milliseconds: less than a test has, so that it is the sweep that says where it hangs.
PATIENCE = 20.0


every_row = pytest.mark.parametrize("row", named([row for row in ROWS if not row.timed]))


def meets(row: Row, source: Open) -> bool:
    """Whether a row is tried with a source. Of those that are alike it meets every third."""
    if row.timed or source.timed:
        return False
    if row.sources is not None:
        return source.name in row.sources
    alike = [other for other in SOURCES if other.is_twin]
    return not source.is_twin or (ROWS.index(row) + alike.index(source)) % 3 == 0


rows_and_sources = pytest.mark.parametrize(
    ("row", "source"),
    [
        pytest.param(row, source, id=f"{row.name}-{source.name}".replace(" ", "-"))
        for row in ROWS
        for source in SOURCES
        if meets(row, source)
    ],
)


@dataclass(frozen=True)
class Swap:
    """An operator that is set to something else midway."""

    name: str
    build: Callable[[PullObj[Any]], PullObj[Any]]
    attribute: str
    value: Any
    expected: list[Any]
    _: KW_ONLY
    taken: int = 2
    """How many items are pulled before."""
    items: Any = range(6)
    pause: float = 0
    """For how long the consumer rests after each item."""
    timed: Literal["in", "out"] | None = None
    """Where each item gets a time beside it, if that matters."""


async def resting(n: int) -> int:
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
        "transform of map that keeps",
        lambda stream: stream.map(lambda n: n * 10, on_cancel="keep"),
        "transform",
        lambda n: n + 100,
        [0, 10, 102, 103, 104, 105],
    ),
    Swap(
        "concurrency of map",
        lambda stream: stream.map(resting, concurrency=2, window=4),
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
        taken=0,
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
        taken=3,
    ),
    Swap(
        "size of window",
        lambda stream: stream.batch(2),
        "size",
        1,
        [[0, 1], [2], [3], [4], [5]],
        taken=1,
    ),
    Swap("size of take", lambda stream: stream.take(3), "size", 5, [0, 1, 2, 3, 4]),
    Swap("size of skip", lambda stream: stream.skip(4), "size", 2, [2, 3, 4, 5], taken=0),
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
        lambda stream: stream.map(picky).catch(lambda _: -1),
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
        taken=1,
    ),
    Swap(
        "seconds of batch with timeout",
        lambda stream: stream.batch(10, 1.5),
        "seconds",
        0,
        [([0, 1], 2.5), ([2], 3), ([3], 4), ([4], 5), ([5], 6)],
        taken=1,
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

ENTRIES: list[Row | Open] = [*ROWS, *SOURCES]

every_source = pytest.mark.parametrize(
    "source", named([source for source in SOURCES if not source.timed])
)


TIMED_SOURCES = [
    Open("delayed", delayed),
    *[source for source in SOURCES if source.timed],
]


async def _law_2(row: Row, source: Open, interruptions: list[Interruption]) -> None:
    for called in row.kinds()[: 1 if source.is_twin else 2]:

        def build(called: Called = called) -> PullObj[Any]:
            called.begin()
            return row.build(source.open(row.items), called)

        await sweep(
            build,
            row.expected(),
            interruptions=interruptions,
            ordered=row.ordered,
            excused_by=source.excused_by,
            timeout=PATIENCE,
        )
        alone = called.runs[0]
        for calls in called.runs if source.excused_by is None else ():
            assert calls.keys() == alone.keys()
            if called.is_async and row.calls == "at least once":
                assert all(calls[key] >= count for key, count in alone.items())
            else:
                assert calls == alone


@every_row
async def test_law_1_nothing_is_asked_for_before_a_pull(row: Row) -> None:
    for kind in row.kinds():
        kind.begin()
        source = ScriptedSource(row.items)
        stream = row.build(SourceIterObj(source), kind)
        never = anext(stream)
        await turns(3)
        assert (source.opens, source.pulls, kind.runs[0].total()) == (0, 0, 0)
        never.close()
        assert await anext(stream) in row.expected()
        await stream.aclose()


@rows_and_sources
async def test_law_2_cancelled_anywhere_nothing_is_lost_or_repeated(row: Row, source: Open) -> None:
    await _law_2(row, source, ["cancel", "late", "twice", "timeout"])


@rows_and_sources
async def test_law_2_an_awaitable_dropped_anywhere_loses_nothing(row: Row, source: Open) -> None:
    if source.drops:
        await _law_2(row, source, ["drop"])


async def test_law_2_a_generator_whose_awaitable_was_dropped_says_so() -> None:
    await sweep(
        lambda: SourceIterObj(ScriptedSource([1, Yields(1), 2]).as_generator()),
        [1, 2],
        interruptions=["drop"],
        excused_by=SourceCancelledError,
    )


@rows_and_sources
async def test_law_3_an_error_of_a_callable_costs_one_item(row: Row, source: Open) -> None:
    for kind in row.kinds():
        for at in itertools.count():
            picky = Picky(at, is_async=kind.is_async)
            items, errors = await outcomes(row.build(source.open(row.items), picky))
            if not picky.refused:
                break
            # Law 3: the same object, with one note that says where it comes from.
            assert errors == [picky.error]
            assert len(picky.error.__notes__) == 1
            if row.is_simple:
                left = [item for item in row.items if item not in picky.refused]
                assert row.is_same(items, row.model(left))


@every_row
async def test_law_3_an_odd_error_of_a_callable_costs_one_item(row: Row) -> None:
    for kind in row.kinds():
        for at in itertools.count():
            picky = Picky(at, is_async=kind.is_async, raises=OddError)
            items, errors = await outcomes(row.build(SourceIterObj(row.items), picky))
            if not picky.refused:
                break
            assert errors == [picky.error]
            if row.is_simple:
                left = [item for item in row.items if item not in picky.refused]
                assert row.is_same(items, row.model(left))


class Unclosable:
    """An iterator over these items whose closing raises an error."""

    def __init__(self, items: Iterable[Any], raises: type[BaseException]) -> None:
        self.closes = 0
        self._raises = raises
        self._items = iter(items)

    def __aiter__(self) -> Unclosable:
        return self

    async def __anext__(self) -> Any:
        await turns(1)
        for item in self._items:
            return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closes += 1
        raise self._raises


@pytest.mark.parametrize("raises", [ValueError, OddError, KeyboardInterrupt])
async def test_law_4_an_error_in_a_closing_leaves_no_source_open(
    raises: type[BaseException],
) -> None:
    outer, inner = Unclosable(range(3), raises), Unclosable(range(3), raises)
    stream = SourceIterObj(outer).flat_map(lambda _: inner)
    assert await anext(stream) == 0
    with pytest.raises(BaseException) as caught:
        await stream.aclose()
    # Inside a group it would not end the program.
    kind = raises if raises is KeyboardInterrupt else BaseExceptionGroup
    assert isinstance(caught.value, kind)
    assert (inner.closes, outer.closes) == (1, 1)


@every_row
@pytest.mark.parametrize("raises", [ValueError, OddError])
async def test_law_3_an_error_of_a_source_costs_nothing_else(
    row: Row, raises: type[BaseException]
) -> None:
    for at in range(len(row.items) + 1):
        for kind in row.kinds():
            kind.begin()
            error = raises(at)
            script = [*row.items[:at], Yields(1), Raise(error), *row.items[at:]]
            source = ScriptedSource(script)
            items, errors = await outcomes(row.build(SourceIterObj(source), kind))
            expected = row.expected()
            if row.errors_count:
                places = row.model([*row.items[:at], error, *row.items[at:]])
                expected = [item for item in places if not holds(item, error)]
            assert row.is_same(items, expected)
            # What ends early may never get there.
            assert errors == ([error] if source.pulls > at else [])


@rows_and_sources
async def test_law_4_and_law_5_however_it_ends_everything_is_closed(row: Row, source: Open) -> None:
    await _laws_4_and_5(row, source)


@pytest.mark.virtual
@pytest.mark.parametrize("row", named(ROWS))
async def test_law_2_law_4_and_law_10_hold_on_the_clock_of_the_loop(row: Row) -> None:
    for source in TIMED_SOURCES:
        await _law_2(row, source, ["cancel", "late", "twice", "timeout"])
        await _laws_4_and_5(row, source)


async def _laws_4_and_5(row: Row, source: Open) -> None:
    for called in row.kinds()[: 1 if source.is_twin else 2]:

        def build(called: Called = called) -> PullObj[Any]:
            called.begin()
            return row.build(source.open(row.items), called)

        assert await sweep_endings(build, timeout=PATIENCE) > 0


async def test_law_4_closing_again_does_nothing() -> None:
    source = ScriptedSource([1, 2])
    stream = SourceIterObj(source).map(str)
    assert await anext(stream) == "1"
    await stream.aclose()
    await stream.aclose()
    assert source.closes == 1


async def test_law_4_a_cancelled_closing_goes_on_to_the_other_sources() -> None:
    inner, outer = ScriptedSource([1, 2], closing=3), ScriptedSource([0], closing=3)
    stream = SourceIterObj(outer).flat_map(lambda _: inner)
    assert await anext(stream) == 1
    closing = asyncio.create_task(stream.aclose())
    await turns(2)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (inner.closes, inner.closed, outer.closes, outer.closed) == (1, 0, 1, 1)


@every_row
async def test_law_5_a_dropped_stream_leaves_nothing(row: Row) -> None:
    streams = [row.build(source.open(row.items), plain) for source in SOURCES if not source.timed]
    for stream in streams:
        await anext(stream)
        del stream
    dead = [weakref.ref(stream) for stream in streams]
    with pytest.warns(ResourceWarning) if row.owns_tasks else contextlib.nullcontext():
        streams.clear()
        gc.collect()
        # Tasks that own sources close them; a generator that was dropped is closed by the loop, in a task.
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert [stream() for stream in dead] == [None] * len(dead)


@every_row
async def test_law_9_a_second_loop_is_refused(row: Row) -> None:
    stream = row.build(SourceIterObj(row.items), plain)
    received = [await anext(stream)]

    async def elsewhere() -> Any:
        return await anext(stream)

    with pytest.raises(WrongLoopError):
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert row.is_same(received + await collect(stream), row.expected())


@rows_and_sources
async def test_law_11_iteration_is_honest(row: Row, source: Open) -> None:
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
    # A generator that a restart left behind is closed by the loop, in a task.
    await turns(4)


# A pull that has to let the loop turn before it has a place in line comes later.
@pytest.mark.usefixtures("unhurried")
@rows_and_sources
async def test_law_12_concurrent_pulls_are_served_in_turn(row: Row, source: Open) -> None:
    victims = [None, 0, 2, 4] if source.excused_by is None else [None]
    for kind, cancelled in itertools.product(row.kinds(), victims):
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
@pytest.mark.parametrize("swap", named(SWAPS))
async def test_law_13_a_swap_in_a_running_line_holds_from_the_next_item(swap: Swap) -> None:
    def timed(item: Any) -> Any:
        return item, asyncio.get_running_loop().time()

    source = SourceIterObj(swap.items).filter(lambda _: True)
    stream = swap.build(source.map(timed) if swap.timed == "in" else source)
    line = stream.map(timed) if swap.timed == "out" else stream.filter(lambda _: True)
    received: list[Any] = []
    while True:
        if len(received) == swap.taken:
            setattr(stream, swap.attribute, swap.value)
        if (result := await line.next()).done:
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
def test_law_14_bad_input_is_refused_by_name_and_value(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


@every_row
async def test_law_16_a_ready_stream_lets_the_loop_turn(row: Row) -> None:
    drawn = 0

    def endless() -> Iterator[Any]:
        nonlocal drawn
        for item in itertools.islice(row.ready or itertools.cycle(row.items), 20_000):
            drawn += 1
            yield item

    async with Heart() as heart:
        await collect(row.build(SourceIterObj(endless()), plain))
    assert heart.beats >= drawn // 4096


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("row", named([row for row in ROWS if row.identity is not None]))
async def test_law_17_a_deep_line_of_it_runs_and_closes(row: Row) -> None:
    assert row.identity is not None
    stream: PullObj[Any] = SourceIterObj(range(3))
    for _ in range(row.depth):
        stream = row.identity(stream)
    assert await anext(stream) == 0
    assert await collect(stream) == [1, 2]
    await stream.aclose()


@dataclass
class Finished:
    """What a terminal was given, as a stream; one that was cancelled is begun again."""

    stream: PullObj[Any]
    terminal: str
    called: Called

    def __post_init__(self) -> None:
        self.seen: list[Any] = []
        self.is_through = False
        self.counted = self.stream.tap(self.seen.append)

    async def __anext__(self) -> Any:
        if not self.is_through:
            await self.run()
            self.is_through = True
        if not self.seen:
            raise StopAsyncIteration
        return self.seen.pop(0)

    def __aiter__(self) -> Finished:
        return self

    async def run(self) -> None:
        match self.terminal:
            case "collect":
                self.seen += await self.stream.collect()
            case "count":
                await self.counted.count()
            case "for_each":
                await self.stream.for_each(self.noted)
            case "reduce":
                await self.stream.reduce(self.noted, None)
            case _:
                while (item := await self.stream.first(self)) is not self:
                    self.seen.append(item)

    async def noted(self, *arguments: Any) -> None:
        if self.called.is_async:
            await turns(2)
        self.seen.append(arguments[-1])

    async def aclose(self) -> None:
        await self.counted.aclose()


@pytest.mark.parametrize("terminal", ["collect", "count", "first", "for_each", "reduce"])
@every_source
async def test_law_2_a_terminal_cancelled_anywhere_and_begun_again_misses_nothing(
    terminal: str, source: Open
) -> None:
    for called in (Called(False), Called(True)):

        def build(called: Called = called) -> Any:
            called.begin()
            line = source.open(range(6)).map(called(lambda n: n + 1)).filter(lambda n: n != 3)
            return Finished(line.batch(2).flatten(), terminal, called)

        await sweep(
            build,
            [1, 2, 4, 5, 6],
            interruptions=["cancel", "late", "twice", "timeout"],
            excused_by=source.excused_by,
            timeout=PATIENCE,
        )


@pytest.mark.parametrize(
    "row", named([row for row in ROWS if not (row.timed or row.has_own_anext)])
)
async def test_law_2_a_cancelled_collect_of_it_hands_back(row: Row) -> None:
    for called in row.kinds():

        def build(called: Called = called) -> Any:
            called.begin()
            stream = row.build(SourceIterObj(halting(list(row.items))), called)
            return Finished(stream, "collect", called)

        await sweep(
            build,
            row.expected(),
            interruptions=["cancel", "timeout"],
            ordered=row.ordered,
            timeout=PATIENCE,
        )


@pytest.mark.parametrize(
    ("make", "kind", "message", "left"),
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
            id="an index beyond what is held",
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
            id="flat_map of what is no iterable",
        ),
        pytest.param(
            lambda: SourceIterObj([[0], wrong(1), [2]]).flatten(),
            TypeError,
            r"got 1 \(int\)\nraised by item of PullFlattenObj",
            [0, 2],
            id="flatten of what is no iterable",
        ),
        pytest.param(
            lambda: SourceIterObj([0, [1], 2]).dedupe(),
            TypeError,
            "unhashable .*\nraised by key of PullDedupeObj",
            [0, 2],
            id="dedupe of what has no hash",
        ),
        pytest.param(
            lambda: SourceLinesObj(written(b"a\n\xff\nc\n")).map(str.strip),
            UnicodeDecodeError,
            "\nline 2 of ",
            ["a", "c"],
            id="a line that is no UTF-8",
        ),
        pytest.param(
            lambda: SourceLinesObj(FILES[0] / "vanished").map(str.strip),
            FileNotFoundError,
            "vanished",
            [],
            id="a file that vanished",
        ),
    ],
)
async def test_law_3_bad_input_at_a_pull_is_named_and_costs_nothing_else(
    make: Callable[[], PullObj[Any]], kind: type[Exception], message: str, left: list[Any]
) -> None:
    errors: list[Exception] = []

    def handler(error: Exception) -> Any:
        errors.append(error)
        return SKIP

    assert await make().catch(handler).collect() == left
    (error,) = errors
    assert isinstance(error, kind)
    assert re.search(message, "\n".join([str(error), *getattr(error, "__notes__", ())]))


def test_every_exported_class_has_a_row() -> None:
    bases = {PullObj, PullObj1To1Link, SourceObj}
    exported = {
        thing
        for name in EXPORTED
        if isinstance(thing := getattr(headrace, name), type) and issubclass(thing, PullObj)
    }
    covered = {kind for entry in ENTRIES for kind in entry.covers}
    assert exported - bases - covered == set()
