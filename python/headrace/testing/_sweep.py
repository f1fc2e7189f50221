"""Interrupt a stream at each of its suspension points, and check its guarantees. Tests call `sweep` and `sweep_endings`.

A place is a suspension: the moment at which a pull passes a future to its task, or yields to the event loop. A sweep counts
the suspensions, and runs a new stream for each: place 0 is interrupted in the first run, place 1 in the second, until a run
ends before its place is reached. Nothing depends on real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, get_args

from headrace._internal.reprs import describe_value
from headrace.errors import ClosedError
from headrace.testing.fault_injection import (
    SHOWN,
    Injection,
    Interrupted,
    MisfitError,
    Results,
    as_coroutine,
    check_case,
    check_names,
    check_uninterrupted,
    try_everywhere,
    wait_or_cancel,
)
from headrace.testing.scripted_source import WATCH, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace.pull.base import PullObj

T = TypeVar("T")

Interruption = Literal["cancel", "late", "twice", "timeout", "drop"]
"""How a pull can be interrupted; see `sweep`."""
INTERRUPTIONS: Final[tuple[Interruption, ...]] = get_args(Interruption)

Ending = Literal["break", "error", "cancel", "twice", "close"]
"""How a stream can be ended before its end; see `sweep_endings`."""
ENDINGS: Final[tuple[Ending, ...]] = get_args(Ending)


async def sweep(
    build: Callable[[], AsyncIterator[T]],
    expected: Iterable[T],
    *,
    interruptions: Iterable[Interruption] = INTERRUPTIONS,
    ordered: bool = True,
    excused_by: type[Exception] | None = None,
    timeout: float = 60.0,
) -> int:
    """Check law 2 for a stream: a cancelled pull loses nothing and repeats nothing.

        async def test_law_2_mine() -> None:
            await sweep(lambda: Mine(ScriptedSource([1, Yields(2), 2])), [10, 20])

    For each suspension, a new stream is pulled to its end, and the pull is interrupted at that suspension. Then the same is
    done with the first attempt to pull every item. Every run must collect `expected`, and must leave no task after it is
    closed.

    The ways to interrupt a pull:

    - `"cancel"`: its task is cancelled where it waits.
    - `"late"`: its task is cancelled when the awaited result is already available.
    - `"twice"`: its task is cancelled, and cancelled again where it waits next.
    - `"timeout"`: as by `asyncio.timeout`: the cancelled task continues with the next pull.
    - `"drop"`: the awaitable is closed.

    Args:
        build: A function that creates a new stream for each run.
        expected: The items that every run must collect.
        interruptions: The ways to try.
        ordered: Whether the order is compared.
        excused_by: An error that excuses lost items, such as `SourceCancelledError`: if it is raised after an
            interruption, the output is not compared. A normal end excuses nothing.
        timeout: The seconds on the loop's clock after which a run counts as hung.

    Returns:
        The number of places tried. 0 if no pull waited, and nothing was interrupted.

    Raises:
        SweepError: A place failed, the uninterrupted stream does not yield `expected`, or it waits at more than 10,000
            places.
        TypeError: `build` is not callable or returns no async iterator, `expected` or `interruptions` is not an
            iterable, or `timeout` not a number.
        ValueError: `interruptions` is empty or has an unknown one, or `timeout` is not positive.

    Cancel safety: a cancelled sweep cancels its run, and waits for it.
    """
    check_case("sweep", "build", build, timeout)
    tried: tuple[Interruption, ...] = check_names(
        "sweep", "interruptions", interruptions, INTERRUPTIONS
    )
    if not isinstance(cast("object", expected), Iterable):
        raise TypeError(
            f"sweep: expected must be an iterable of items, got {describe_value(expected)}"
        )
    wanted = list(expected)
    results = Results()

    async def run(injection: Injection) -> str | None:
        stream = _checked_stream("sweep", build(), "__anext__", "an async iterator")
        outputs, is_excused = await _collect(stream, injection, excused_by, len(wanted))
        if is_excused or _is_same(outputs, wanted, ordered):
            return None
        return f"expected {wanted!r}, got {outputs!r}"

    await check_uninterrupted(run, timeout)
    for interruption in tried:
        for every in (False, True):
            which = "of the first try of every item" if every else "of the run"
            name = f'"{interruption}" at suspension {{}} {which}'
            injections = partial(Injection, interruption, every=every)
            await try_everywhere(injections, run, timeout, results, name)
    return results.total()


async def sweep_endings(
    build: Callable[[], PullObj[Any]],
    *,
    endings: Iterable[Ending] = ENDINGS,
    timeout: float = 60.0,
) -> int:
    """Check laws 4 and 5 for a stream: every way to end it closes everything and leaves no task.

        async def test_law_4_mine() -> None:
            await sweep_endings(lambda: Mine(ScriptedSource([1, Yields(2), 2], closing=1)))

    After each ending:

    - every `ScriptedSource` that was created by `build` or during the run has been closed or has reached its end;
    - none was closed twice, and one before its end was closed by a task that had pulled from it;
    - a pull raises `StopAsyncIteration`, and no task is left.

    A closing that waits is interrupted by the cancellation too, and the other sources must still be closed.

    The endings, for each number of items taken before:

    - `"break"`: the consumer leaves its `async with`.
    - `"error"`: the consumer raises inside its `async with`.

    And for each suspension:

    - `"cancel"`: the consumer is cancelled inside its `async with`, or while that closes.
    - `"twice"`: it is cancelled again where it waits next.
    - `"close"`: another task closes the stream while one pull is suspended and a second one waits. Both must raise
      `ClosedError`, unless an item was ready for the second one, or a thread delivered one to the first before the closing.

    Args:
        build: A function that creates a new stream for each run.
        endings: The endings to try.
        timeout: The seconds on the loop's clock after which a run counts as hung.

    Returns:
        The number of places tried.

    Raises:
        SweepError: A place failed, or there are more than 10,000.
        TypeError: `build` is not callable or returns no stream, `endings` is not an iterable, or `timeout` not a number.
        ValueError: `endings` is empty or has an unknown one, or `timeout` is not positive.

    Cancel safety: a cancelled sweep cancels its run, and waits for it.
    """
    check_case("sweep_endings", "build", build, timeout)
    tried: tuple[Ending, ...] = check_names("sweep_endings", "endings", endings, ENDINGS)
    results = Results()
    for ending in tried:

        async def run(injection: Injection, ending: Ending = ending) -> str | None:
            sources: list[ScriptedSource] = []
            WATCH.set(sources)
            stream = _checked_stream("sweep_endings", build(), "__aenter__", "a stream")
            return await _end(stream, ending, injection) or _source_fault(sources, ending)

        unit = "item" if ending in ("break", "error") else "suspension"
        injections = partial(Injection, "cancel" if ending == "close" else ending)
        await try_everywhere(injections, run, timeout, results, f'"{ending}" at {unit} {{}}')
    return results.total()


def _checked_stream(where: str, stream: T, method: str, kind: str) -> T:
    """Return the result of a build function if it has the method."""
    made: object = stream
    if hasattr(cast("object", type(stream)), method):
        return stream
    if isinstance(made, Coroutine):
        made.close()
    hint = "; wrap it in SourceIterObj(...)" if isinstance(made, AsyncIterable | Iterable) else ""
    raise MisfitError(f"{where}: build must make {kind}, it made {describe_value(stream)}{hint}")


class _OursError(Exception):
    """Raised in the body of a consumer."""


async def _collect(
    stream: AsyncIterator[T], injection: Injection, excused_by: type[Exception] | None, wanted: int
) -> tuple[list[T], bool]:
    """Return the items of a stream, and whether it raised the error that excuses lost items."""
    # A stream that repeats its items may never end.
    most = wanted + SHOWN
    outputs: list[T] = []
    excuses: tuple[type[Exception], ...] = () if excused_by is None else (excused_by,)
    is_excused = False
    try:
        injection.begin_item()
        while len(outputs) < most:
            try:
                outputs.append(await injection.pull(stream))
            except StopAsyncIteration:
                break
            except (asyncio.CancelledError, Interrupted):
                if not injection.is_fresh:
                    raise
            except excuses:
                if not injection.hits:
                    raise
                is_excused = True
            else:
                injection.begin_item()
            injection.is_fresh = False
        return outputs, is_excused
    finally:
        if (aclose := getattr(stream, "aclose", None)) is not None:
            await aclose()


async def _end(stream: PullObj[Any], ending: Ending, injection: Injection) -> str | None:
    """End a stream; return the fault, if any."""
    if ending == "close":
        fault = await _close_beside(stream, injection)
    else:
        is_body = ending in ("break", "error")
        body = _consume(stream, injection if is_body else None, fails=ending == "error")
        task = asyncio.ensure_future(as_coroutine(body if is_body else injection.through(body)))
        await wait_or_cancel(task)
        fault = _outcome_fault(task, ending if injection.hits else None)
    if fault is None and not await _is_ended(stream):
        fault = "a pull after the closing did not raise StopAsyncIteration"
    return fault


async def _consume(stream: PullObj[Any], injection: Injection | None, *, fails: bool) -> None:
    """Take items until the injection is due."""
    async with stream:
        while injection is None or not injection.is_due():
            try:
                await anext(stream)
            except StopAsyncIteration:
                return
        if fails:
            raise _OursError


async def _close_beside(stream: PullObj[Any], injection: Injection) -> str | None:
    """Pull, and close the stream in another task while one more pull waits; return the fault, if any."""
    second: list[asyncio.Task[Any]] = []
    closing: list[asyncio.Task[None]] = []
    was_pending = is_second_pending = True

    async def close() -> None:
        nonlocal was_pending, is_second_pending
        # A thread may have delivered the awaited item meanwhile, and the stream may have ended.
        was_pending = injection.is_inside
        is_second_pending = not second[0].done()
        await stream.aclose()

    def act() -> None:
        # In this order: the second pull waits before the closing starts.
        second.append(asyncio.ensure_future(as_coroutine(anext(stream))))
        closing.append(asyncio.ensure_future(close()))

    injection.act = act
    outcome = "gave its items and ended"
    try:
        while True:
            await injection.pull(stream)
            if closing:
                outcome = "gave an item"
                break
    except StopAsyncIteration:
        outcome = "raised StopAsyncIteration"
    except ClosedError:
        outcome = "raised ClosedError"
    if not closing:
        await stream.aclose()
        return None
    await asyncio.wait([*second, *closing])
    await closing[0]
    error = second[0].exception()
    if not was_pending:
        return None
    if outcome != "raised ClosedError":
        return f"the pull that was pending {outcome}, instead of raising ClosedError"
    if is_second_pending and error is not None and not isinstance(error, ClosedError):
        return f"the pull that was waiting raised {error!r} instead of ClosedError"
    return None


async def _is_ended(stream: PullObj[Any]) -> bool:
    try:
        await anext(stream)
    except StopAsyncIteration:
        return True
    return False


def _outcome_fault(task: asyncio.Task[Any], ending: Ending | None) -> str | None:
    """Return the fault in the outcome of a consumer, if any."""
    if ending in ("cancel", "twice"):
        if task.cancelled():
            return None
        return f"the cancellation was swallowed; the outcome was {task.exception()!r}"
    if task.cancelled():
        return "CancelledError was raised without a cancellation"
    error = task.exception()
    if error is None and ending != "error":
        return None
    if isinstance(error, _OursError) and ending == "error":
        return None
    return f"the outcome was {error!r}"


def _source_fault(sources: list[ScriptedSource], ending: Ending) -> str | None:
    """Return the fault in the closing of the sources, if any."""
    for source in sources:
        if source.left_open:
            return f"a source was left open: {source}"
        if source.closes > source.opens:
            return f"a source was closed more often than it was opened: {source}"
        if source.ends == source.opens:
            # It reached its end and holds nothing; a task that ran ahead of the consumer may have ended.
            continue
        if source.closed != source.closes and ending in ("break", "error"):
            return f"the closing of a source was interrupted: {source}"
        # If another task closes the stream, the task that pulled the source may have ended.
        if ending != "close" and source.pulls:
            for task in source.closed_by:
                if task not in source.pulled_by:
                    return f"a source was closed by a task that never pulled from it: {task!r}"
    return None


def _is_same(outputs: list[Any], wanted: list[Any], ordered: bool) -> bool:
    if ordered or len(outputs) != len(wanted):
        return outputs == wanted
    # Items need not be hashable or sortable.
    left = list(wanted)
    for output in outputs:
        if output not in left:
            return False
        left.remove(output)
    return True
