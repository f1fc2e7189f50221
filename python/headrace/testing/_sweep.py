"""Interrupt a stream at each of its suspension points, and check its guarantees.

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
    Interrupted,
    MisfitError,
    Strike,
    SweepError,
    Tally,
    checked_case,
    chosen,
    done,
    guarded,
    strike_everywhere,
    whole,
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
        SweepError: Some place failed, the stream does not give `expected` if it is left alone, or it waits at more than
            10,000 places.
        TypeError: `build` is not callable or makes no async iterator, `expected` or `interruptions` is no iterable, or `timeout` no number.
        ValueError: `interruptions` is empty or has one that is none of these, or `timeout` is not positive.

    Cancel safety: a cancelled sweep cancels its run, and waits for it.
    """
    checked_case("sweep", "build", build, timeout)
    tried: tuple[Interruption, ...] = chosen("sweep", "interruptions", interruptions, INTERRUPTIONS)
    if not isinstance(cast("object", expected), Iterable):
        raise TypeError(
            f"sweep: expected must be an iterable of items, got {describe_value(expected)}"
        )
    wanted = list(expected)
    tally = Tally()

    async def run(strike: Strike) -> str | None:
        stream = _built("sweep", build(), "__anext__", "an async iterator")
        outputs, is_excused = await _collect(stream, strike, excused_by, len(wanted))
        if is_excused or _is_same(outputs, wanted, ordered):
            return None
        return f"expected {wanted!r}, got {outputs!r}"

    if complaint := await guarded(run, Strike("cancel", -1), timeout):
        raise SweepError(f"left alone: {complaint}")
    for way in tried:
        for every in (False, True):
            which = "of the first try of every item" if every else "of the run"
            await strike_everywhere(
                partial(Strike, way, every=every),
                run,
                timeout,
                tally,
                f'"{way}" at suspension {{}} {which}',
            )
    return tally.total()


async def sweep_endings(
    build: Callable[[], PullObj[Any]],
    *,
    endings: Iterable[Ending] = ENDINGS,
    timeout: float = 60.0,
) -> int:
    """Check laws 4 and 5 for a stream: every way to end it closes everything and leaves no task.

        async def test_law_4_mine() -> None:
            await sweep_endings(lambda: Mine(ScriptedSource([1, Yields(2), 2], closing=1)))

    When it has been ended, every `ScriptedSource` that `build` made (or that was made while it ran)
    must have been closed or have come to its end, never closed twice, and, unless it was at its end,
    closed by a task that had pulled from it; a pull must give `StopAsyncIteration`; no task may be left. A closing that waits
    is interrupted by a cancellation like any coroutine, and must not keep others from being closed.

    The endings, for each number of items taken before:

    - `"break"`: the consumer leaves its `async with`.
    - `"error"`: the consumer fails inside its `async with`.

    and for each suspension:

    - `"cancel"`: the consumer is cancelled inside its `async with`, or while that closes.
    - `"twice"`: it is cancelled again where it waits next.
    - `"close"`: another task closes the stream while one pull is suspended and a second one waits;
      both must raise `ClosedError`, unless an item was there for the second one, or came for the first one from a thread
      before the closing began.

    Args:
        build: A function that creates a new stream for each run.
        endings: The endings to try.
        timeout: The seconds on the loop's clock after which a run counts as hung.

    Returns:
        The number of places tried.

    Raises:
        SweepError: Some place failed, or there are more than 10,000.
        TypeError: `build` is not callable or makes no stream, `endings` is no iterable, or `timeout` no number.
        ValueError: `endings` is empty or has one that is none of these, or `timeout` is not positive.

    Cancel safety: a cancelled sweep cancels its run, and waits for it.
    """
    checked_case("sweep_endings", "build", build, timeout)
    tried: tuple[Ending, ...] = chosen("sweep_endings", "endings", endings, ENDINGS)
    tally = Tally()
    for ending in tried:

        async def run(strike: Strike, ending: Ending = ending) -> str | None:
            sources: list[ScriptedSource] = []
            WATCH.set(sources)
            stream = _built("sweep_endings", build(), "__aenter__", "a stream")
            return await _end(stream, ending, strike) or _of_sources(sources, ending)

        unit = "item" if ending in ("break", "error") else "suspension"
        await strike_everywhere(
            partial(Strike, "cancel" if ending == "close" else ending),
            run,
            timeout,
            tally,
            f'"{ending}" at {unit} {{}}',
        )
    return tally.total()


def _built(where: str, stream: T, method: str, what: str) -> T:
    """What a build function made, if it will do."""
    made: object = stream
    if hasattr(cast("object", type(stream)), method):
        return stream
    if isinstance(made, Coroutine):
        made.close()
    hint = "; wrap it in SourceIterObj(...)" if isinstance(made, AsyncIterable | Iterable) else ""
    raise MisfitError(f"{where}: build must make {what}, it made {describe_value(stream)}{hint}")


class _OursError(Exception):
    """Fails the body of a consumer."""


async def _collect(
    stream: AsyncIterator[T], strike: Strike, excused_by: type[Exception] | None, wanted: int
) -> tuple[list[T], bool]:
    """All that a stream gives, and whether it excused itself for losing some."""
    # What repeats its items may do so for ever.
    most = wanted + SHOWN
    outputs: list[T] = []
    excuses: tuple[type[Exception], ...] = () if excused_by is None else (excused_by,)
    is_excused = False
    try:
        strike.begin_item()
        while len(outputs) < most:
            try:
                outputs.append(await strike.pull(stream))
            except StopAsyncIteration:
                break
            except (asyncio.CancelledError, Interrupted):
                if not strike.is_fresh:
                    raise
            except excuses:
                if not strike.hits:
                    raise
                is_excused = True
            else:
                strike.begin_item()
            strike.is_fresh = False
        return outputs, is_excused
    finally:
        if (aclose := getattr(stream, "aclose", None)) is not None:
            await aclose()


async def _end(stream: PullObj[Any], ending: Ending, strike: Strike) -> str | None:
    """Ends a stream in one of the ways, and says what is wrong then."""
    if ending == "close":
        complaint = await _close_beside(stream, strike)
    else:
        is_body = ending in ("break", "error")
        body = _consume(stream, strike if is_body else None, fails=ending == "error")
        task = asyncio.ensure_future(whole(body if is_body else strike.through(body)))
        await done(task)
        complaint = _of_outcome(task, ending if strike.hits else None)
    if complaint is None and not await _is_ended(stream):
        complaint = "a pull after the closing did not raise StopAsyncIteration"
    return complaint


async def _consume(stream: PullObj[Any], strike: Strike | None, *, fails: bool) -> None:
    """Takes items, up to as many as a strike says."""
    async with stream:
        while strike is None or not strike.is_due():
            try:
                await anext(stream)
            except StopAsyncIteration:
                return
        if fails:
            raise _OursError


async def _close_beside(stream: PullObj[Any], strike: Strike) -> str | None:
    """Pulls, and has another task close the stream, with one more pull waiting."""
    second: list[asyncio.Task[Any]] = []
    closing: list[asyncio.Task[None]] = []
    was_pending = is_second_pending = True

    async def close() -> None:
        nonlocal was_pending, is_second_pending
        # What it waits for may have come in the meantime, from a thread; and the stream may have ended.
        was_pending = strike.is_inside
        is_second_pending = not second[0].done()
        await stream.aclose()

    def act() -> None:
        # In this order: the second pull has begun to wait when the closing begins.
        second.append(asyncio.ensure_future(whole(anext(stream))))
        closing.append(asyncio.ensure_future(close()))

    strike.act = act
    outcome = "gave its items and ended"
    try:
        while True:
            await strike.pull(stream)
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


def _of_outcome(task: asyncio.Task[Any], ending: Ending | None) -> str | None:
    """What is wrong about the way in which a consumer ended."""
    if ending in ("cancel", "twice"):
        if task.cancelled():
            return None
        return f"the cancellation was swallowed; the outcome was {task.exception()!r}"
    if task.cancelled():
        return "CancelledError came from nowhere"
    error = task.exception()
    if error is None and ending != "error":
        return None
    if isinstance(error, _OursError) and ending == "error":
        return None
    return f"the outcome was {error!r}"


def _of_sources(sources: list[ScriptedSource], ending: Ending) -> str | None:
    """What is wrong about the way in which the sources were closed."""
    for source in sources:
        if source.left_open:
            return f"a source was left open: {source}"
        if source.closes > source.opens:
            return f"a source was closed more often than it was opened: {source}"
        if source.ends == source.opens:
            # It ended by itself, and holds nothing: whoever ran ahead of the consumer may be gone.
            continue
        if source.closed != source.closes and ending in ("break", "error"):
            return f"the closing of a source was interrupted: {source}"
        # Where somebody else closes, the task that drove it may be gone.
        if ending != "close" and source.pulls:
            for task in source.closed_by:
                if task not in source.pulled_by:
                    return f"a source was closed by a task that never pulled from it: {task!r}"
    return None


def _is_same(outputs: list[Any], wanted: list[Any], ordered: bool) -> bool:
    if ordered or len(outputs) != len(wanted):
        return outputs == wanted
    # What is compared need be neither hashable nor sortable.
    left = list(wanted)
    for output in outputs:
        if output not in left:
            return False
        left.remove(output)
    return True
