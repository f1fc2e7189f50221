"""Many streams into one.

Each source gets one asyncio task, its owner, which drives it for its whole life: it pulls the source, and it closes
it. So context variables, `asyncio.timeout` and task groups that a source holds open across its `yield`s work as if it
ran alone. An owner pulls one item when it is asked to, puts what came into a buffer, and parks until somebody asks
again. The consumer takes from that buffer: what an item costs does not depend on the number of sources, and since a
source is asked again only by the pull after the one that took its item, it waits behind all others that are ready.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from headrace.buffer import PushPullBufferObj
from headrace.errors import SourceCancelledError, WrongLoopError
from headrace.pull import PullObj, SourceIterObj, SourceObj
from headrace.tasks import settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headrace.pull.source import Source

__all__ = ["AsyncIteratorCombiner"]

T = TypeVar("T")


class AsyncIteratorCombiner(Generic[T]):
    """Takes several streams as one.

    Args:
        *sources: pull objects, async iterables or iterables, one at least, each given once.

    Raises:
        TypeError: if a source cannot be iterated.
        ValueError: if there is no source, or one is given twice: its items would be split between two readers.
    """

    def __init__(self, *sources: Source[T]) -> None:
        _check(sources)
        self._sources = sources
        self._race: _Race[T] | None = None

    def race_generator(self) -> PullObj[T]:
        """The items of all sources, as they come. Called again, it gives the same stream.

        Nothing runs before the first pull. Each pull asks those sources that are neither at work nor waiting with an
        item. An error of a source is raised by one pull, the same object with a note that names the source; the other
        sources go on, and so does this one if it can. A source that ended is closed at once, the others by `aclose()`
        or at the end of `async with`, each by the task that drove it. Must be closed unless it was read to its end.

        Order: as the items came; among M sources that are always ready, each gives its item within M pulls. Items of
        one source stay in order.
        Bound: one item of each source.
        Cost: O(1) an item; one asyncio task a source, while it lasts.
        Cancel safety: a cancelled pull loses nothing.
        """
        if self._race is None:
            self._race = _Race(self._sources)
        return self._race


class _Race(SourceObj[T]):
    """The stream of a race. It refers to the state, and nothing there to it: so one that was dropped is noticed."""

    def __init__(self, sources: tuple[Source[T], ...]) -> None:
        super().__init__()
        self._state = _State(sources)

    async def __anext__(self) -> T:
        """The next item. See `AsyncIteratorCombiner.race_generator`."""
        return await self._state.pull()

    async def aclose(self) -> None:
        """Closes every source in its own task, and waits until that is done. Idempotent.

        Raises:
            BaseException: what a source raised when it was closed, with a note that names the source; the errors of
                several in an `ExceptionGroup`.
            RuntimeError: in one of the sources, which would wait for itself.
            WrongLoopError: on another loop than the one where the first pull was.

        Cancel safety: a cancellation is raised when all is closed, not before, from the errors if there were some.
        """
        await self._state.close()

    def __del__(self) -> None:
        # There is no `_state` after an `__init__` that raised.
        state: _State[Any] | None = getattr(self, "_state", None)
        if state is not None and state.running:
            state.abandon()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        return f"<race_generator of {self._state.size} sources>"


class _Entry(Generic[T]):
    """What came of one pull of one source."""

    __slots__ = ("_error", "_item", "owner")

    def __init__(self, owner: _Owner[T], item: T | None, error: BaseException | None) -> None:
        self.owner = owner
        self._item = item
        self._error = error

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._item)


_driven: set[_State[Any]] = set()
"""The state of every race under way: the loop itself holds its tasks only weakly."""


class _State(Generic[T]):
    """What the owners of one race share with its stream."""

    def __init__(self, sources: tuple[Source[T], ...]) -> None:
        # Behind everything else it holds None: the end. Bounded by the number of sources.
        ready: PushPullBufferObj[_Entry[T] | None] = PushPullBufferObj()
        self._into, self._out_of = ready.sink, ready.source
        self.size = len(sources)
        self._closed = False
        # Those whose source is neither at work nor has an item in the buffer.
        self._idle = [_Owner(self, index, source) for index, source in enumerate(sources)]
        self._owners = set(self._idle)
        self.tasks: set[asyncio.Task[None]] = set()
        """The tasks of the owners that were asked."""
        self._pulls = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._errors: list[BaseException] = []

    @property
    def running(self) -> bool:
        """Whether a source is left that has to be closed."""
        return self in _driven

    async def pull(self) -> T:
        """The next item, or error, of any source."""
        if not self._closed:
            loop = asyncio.get_running_loop()
            if self._loop is None:
                self._loop = loop
                _driven.add(self)
            self._check(loop)
            self._ask(loop)
        self._pulls += 1
        try:
            entry = await anext(self._out_of)
        finally:
            self._pulls -= 1
        # From here on nothing waits, so that nothing that was taken can be lost.
        if entry is None:
            # For every other pull, now and later.
            self.put(None)
            raise StopAsyncIteration
        if entry.owner in self._owners:
            self._idle.append(entry.owner)
        if self._pulls:
            # Somebody else waits, who found this source at work.
            self._ask(asyncio.get_running_loop())
        return entry.result()

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sets every idle source to work."""
        idle, self._idle = self._idle, []
        for owner in idle:
            owner.ask(loop)

    def put(self, entry: _Entry[T] | None) -> None:
        """Hands something to the consumer."""
        if not self._closed:
            self._into.next_nowait(entry)

    def gone(self, owner: _Owner[T], task: asyncio.Task[None]) -> None:
        """The task of an owner has ended, its source is closed."""
        self.tasks.discard(task)
        self._owners.discard(owner)
        if owner.error is not None:
            self._errors.append(owner.error)
        if not self._owners:
            _driven.discard(self)
            self.put(None)

    async def close(self) -> None:
        """Closes what is left of the sources; raises what went wrong with that."""
        loop = asyncio.get_running_loop()
        if self._owners:
            self._check(loop)
        self._closed = True
        self._idle.clear()
        self._close_owners(loop)
        struck: BaseException | None = None
        try:
            # Whoever waits for an item will get none.
            await self._out_of.aclose()
        finally:
            struck = await settled(*self.tasks)
            for owner in tuple(self._owners):
                # Ended in this very turn, its callback still to come.
                owner.ended()
        errors, self._errors = self._errors, []
        error = errors[0] if len(errors) == 1 else None
        if len(errors) > 1:
            error = BaseExceptionGroup("several sources raised when they were closed", errors)
        if struck is not None:
            raise struck from error
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Closes the sources of a race that nobody holds any more. May be called by a finaliser, in any thread."""
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close_owners, self._loop)

    def _close_owners(self, loop: asyncio.AbstractEventLoop) -> None:
        for owner in self._owners:
            owner.close(loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuses the wrong loop, and a source that would wait for itself."""
        if self._loop is not None and self._loop is not loop:
            raise WrongLoopError(
                "this race belongs to another event loop, where its first pull was"
            )
        if asyncio.current_task(loop) in self.tasks:
            raise RuntimeError(
                "a source of a race cannot pull or close the race that it is part of"
            )


class _Owner(Generic[T]):
    """One source, and the task that drives it for its whole life."""

    def __init__(self, state: _State[T], index: int, source: Source[T]) -> None:
        self.error: BaseException | None = None
        """What was raised while the source was being closed."""
        self._state = state
        self._source = source if isinstance(source, AsyncIterable) else SourceIterObj(source)
        self._label = f"source {index} of AsyncIteratorCombiner, {_name(source)}"
        self._task: asyncio.Task[None] | None = None
        self._parked: asyncio.Future[None] | None = None
        self._accounted = False
        self._asked = False
        self._pulling = False
        self._closing = False

    def ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has the task pull one item, or close, if it is to close. The first time it is made."""
        self._asked = True
        if self._task is None:
            # Not `loop.create_task`: under a factory of eager tasks it would run before it is known
            # here.
            self._task = asyncio.Task(self._live(loop), loop=loop, name=self._label)
            self._task.add_done_callback(self.ended)
            self._state.tasks.add(self._task)
        elif self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has the task close its source and end. A pull that is under way is cancelled, once."""
        if self._pulling and self._task is not None and not self._closing:
            self._task.cancel()
        self._closing = True
        self.ask(loop)

    async def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pulls whenever it is asked to, then closes the source."""
        # A source that was never pulled is closed too, if it can be; but no iterator is made of it
        # for that.
        stream: object = self._source if hasattr(self._source, "__anext__") else None
        try:
            if not self._to_close():
                stream = pulled = aiter(self._source)
                await self._pull_all(pulled, loop)
        except GeneratorExit:
            # The loop is gone, and with it every chance to await something.
            raise
        except BaseException as error:
            self._tell(error)
        try:
            if (aclose := getattr(stream, "aclose", None)) is not None:
                await aclose()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._tell(error)

    async def _pull_all(self, stream: AsyncIterator[T], loop: asyncio.AbstractEventLoop) -> None:
        ahead: _Entry[T] | None = None
        struck: asyncio.CancelledError | None = None
        throw: Callable[[BaseException], Awaitable[T]] | None = getattr(stream, "athrow", None)
        while not self._to_close():
            try:
                await self._until_asked(loop)
            except asyncio.CancelledError as cancelled:
                # A timeout or a task group that the source holds open across its `yield`, or somebody
                # who cancels whatever runs, as the end of `asyncio.run` does. The source has to hear of
                # it: at once, for the sake of the latter; but it must not run ahead by more than one item.
                if throw is None or (ahead is not None and _everything_is_cancelled(loop)):
                    raise
                struck = cancelled
            if throw is not None and struck is not None and ahead is None:
                error, struck = struck, None
                ahead = await self._outcome(throw(error))
                if ahead is None:
                    return
            elif self._asked and not self._to_close():
                self._asked = False
                entry, ahead = ahead or await self._outcome(anext(stream)), None
                if entry is None:
                    return
                self._state.put(entry)

    async def _until_asked(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._asked:
            self._parked = loop.create_future()
            await self._parked

    async def _outcome(self, step: Awaitable[T]) -> _Entry[T] | None:
        """What comes of a step of the source; None at its end, and when it was told to close."""
        self._pulling = True
        try:
            return _Entry(self, await step, None)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError as error:
            if self._task is None or (self._task.cancelling() and not self._to_close()):
                # Not to be ignored, as the source did not.
                raise
            if self._to_close():
                # Ours, and delivered: what closes the source finds a task that nobody cancels.
                self._task.uncancel()
                return None
            return _Entry(self, None, self._named(error))
        except Exception as error:
            if self._to_close():
                self._tell(error)
                return None
            return _Entry(self, None, self._named(error))
        finally:
            self._pulling = False

    def _to_close(self) -> bool:
        # A method, since it changes during every wait.
        return self._closing

    def ended(self, _: object = None) -> None:
        """Accounts for the end of the task; once."""
        task = self._task
        if task is None or self._accounted:
            return
        self._accounted = True
        if task.cancelled():
            # Before its first step.
            self._tell(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._tell(error)
        self._state.gone(self, task)

    def _tell(self, error: BaseException) -> None:
        """Hands an error to the consumer, or keeps it for the one who closes."""
        error = self._named(error)
        if self._closing:
            self.error = self.error or error
        else:
            self._state.put(_Entry(self, None, error))

    def _named(self, error: BaseException) -> BaseException:
        """The error with a note that names the source; and never one that looks as if the consumer was cancelled."""
        if isinstance(error, asyncio.CancelledError):
            cancelled, error = error, SourceCancelledError(f"{self._label} was cancelled")
            error.__cause__ = cancelled
        note = f"raised by {self._label}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error


def _everything_is_cancelled(loop: asyncio.AbstractEventLoop) -> bool:
    return all(task.cancelling() for task in asyncio.all_tasks(loop))


def _name(source: object) -> str:
    name: object = getattr(source, "__qualname__", type(source).__qualname__)
    return str(name)


def _check(sources: tuple[object, ...]) -> None:
    """Refuses what cannot be combined."""
    me = "AsyncIteratorCombiner"
    if not sources:
        raise ValueError(f"{me}: sources must be one stream at least, got none")
    seen: dict[int, int] = {}
    for index, source in enumerate(sources):
        kind = type(source)
        # Not `isinstance(..., Iterable)`: a class with `__getitem__` alone can be iterated too.
        if not any(hasattr(kind, name) for name in ("__aiter__", "__iter__", "__getitem__")):
            what = f"{source!r} ({kind.__name__})"
            raise TypeError(
                f"{me}: sources[{index}] must be an iterable or an async iterable, not {what}"
            )
        if (first := seen.setdefault(id(source), index)) != index:
            raise ValueError(
                f"{me}: sources[{index}] must not be sources[{first}] again, {source!r}: its items would be split"
            )
