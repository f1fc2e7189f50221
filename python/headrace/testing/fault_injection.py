"""One interruption, the place where it is due, and the run that it happens in."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from headrace._internal.reprs import describe_value, pluralize
from headrace._internal.validate import check_time_limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator

T = TypeVar("T")
W = TypeVar("W")

MOST: Final = 10_000
"""How many places a sweep tries at most, in each way."""
SHOWN: Final = 10
"""How many complaints a message has at most."""


class SweepError(AssertionError):
    """A stream broke a law at some places; the message says at which, and what happened there."""


class Interrupted(BaseException):
    """Ends the run of a pull whose awaitable was closed."""


class MisfitError(TypeError):
    """What a sweep was given makes nothing that can be tried, so that no place is at fault."""


class Strike:
    """One interruption to come, and the place where it is due."""

    def __init__(self, way: str, at: int, *, every: bool = False) -> None:
        self._way = way
        self._at = at
        self._every = every
        self._count = 0
        self._again = False
        self.hits: int = 0
        # What the consumer has not seen yet.
        self.is_fresh: bool = False
        self.act: Callable[[], None] | None = None
        # A pull has begun and has not come out.
        self.is_inside: bool = False

    def is_due(self) -> bool:
        """Counts one suspension, or one item."""
        self._count += 1
        due = self._count == self._at + 1
        if due:
            self.hits += 1
            self.is_fresh = True
        return due

    def begin_item(self) -> None:
        """Another item is wanted: one that is due for every item is due again."""
        if self._every:
            self._count = 0

    async def pull(self, stream: AsyncIterator[T]) -> T:
        """One pull, which is interrupted if this is the place."""
        if self.hits and not self._every:
            return await stream.__anext__()
        pull: Any = stream.__anext__()
        stepped: Awaitable[T] = self.through(
            pull if isinstance(pull, Coroutine) else whole(pull)  # pyright: ignore[reportUnknownArgumentType]
        )
        if self._way in ("timeout", "drop"):
            try:
                return await stepped
            finally:
                while self.is_fresh and _current().cancelling():
                    _current().uncancel()
        return await asyncio.ensure_future(whole(stepped))

    @types.coroutine
    def through(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Steps a coroutine, and interrupts it if this is the place."""
        step: Callable[[Any], Any] = coroutine.send
        sent: Any = None
        self._again = False
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
            if self._again:
                self._again = False
                _current().cancel()
            elif self.is_due():
                self._hit(coroutine, awaited)
            try:
                sent = yield awaited
                step = coroutine.send
            except BaseException as error:
                sent = error
                step = coroutine.throw

    def _hit(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        if self.act is not None:
            self.act()
        elif self._way == "drop":
            coroutine.close()
            raise Interrupted
        elif self._way == "late":
            task = _current()
            # Both come before what makes the task go on.
            if asyncio.isfuture(awaited):
                awaited.add_done_callback(lambda _: task.cancel())
            else:
                asyncio.get_running_loop().call_soon(task.cancel)
        else:
            self._again = self._way == "twice"
            _current().cancel()


def _current() -> asyncio.Task[Any]:
    return cast("asyncio.Task[Any]", asyncio.current_task())


async def whole(awaitable: Awaitable[T]) -> T:
    """Any awaitable as a coroutine."""
    return await awaitable


async def done(task: asyncio.Task[Any], timeout: float | None = None) -> bool:
    """Waits for a task, and cancels it if that takes too long or this one is cancelled."""
    try:
        await asyncio.wait([task], timeout=timeout)
        return task.done()
    finally:
        if not task.done():
            task.cancel()
            # Not for ever: what hangs may hang in its clean-up too.
            await asyncio.wait([task], timeout=timeout)


async def guarded(
    run: Callable[[Strike], Coroutine[Any, Any, str | None]], strike: Strike, timeout: float
) -> str | None:
    """Does one run in a task of its own, and says what is wrong, also if it hangs or leaves tasks."""
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(run(strike))
    if not await done(task, timeout):
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


async def strike_everywhere(
    strikes: Callable[[int], Strike],
    run: Callable[[Strike], Coroutine[Any, Any, str | None]],
    timeout: float,
    tally: Tally,
    name: str,
) -> None:
    """Does one run for each place, and one that finds no more.

    Args:
        strikes: The interruption at a place.
        run: One run, and what is wrong about it.
        timeout: After how many seconds it counts as hung.
        tally: Takes the result.
        name: What a place is called; `{}` stands for its number.
    """
    for at in range(MOST):
        strike = strikes(at)
        complaint = await guarded(run, strike, timeout)
        tally.runs += 1
        if complaint:
            tally.complaints.append(f"{name.format(at)}: {complaint}")
        if not strike.hits:
            return
        tally.places += 1
    tally.complaints.append(
        f"{name.format(MOST)}: not tried, nor any behind it; {MOST} places are the most, so try something shorter"
    )


class Tally:
    """What a sweep has found."""

    def __init__(self) -> None:
        self.places: int = 0
        self.runs: int = 0
        self.complaints: list[str] = []

    def total(self) -> int:
        """How many places were tried.

        Raises:
            SweepError: There is something to complain of.
        """
        complaints = self.complaints
        if not complaints:
            return self.places
        shown = complaints[:SHOWN]
        if len(complaints) > len(shown):
            shown.append(f"and {len(complaints) - len(shown)} more")
        lines = "\n".join(f"  {complaint}" for complaint in shown)
        raise SweepError(
            f"{pluralize(len(complaints), 'fault')} in {pluralize(self.runs, 'run')}, "
            f"which tried {pluralize(self.places, 'place')}:\n{lines}"
        )


def chosen(where: str, parameter: str, given: Iterable[W], known: tuple[W, ...]) -> tuple[W, ...]:
    """The ways to try, each of which there is.

    Raises:
        TypeError: It is no iterable of them.
        ValueError: One is unknown, or there is none.
    """
    names = ", ".join(map(repr, known))
    if isinstance(given, str) or not isinstance(cast("object", given), Iterable):
        raise TypeError(
            f"{where}: {parameter} must be an iterable of some of {names}, got {describe_value(given)}"
        )
    ways = tuple(given)
    if not ways:
        raise ValueError(f"{where}: {parameter} must have one of {names} at least, got none")
    if unknown := [way for way in ways if way not in known]:
        raise ValueError(f"{where}: {parameter} must be among {names}, got {unknown!r}")
    return ways


def checked_case(where: str, parameter: str, make: object, timeout: object) -> None:
    """Refuses what cannot be called to make something, and what is no time.

    Raises:
        TypeError: `make` is not callable, or `timeout` no number.
        ValueError: `timeout` is not positive.
    """
    if not callable(make):
        raise TypeError(
            f"{where}: {parameter} must be a function, which is called for each run, got {describe_value(make)}"
        )
    check_time_limit(f"{where}: timeout", timeout)
