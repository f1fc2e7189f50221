"""Every pull operator over every source, law by law: a new one is one more line in a table.

`SOURCES` and `ROWS` are the tables. Each test runs over all of them; the last one fails if an exported class is in
neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import operator
import weakref
from collections import Counter
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest

import headrace
from headrace import (
    PullDedupeObj,
    PullFilterObj,
    PullFlatMapObj,
    PullFlattenObj,
    PullGateObj,
    PullMapObj,
    PullObj,
    PullObj1To1Link,
    PullPushBridgeObj,
    PullPushDistributeObj,
    PullReduceObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullWindowObj,
    PushPullBufferObj,
    SinkCollectObj,
    SinkNullObj,
    SourceBufferObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
    WaitObject,
    WrongLoopError,
)
from headrace.testing import Delay, Raise, ScriptedSource, Turns, sweep, sweep_endings
from tests.support import collect, turns, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator

    from headrace.testing import Way

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
    ends_with_errors: bool = False
    restarts: bool = True
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    drops: bool = True
    """An awaitable of it may be closed while it waits: its clean-up does not wait."""
    timed: bool = False
    """Used on the virtual clock only."""
    is_twin: bool = False
    """It never waits, like another one: sweeps try it with sync callables only."""

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
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    """Bad inputs, and what is said about them."""
    items: tuple[Any, ...] = (0, 1, 2, 3, 4, 5)
    is_simple: bool = True
    """It has one callable at most, whose last argument is an item of the source."""
    calls: Literal["none", "exact", "at least once"] = "at least once"
    """How often an async callable is called for an item whose pull is cancelled."""
    ordered: bool = True
    owns_tasks: bool = False
    """Tells with a `ResourceWarning` if it is dropped."""
    timed: bool = False
    """Runs on the virtual clock only."""

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


class Through(PullObj1To1Link[Any, Any]):
    """A user's operator that changes nothing, and whose iterator is cancelled without a loss."""

    def __aiter__(self) -> Through:
        return self

    async def __anext__(self) -> Any:
        return await anext(self.source)


class Always(WaitObject[Any]):
    """A signal that is there whenever it is waited for."""

    def wait(self) -> Coroutine[Any, Any, Any]:
        self.resolve()
        return super().wait()


def halting(items: list[Any]) -> ScriptedSource:
    """A source that waits now and then, also before its end, and while it closes."""
    return ScriptedSource(
        [step for n, item in enumerate(items) for step in (Turns(n % 3), item)] + [Turns(1)],
        closing=1,
    )


def delayed(items: list[Any]) -> ScriptedSource:
    return ScriptedSource(
        [step for n, item in enumerate(items) for step in (Delay(n / 4), item)], closing=1
    )


SOURCES = [
    Open("list", SourceIterObj, covers=(SourceIterObj,)),
    Open("buffer", SourceBufferObj, covers=(SourceBufferObj,), restarts=False, is_twin=True),
    Open("queue", filled, restarts=False, is_twin=True),
    Open("halting", halting),
    Open("own class", ByImplementation, is_twin=True),
    Open("own link", lambda items: Through(halting(items))),
    Open(
        "generator",
        lambda items: halting(items).as_generator(),
        excused_by=SourceCancelledError,
        ends_with_errors=True,
        restarts=False,
        drops=False,
    ),
]
NESTED: tuple[list[int], ...] = ([0, 1], [], [2], [3, 4, 5])

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
        "reduce",
        lambda source, wrap: PullReduceObj(source, wrap(operator.add), 100),
        lambda items: list(itertools.accumulate(items, initial=100))[1:],
        covers=(PullReduceObj,),
        identity=lambda stream: stream.reduce(lambda _, n: n, 0),
        bad=(
            (lambda: PullReduceObj([1], wrong(3)), TypeError, r"reducer must be .*got 3 \(int\)"),
            (lambda: PullReduceObj(wrong(7), max), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "reduce from the first item",
        lambda source, wrap: PullReduceObj(source, wrap(operator.add)),
        lambda items: list(itertools.accumulate(items)),
        covers=(PullReduceObj,),
        identity=lambda stream: stream.reduce(lambda _, n: n),
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
        "window",
        lambda source, _: PullWindowObj(source, 4),
        lambda items: [items[at : at + 4] for at in range(0, len(items), 4)],
        covers=(PullWindowObj,),
        identity=lambda stream: stream.window(1).flatten(),
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
        "own link",
        lambda source, _: Through(source),
        lambda items: items,
        covers=(),
        bad=((lambda: Through(wrong(3)), TypeError, r"source must be .*got 3 \(int\)"),),
        calls="none",
    ),
    Row(
        "a line of several",
        lambda source, wrap: (
            source.map(wrap(lambda n: n + 1))
            .flat_map(wrap(lambda n: [n, n]))
            .filter(wrap(lambda n: n != 3))
            .window(3)
            .flatten()
            .reduce(wrap(operator.add), 0)
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


class Picky:
    """Makes callables of which one raises an error, at one call."""

    def __init__(self, at: int, *, is_async: bool) -> None:
        self.error = ValueError(at)
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


async def outcomes(stream: PullObj[Any]) -> tuple[list[Any], list[Exception]]:
    """What a stream gives, and what it raises, to its end."""
    items: list[Any] = []
    errors: list[Exception] = []
    while True:
        try:
            items.append(await anext(stream))
        except StopAsyncIteration:
            return items, errors
        except ValueError as error:
            errors.append(error)


# Of a run, which takes milliseconds: less than a test has, so that it is the sweep that says where it hangs.
PATIENCE = 20.0

KNOWN: dict[tuple[str, str], str] = {}
"""Faults that are known, and not mended yet, by test and row."""


def rows(test: str) -> pytest.MarkDecorator:
    """A parameter for each row, with the faults that are known of it."""
    return pytest.mark.parametrize(
        "row",
        [
            pytest.param(
                row,
                id=row.name.replace(" ", "-"),
                marks=pytest.mark.xfail(reason=fault)
                if (fault := KNOWN.get((test, row.name)))
                else (),
            )
            for row in ROWS
            if not row.timed
        ],
    )


ENTRIES: list[Row | Open] = [*ROWS, *SOURCES]

every_source = pytest.mark.parametrize(
    "source", named([source for source in SOURCES if not source.timed])
)


TIMED_SOURCES = [
    Open("delayed", delayed),
    *[source for source in SOURCES if source.timed],
]


async def _law_2(row: Row, source: Open, ways: list[Way]) -> None:
    for called in row.kinds()[: 1 if source.is_twin else 2]:

        def build(called: Called = called) -> PullObj[Any]:
            called.begin()
            return row.build(source.open(row.items), called)

        await sweep(
            build,
            row.expected(),
            ways=ways,
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


@rows("lazy")
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


@rows("cancel")
@every_source
async def test_law_2_cancelled_anywhere_nothing_is_lost_or_repeated(row: Row, source: Open) -> None:
    await _law_2(row, source, ["cancel", "late", "twice", "timeout"])


@rows("drop")
@pytest.mark.parametrize(
    "source", named([source for source in SOURCES if source.drops and not source.timed])
)
async def test_law_2_an_awaitable_dropped_anywhere_loses_nothing(row: Row, source: Open) -> None:
    await _law_2(row, source, ["drop"])


async def test_law_2_a_generator_whose_awaitable_was_dropped_says_so() -> None:
    await sweep(
        lambda: SourceIterObj(ScriptedSource([1, Turns(1), 2]).as_generator()),
        [1, 2],
        ways=["drop"],
        excused_by=SourceCancelledError,
    )


@rows("error")
@every_source
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


@rows("source error")
async def test_law_3_an_error_of_a_source_costs_nothing_else(row: Row) -> None:
    for at in range(len(row.items) + 1):
        for kind in row.kinds():
            kind.begin()
            error = ValueError(at)
            script = [*row.items[:at], Turns(1), Raise(error), *row.items[at:]]
            source = ScriptedSource(script)
            items, errors = await outcomes(row.build(SourceIterObj(source), kind))
            assert row.is_same(items, row.expected())
            # What ends early may never get there.
            assert errors == ([error] if source.pulls > at else [])


@rows("endings")
@every_source
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


@rows("drop stream")
async def test_law_5_a_dropped_stream_leaves_nothing(row: Row) -> None:
    streams = [row.build(source.open(row.items), plain) for source in SOURCES if not source.timed]
    for stream in streams:
        await anext(stream)
        del stream
    dead = [weakref.ref(stream) for stream in streams]
    with pytest.warns(ResourceWarning) if row.owns_tasks else contextlib.nullcontext():
        streams.clear()
        gc.collect()
        # A generator that was dropped is closed by the loop, in a task.
        await turns(4)
    assert [stream() for stream in dead] == [None] * len(dead)


@rows("second loop")
async def test_law_9_a_second_loop_is_refused(row: Row) -> None:
    stream = row.build(SourceIterObj(row.items), plain)
    received = [await anext(stream)]

    async def elsewhere() -> Any:
        return await anext(stream)

    with pytest.raises(WrongLoopError):
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert row.is_same(received + await collect(stream), row.expected())


@rows("restart")
@every_source
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
        if source.restarts:
            stream.restart()
            assert row.is_same(await collect(stream), expected)
            stream.restart()
            assert await anext(stream) in expected
            stream.restart()
            assert row.is_same(await collect(stream), expected)
        await stream.aclose()
    # A generator that a restart left behind is closed by the loop, in a task.
    await turns(4)


@rows("concurrent")
@every_source
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


@rows("ready")
async def test_law_16_a_ready_stream_lets_the_loop_turn(row: Row) -> None:
    drawn = beats = 0

    def endless() -> Iterator[Any]:
        nonlocal drawn
        for item in itertools.islice(itertools.cycle(row.items), 20_000):
            drawn += 1
            yield item

    async def heart() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(heart())
    await collect(row.build(SourceIterObj(endless()), plain))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert beats >= drawn // 4096


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("row", named([row for row in ROWS if row.identity is not None]))
async def test_law_17_ten_thousand_of_it_run_and_close(row: Row) -> None:
    assert row.identity is not None
    stream: PullObj[Any] = SourceIterObj(range(3))
    for _ in range(10_000):
        stream = row.identity(stream)
    assert await anext(stream) == 0
    assert await collect(stream) == [1, 2]
    await stream.aclose()


def test_every_exported_class_has_a_row() -> None:
    bases = {PullObj, PullObj1To1Link, SourceObj}
    exported = {
        thing
        for name in headrace.__all__
        if isinstance(thing := getattr(headrace, name), type) and issubclass(thing, PullObj)
    }
    covered = {kind for entry in ENTRIES for kind in entry.covers}
    assert exported - bases - covered == set()
