"""Every pull operator over every source, guarantee by guarantee; a new operator is one more row of a table.

The tables are `SOURCES` in `sweep_sources.py` and the rows in `sweep_item_rows.py` and `sweep_stream_rows.py`. Each test
runs over all of them. The last test fails if an exported class is in neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    PullObj,
    PullObj1To1Link,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
    WrongLoopError,
)
from headrace.testing import Raise, ScriptedSource, Yields, sweep, sweep_endings
from tests.support import EXPORTED, Heart, collect, until, yield_to_loop
from tests.sweep_sources import SOURCES, TIMED_SOURCES
from tests.sweep_tables import (
    ENTRIES,
    ROWS,
    TIMEOUT,
    OddError,
    as_params,
    every_row,
    rows_and_sources,
)
from tests.sweep_types import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace.testing import Interruption
    from tests.sweep_types import CallCounter, Row, SourceKind

pytestmark = pytest.mark.usefixtures("sweep_files")


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
