"""Interruptions of coroutines at a chosen suspension, and the runs in which `sweep` and `cancel_everywhere` try them."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from headrace._internal.reprs import describe_value, pluralize
from headrace._internal.validate import check_time_limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator

    Run = Callable[["Injection"], Coroutine[Any, Any, str | None]]
    """One run under an interruption; it returns a description of a fault, or None."""

T = TypeVar("T")
W = TypeVar("W")

MOST: Final = 10_000
"""The maximum number of places that a sweep tries with each interruption."""
SHOWN: Final = 10
"""The maximum number of faults that a message lists."""


class SweepError(AssertionError):
    """A stream broke a law at some places; the message names the places and the faults."""


class Interrupted(BaseException):
    """Ends the run of a pull whose awaitable was closed."""


class MisfitError(TypeError):
    """The function given to a sweep returns an object that cannot be tried, so that no place is at fault."""


class Injection:
    """One interruption, and the place where it is due: a suspension or an item, by number.

    Args:
        interruption: The kind; see `sweep`.
        at: The number of the place, from 0; -1 for no interruption.
        every: Whether the places are counted anew for every item.
    """

    def __init__(self, interruption: str, at: int, *, every: bool = False) -> None:
        self._interruption = interruption
        self._at = at
        self._every = every
        self._count = 0
        self._cancels_again = False
        self.hits: int = 0
        self.is_fresh: bool = False
        """Whether the consumer has not seen the last interruption yet."""
        self.act: Callable[[], None] | None = None
        """Called in place of the interruption."""
        self.is_inside: bool = False
        """Whether a coroutine is being driven by `through`."""

    def is_due(self) -> bool:
        """Count one suspension or item, and return whether the interruption is due there."""
        self._count += 1
        due = self._count == self._at + 1
        if due:
            self.hits += 1
            self.is_fresh = True
        return due

    def begin_item(self) -> None:
        """Note that the next pull is the first for its item."""
        if self._every:
            self._count = 0

    async def pull(self, stream: AsyncIterator[T]) -> T:
        """Pull one item, interrupted if this is the place."""
        if self.hits and not self._every:
            return await stream.__anext__()
        pull: Any = stream.__anext__()
        stepped: Awaitable[T] = self.through(
            pull if isinstance(pull, Coroutine) else as_coroutine(pull)  # pyright: ignore[reportUnknownArgumentType]
        )
        if self._interruption in ("timeout", "drop"):
            try:
                return await stepped
            finally:
                while self.is_fresh and _current().cancelling():
                    _current().uncancel()
        return await asyncio.ensure_future(as_coroutine(stepped))

    @types.coroutine
    def through(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Drive a coroutine, and interrupt it if this is the place."""
        step: Callable[[Any], Any] = coroutine.send
        sent: Any = None
        self._cancels_again = False
        self.is_inside = True
        while True:
            try:
                awaited = step(sent)
            except StopIteration as done:
                self.is_inside = False
                value: T = done.value
                return value
            except BaseException:
                self.is_inside = False
                raise
            if self._cancels_again:
                self._cancels_again = False
                _current().cancel()
            elif self.is_due():
                self._interrupt(coroutine, awaited)
            try:
                sent = yield awaited
                step = coroutine.send
            except BaseException as error:
                sent = error
                step = coroutine.throw

    def _interrupt(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        if self.act is not None:
            self.act()
        elif self._interruption == "drop":
            coroutine.close()
            raise Interrupted
        elif self._interruption == "late":
            task = _current()
            # Both run before the callback that resumes the task.
            if asyncio.isfuture(awaited):
                awaited.add_done_callback(lambda _: task.cancel())
            else:
                asyncio.get_running_loop().call_soon(task.cancel)
        else:
            self._cancels_again = self._interruption == "twice"
            _current().cancel()


def _current() -> asyncio.Task[Any]:
    return cast("asyncio.Task[Any]", asyncio.current_task())


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    """Wrap any awaitable in a coroutine."""
    return await awaitable


async def wait_or_cancel(task: asyncio.Task[Any], timeout: float | None = None) -> bool:
    """Wait for a task, and cancel it on a timeout or if the caller is cancelled; return whether it ended in time."""
    try:
        await asyncio.wait([task], timeout=timeout)
        return task.done()
    finally:
        if not task.done():
            task.cancel()
            # With the timeout: the clean-up of a task that hangs may hang too.
            await asyncio.wait([task], timeout=timeout)


async def try_once(run: Run, injection: Injection, timeout: float) -> str | None:
    """Do one run in a task of its own; return its fault, also if it hangs or leaves tasks."""
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(run(injection))
    if not await wait_or_cancel(task, timeout):
        return f"hung for {timeout} s"
    if task.cancelled():
        return "CancelledError came from nowhere"
    if (error := task.exception()) is not None:
        if isinstance(error, MisfitError):
            raise TypeError(str(error)) from None
        return f"raised {error!r}"
    if left := asyncio.all_tasks() - before:
        return f"{len(left)} task(s) left running: {left!r}"
    return task.result()


async def check_uninterrupted(run: Run, timeout: float) -> None:
    """Do one run without an interruption.

    Raises:
        SweepError: It has a fault.
    """
    if fault := await try_once(run, Injection("cancel", -1), timeout):
        raise SweepError(f"left alone: {fault}")


async def try_everywhere(
    injections: Callable[[int], Injection], run: Run, timeout: float, results: Results, name: str
) -> None:
    """Do one run for each place, until a run ends before its place is reached.

    Args:
        injections: Returns the interruption for a place.
        run: The run.
        timeout: The seconds after which a run counts as hung.
        results: Receives the places and faults.
        name: The description of a place; `{}` stands for its number.
    """
    for at in range(MOST):
        injection = injections(at)
        fault = await try_once(run, injection, timeout)
        results.runs += 1
        if fault:
            results.faults.append(f"{name.format(at)}: {fault}")
        if not injection.hits:
            return
        results.places += 1
    results.faults.append(
        f"{name.format(MOST)}: not tried, nor any behind it; {MOST} places are the most, so try something shorter"
    )


class Results:
    """The places that a sweep has tried, and the faults found there."""

    def __init__(self) -> None:
        self.places: int = 0
        self.runs: int = 0
        self.faults: list[str] = []

    def total(self) -> int:
        """Return the number of places tried.

        Raises:
            SweepError: There are faults.
        """
        faults = self.faults
        if not faults:
            return self.places
        shown = faults[:SHOWN]
        if len(faults) > len(shown):
            shown.append(f"and {len(faults) - len(shown)} more")
        lines = "\n".join(f"  {fault}" for fault in shown)
        raise SweepError(
            f"{pluralize(len(faults), 'fault')} in {pluralize(self.runs, 'run')}, "
            f"which tried {pluralize(self.places, 'place')}:\n{lines}"
        )


def check_names(
    where: str, parameter: str, given: Iterable[W], known: tuple[W, ...]
) -> tuple[W, ...]:
    """Return the interruptions or endings to try.

    Raises:
        TypeError: `given` is not an iterable.
        ValueError: One is unknown, or there is none.
    """
    names = ", ".join(map(repr, known))
    if isinstance(given, str) or not isinstance(cast("object", given), Iterable):
        raise TypeError(
            f"{where}: {parameter} must be an iterable of some of {names}, got {describe_value(given)}"
        )
    tried = tuple(given)
    if not tried:
        raise ValueError(f"{where}: {parameter} must have one of {names} at least, got none")
    if unknown := [name for name in tried if name not in known]:
        raise ValueError(f"{where}: {parameter} must be among {names}, got {unknown!r}")
    return tried


def check_case(where: str, parameter: str, make: object, timeout: object) -> None:
    """Check the function that is called for each run, and the timeout.

    Raises:
        TypeError: `make` is not callable, or `timeout` is not a number.
        ValueError: `timeout` is not positive.
    """
    if not callable(make):
        raise TypeError(
            f"{where}: {parameter} must be a function, which is called for each run, got {describe_value(make)}"
        )
    check_time_limit(f"{where}: timeout", timeout)
