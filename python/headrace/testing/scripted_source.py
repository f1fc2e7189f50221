"""`ScriptedSource`: a source that follows a script and records its calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin, describe_value, format_count, format_repr, pluralize
from headrace._internal.validate import check_int, check_positive, check_seconds
from headrace.testing.marble import END, ERROR, MarbleError, frames

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


@dataclass(frozen=True)
class Step:
    """A step of a script between two items; see its subclasses."""


@dataclass(frozen=True)
class Yields(Step):
    """Wait for `count` event-loop iterations."""

    count: int = 1

    def __post_init__(self) -> None:
        check_int("Yields: count", 0, self.count)


@dataclass(frozen=True)
class Delay(Step):
    """Wait for `seconds` on the loop's clock, from the first pull of the next item."""

    seconds: float

    def __post_init__(self) -> None:
        check_seconds("Delay: seconds", self.seconds)


@dataclass(frozen=True)
class AtTime(Step):
    """Wait until `seconds` have passed on the loop's clock since the first pull of the iterator."""

    seconds: float

    def __post_init__(self) -> None:
        check_seconds("AtTime: seconds", self.seconds)


@dataclass(frozen=True)
class Forever(Step):
    """Wait until cancelled."""


@dataclass(frozen=True)
class Raise(Step):
    """Raise `error`. The script continues after it; a generator does not."""

    error: BaseException

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.error), BaseException):
            raise TypeError(f"Raise: error must be an exception, got {describe_value(self.error)}")


class ScriptedSource(ReprMixin, Uncopied):
    """An async iterable that follows a script.

        ScriptedSource([1, Yields(2), 2, Delay(0.5), Raise(OSError("disk")), 3])
        ScriptedSource("a-b--c|")

    A string is a marble diagram (see `headrace.testing.marble`). The frame of an item gives its time, counted from the
    first pull, even if the item is pulled later. `#` raises `MarbleError`.

    It is not a stream, and represents foreign iterables: `SourceIterObj(ScriptedSource("a-b|")).map(...)`.

    A cancelled pull loses no progress: completed iterations count, a delay keeps its end time, and the next pull continues
    from there. `as_generator()` returns the same script as an async generator, which a cancellation ends.

    Each `aiter()` starts the script from the beginning.

    Law: the items of the script, each once per iterator.
    Order: that of the script.
    Bound: the script.
    Cost: O(1) per step.
    Cancel safety: a cancelled pull loses nothing.

    Args:
        script: Items, and steps between them; every object that is not a `Step` is an item. Or a marble diagram.
        unit: The length of a frame of a marble diagram in seconds, on the clock of the event loop.
        closing: The number of event-loop iterations that closing an iterator takes.

    Attributes:
        opens: The number of iterators created (for generators: started).
        pulls: The number of pulls.
        ends: The number of iterators that reached the end of the script.
        closes: The number of `aclose()` calls that started, of any iterator.
        closed: The number of `aclose()` calls that were not interrupted.
        pulled_by: The tasks that pulled items, each once.
        closed_by: The task of each `aclose()` call.
        left_open: The number of iterators that were neither closed nor reached their end.

    Raises:
        TypeError: `script` is not an iterable, or contains a step class instead of a step; `unit` is not a number, or
            `closing` not an integer.
        ValueError: `script` is a string that is not a marble diagram, `unit` is not positive, or `closing` is less than 0.
    """

    _instead = "make another one of the same script"

    def __init__(self, script: Iterable[Any], *, unit: float = 1.0, closing: int = 0) -> None:
        unit = check_positive("ScriptedSource: unit", unit)
        self._script = _checked(_steps(script, unit) if isinstance(script, str) else script)
        self._closing = check_int("ScriptedSource: closing", 0, closing)
        self.opens: int = 0
        self.pulls = 0
        self.ends = 0
        self.left_open: int = 0
        self.closes = 0
        self.closed = 0
        self.pulled_by: list[asyncio.Task[Any] | None] = []
        self.closed_by: list[asyncio.Task[Any] | None] = []
        if (watch := WATCH.get()) is not None:
            watch.append(self)

    def __aiter__(self) -> _ScriptIterator:
        """Return a new iterator, from the beginning of the script."""
        self.opens += 1
        self.left_open += 1
        return _ScriptIterator(self, self._script, self._closing)

    async def as_generator(self) -> AsyncGenerator[Any, None]:
        """Return an async generator over the script, which ends with the first error or cancellation."""
        iterator = aiter(self)
        try:
            async for item in iterator:
                yield item
        finally:
            await iterator.aclose()

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(len(self._script), "step")
        yield f"opened {self.opens}"
        yield f"ended {self.ends}"
        yield f"closed {format_count(self.closed, self.closes, 'begun') if self.closed < self.closes else self.closes}"


class _ScriptIterator:
    """One iterator over a script."""

    def __init__(self, source: ScriptedSource, script: tuple[Any, ...], closing: int) -> None:
        self._source = source
        self._script = script
        self._closing = closing
        self._at = 0
        # The progress of the step at `_at`.
        self._iterations = 0
        self._until: float | None = None
        self._began = math.inf
        self._is_busy = False
        self._is_open = True

    def __aiter__(self) -> _ScriptIterator:
        return self

    def __repr__(self) -> str:
        return format_repr("iterator of a ScriptedSource", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield f"at {format_count(self._at, len(self._script), 'steps')}"
        yield "open" if self._is_open else "closed"

    async def __anext__(self) -> Any:
        source, task = self._source, asyncio.current_task()
        source.pulls += 1
        if task not in source.pulled_by:
            source.pulled_by.append(task)
        if self._is_busy:
            raise RuntimeError("two pulls of a ScriptedSource overlap")
        self._is_busy = True
        if self._began == math.inf:
            self._began = asyncio.get_running_loop().time()
        try:
            while self._at < len(self._script):
                step = self._script[self._at]
                if isinstance(step, Step):
                    await self._wait_for(step)
                # There is no `await` below, so a completed step cannot be cancelled.
                self._at, self._iterations, self._until = self._at + 1, 0, None
                if isinstance(step, Raise):
                    raise step.error
                if not isinstance(step, Step):
                    return step
            source.ends += self._is_open
            self._end()
            raise StopAsyncIteration
        finally:
            self._is_busy = False

    async def _wait_for(self, step: Step) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(step, AtTime):
            if (left := self._began + step.seconds - loop.time()) > 0:
                await asyncio.sleep(left)
        elif isinstance(step, Yields):
            while self._iterations < step.count:
                self._iterations += 1
                await asyncio.sleep(0)
        elif isinstance(step, Delay):
            if self._until is None:
                self._until = loop.time() + step.seconds
            if (left := self._until - loop.time()) > 0:
                await asyncio.sleep(left)
        elif isinstance(step, Forever):
            await loop.create_future()

    async def aclose(self) -> None:
        self._source.closes += 1
        self._source.closed_by.append(asyncio.current_task())
        self._end()
        for _ in range(self._closing):
            await asyncio.sleep(0)
        self._source.closed += 1

    def _end(self) -> None:
        self._at = len(self._script)
        self._source.left_open -= self._is_open
        self._is_open = False


def _checked(script: Iterable[Any]) -> tuple[Any, ...]:
    try:
        steps = tuple(script)
    except TypeError:
        if isinstance(cast("object", script), Iterable):
            raise
        raise TypeError(
            f"ScriptedSource: script must be an iterable of items and steps, or a line of marbles, got {describe_value(script)}"
        ) from None
    for step in steps:
        if isinstance(step, type) and issubclass(step, Step):
            raise TypeError(
                f"ScriptedSource: script has the class {step.__name__} where a step should be; call it"
            )
    return steps


def _steps(line: str, unit: float) -> Iterator[Any]:
    """Yield the script of a marble diagram."""
    ended = False
    for frame, marble in frames(line):
        yield AtTime(frame * unit)
        if marble is ERROR:
            yield Raise(MarbleError(f"frame {frame} of {line!r}"))
        elif marble is END:
            ended = True
        else:
            yield marble
    if not ended:
        yield Forever()


# A list that collects all sources created in the current context.
WATCH: Final[ContextVar[list[ScriptedSource] | None]] = ContextVar("WATCH", default=None)
