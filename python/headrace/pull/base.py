"""`PullObj`: the base of every pull stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, cast, overload

from headrace import _core
from headrace._core import IteratorResult, PullLink
from headrace.errors import NOTHING

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
    )
    from types import TracebackType

    from headrace.combiner import OnError
    from headrace.pull.group import (
        PullFlatMapObj,
        PullFlattenObj,
        PullSkipObj,
        PullSkipWhileObj,
        PullTakeObj,
        PullTakeWhileObj,
        PullWindowObj,
    )
    from headrace.pull.merge import (
        PullConcatObj,
        PullRaceCutoffObj,
        PullRaceObj,
        PullRaceRobinObj,
        PullRoundRobinObj,
        PullZipObj,
    )
    from headrace.pull.source import Source
    from headrace.pull.transform import PullDedupeObj, PullFilterObj, PullMapObj, PullReduceObj

__all__ = ["PullObj"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

# What a subclass may override, so that no line runs it in place any more.
_PROTOCOL = frozenset(
    {"pull_impl", "next", "__anext__", "__aiter__", "aclose", "return_", "throw", "restart"}
)


class PullObj(PullLink[T_co]):
    """A lazy stream: nothing happens before an item is asked for.

    Iterate it with `async for`, take single items with `anext(stream)`, or with `await
    stream.next()`, which gives `IteratorResult(value, done)` and does not raise at the end. Use it
    as an async context manager to have it closed.

    To make your own, override `pull_impl` as an async generator method; or, for full control,
    `__anext__` or `next`. A subclass that does is still a pull object among others: it works
    wherever a stock one does.

    Law: one pull does the work of one item.
    Order: concurrent pulls are served in the order of their first step.
    Bound: nothing is held, but for the item that a cancelled pull left.
    Cost: O(1) an item, whatever the number of stages or of those who wait.
    Cancel safety: a cancelled pull loses no item of a stock source or operator, and the stream goes
    on. An async generator of the user's is ended by the cancellation; the next pull then raises
    `SourceCancelledError`.
    """

    _is_opaque: ClassVar[bool] = False
    _has_own_pull: ClassVar[bool] = False

    def __init_subclass__(cls, *, stock: bool = False, **kwargs: Any) -> None:
        """Notes what a subclass overrides.

        `stock` is headrace's own: its overrides change nothing that fusing would skip.
        """
        super().__init_subclass__(**kwargs)
        _core.adopt(cls)
        overridden: frozenset[str] = frozenset() if stock else _PROTOCOL & cls.__dict__.keys()
        if overridden:
            cls._is_opaque = True
        if "pull_impl" in overridden:
            cls._has_own_pull = True
        # The two protocols are views of one stream: overriding one carries the other along.
        if "next" in overridden and "__anext__" not in overridden:
            _override(cls, "__anext__", _anext_by_next)
        elif "__anext__" in overridden and "next" not in overridden:
            _override(cls, "next", _next_by_anext)

    def pull_impl(self) -> AsyncIterator[T_co]:
        """The items of this stream; override it as an async generator method.

        Called without being overridden (`super().pull_impl()`), it gives what the stock class would
        do.

        Raises:
            NotImplementedError: The class is made of nothing and overrides nothing.
        """
        return _core.stock(self)

    async def aclose(self) -> None:
        """Closes the stream and all its sources, from the consumer upwards.

        Pulls that are pending raise `ClosedError` in their own tasks. Returns when everything is
        closed. Doing so again does nothing. A cancellation meanwhile is raised when the clean-up is
        done. Errors of sources do not keep the others from being closed; one is raised as it is,
        several as a group.
        """
        errors: list[BaseException] = []
        cancelled: asyncio.CancelledError | None = None
        for link in _upwards(self):
            if link is not self and _has_own(link, "aclose"):
                # A subclass's own way of closing covers what is above it.
                await _attempt(link.aclose(), errors)
                break
            while (pending := _core.shut(link)) is not None:
                try:
                    await pending
                except asyncio.CancelledError as struck:
                    cancelled = struck
            try:
                feeds = _core.close_feeds(link)
            except Exception as failure:
                errors.append(failure)
            else:
                for closing in feeds:
                    await _attempt(closing, errors)
        if cancelled is not None:
            for error in errors:
                cancelled.add_note(f"while closing: {error!r}")
            raise cancelled
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("several sources failed to close", errors)

    async def return_(self, value: Any = None) -> IteratorResult[Any]:
        """Ends the stream from the consumer's side, as `aclose`, and gives `IteratorResult(value, True)`."""
        for link in _upwards(self):
            if link is not self and _has_own(link, "return_"):
                try:
                    return await link.return_(value)
                finally:
                    await self.aclose()
        await self.aclose()
        return IteratorResult(value, True)

    async def throw(self, error: BaseException) -> IteratorResult[Any]:
        """Ends the stream with an error.

        It reaches the nearest source that overrides `throw`; otherwise it is raised here.

        Raises:
            TypeError: `error` is no exception. BaseException: `error`, unless a source took it.
        """
        if not isinstance(cast("object", error), BaseException):
            raise TypeError(f"error must be an exception, got {error!r} ({type(error).__name__})")
        for link in _upwards(self):
            if link is not self and _has_own(link, "throw"):
                try:
                    return await link.throw(error)
                finally:
                    await self.aclose()
        await self.aclose()
        raise error

    def restart(self) -> None:
        """Begins a new cycle, of this stream and its sources, with their configuration of now.

        Raises:
            RuntimeError: A pull is pending, or a source cannot start again (an iterator runs once).
                Nothing is changed then at or below that source.
        """
        chain: list[PullObj[Any]] = []
        for link in _upwards(self):
            chain.append(link)
            if link is not self and _has_own(link, "restart"):
                break
        for link in reversed(chain):
            if link is not self and _has_own(link, "restart"):
                link.restart()
            else:
                _core.restart(link)

    async def __aenter__(self) -> Self:
        """The stream; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the stream.

        The error of the block wins; one of closing is added to it as a note.
        """
        try:
            await self.aclose()
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as closing:
            if error is None:
                raise
            error.add_note(f"while closing: {closing!r}")

    @overload
    def map(self, transform: Callable[[T_co], Coroutine[Any, Any, U]]) -> PullMapObj[T_co, U]: ...
    @overload
    def map(self, transform: Callable[[T_co], U]) -> PullMapObj[T_co, U]: ...
    def map(self, transform: Callable[[T_co], Any]) -> PullMapObj[T_co, Any]:
        """`transform(item)` for each item, awaited if it is awaitable; see `PullMapObj`."""
        from headrace.pull.transform import PullMapObj

        return PullMapObj(self, transform)

    def filter(self, predicate: Callable[[T_co], Any]) -> PullFilterObj[T_co]:
        """The items for which `predicate(item)`, awaited if it is awaitable, is true; see `PullFilterObj`."""
        from headrace.pull.transform import PullFilterObj

        return PullFilterObj(self, predicate)

    @overload
    def reduce(
        self, reducer: Callable[[U, T_co], Coroutine[Any, Any, U]], initial: U = ...
    ) -> PullReduceObj[T_co, U]: ...
    @overload
    def reduce(
        self, reducer: Callable[[U, T_co], U], initial: U = ...
    ) -> PullReduceObj[T_co, U]: ...
    def reduce(
        self, reducer: Callable[[Any, T_co], Any], initial: Any = NOTHING
    ) -> PullReduceObj[T_co, Any]:
        """The running result of `reducer(accumulator, item)`; see `PullReduceObj`."""
        from headrace.pull.transform import PullReduceObj

        return PullReduceObj(self, reducer, initial)

    def dedupe(
        self,
        *,
        key: Callable[[T_co], Any] | None = None,
        maxsize: int | None = None,
        consecutive: bool = False,
    ) -> PullDedupeObj[T_co]:
        """Each item once; see `PullDedupeObj`."""
        from headrace.pull.transform import PullDedupeObj

        return PullDedupeObj(self, key=key, maxsize=maxsize, consecutive=consecutive)

    def take(self, count: int) -> PullTakeObj[T_co]:
        """The first `count` items; see `PullTakeObj`."""
        from headrace.pull.group import PullTakeObj

        return PullTakeObj(self, count)

    def skip(self, count: int) -> PullSkipObj[T_co]:
        """All but the first `count` items; see `PullSkipObj`."""
        from headrace.pull.group import PullSkipObj

        return PullSkipObj(self, count)

    def take_while(self, predicate: Callable[[T_co], Any]) -> PullTakeWhileObj[T_co]:
        """The items up to the first for which `predicate(item)` is false; see `PullTakeWhileObj`."""
        from headrace.pull.group import PullTakeWhileObj

        return PullTakeWhileObj(self, predicate)

    def skip_while(self, predicate: Callable[[T_co], Any]) -> PullSkipWhileObj[T_co]:
        """The items from the first for which `predicate(item)` is false; see `PullSkipWhileObj`."""
        from headrace.pull.group import PullSkipWhileObj

        return PullSkipWhileObj(self, predicate)

    def flatten(self: PullObj[Iterable[U] | AsyncIterable[U]]) -> PullFlattenObj[U]:
        """The items of each item, which is an iterable, sync or async; see `PullFlattenObj`."""
        from headrace.pull.group import PullFlattenObj

        return PullFlattenObj(self)

    def flat_map(
        self,
        transform: Callable[
            [T_co],
            Iterable[U] | AsyncIterable[U] | Coroutine[Any, Any, Iterable[U] | AsyncIterable[U]],
        ],
    ) -> PullFlatMapObj[T_co, U]:
        """The items of `transform(item)`, an iterable, for each item; see `PullFlatMapObj`."""
        from headrace.pull.group import PullFlatMapObj

        return PullFlatMapObj(self, transform)

    def window(
        self, size: int, *, partial: Literal["keep", "drop"] = "keep"
    ) -> PullWindowObj[T_co]:
        """Lists of `size` items; see `PullWindowObj`."""
        from headrace.pull.group import PullWindowObj

        return PullWindowObj(self, size, partial=partial)

    def concat(
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullConcatObj[T_co | U]:
        """The items of this, then all of each of the others; see `PullConcatObj`."""
        from headrace.pull.merge import PullConcatObj

        return PullConcatObj(self, *others, eager=eager, on_error=on_error)

    @overload
    def zip(
        self,
        a: Source[A],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A]]: ...
    @overload
    def zip(
        self,
        a: Source[A],
        b: Source[B],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A, B]]: ...
    @overload
    def zip(
        self,
        a: Source[A],
        b: Source[B],
        c: Source[C],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A, B, C]]: ...
    @overload
    def zip(
        self,
        a: Source[A],
        b: Source[B],
        c: Source[C],
        d: Source[D],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A, B, C, D]]: ...
    @overload
    def zip(
        self,
        *others: Source[Any],
        strict: bool = ...,
        longest: bool = ...,
        fill: Any = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[Any, ...]]: ...
    def zip(
        self,
        *others: Source[Any],
        strict: bool = False,
        longest: bool = False,
        fill: Any = None,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullZipObj[Any]:
        """One item of this and one of each of the others, as a tuple; see `PullZipObj`."""
        from headrace.pull.merge import PullZipObj

        return PullZipObj(
            self,
            *others,
            strict=strict,
            longest=longest,
            fill=fill,
            eager=eager,
            on_error=on_error,
        )

    def round_robin(
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullRoundRobinObj[T_co | U]:
        """One item of this and of each of the others, in turn; see `PullRoundRobinObj`."""
        from headrace.pull.merge import PullRoundRobinObj

        return PullRoundRobinObj(self, *others, eager=eager, on_error=on_error)

    def race(
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullRaceObj[T_co | U]:
        """The items of this and the others, as they come; see `PullRaceObj`."""
        from headrace.pull.merge import PullRaceObj

        return PullRaceObj(self, *others, eager=eager, on_error=on_error)

    def race_robin(
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullRaceRobinObj[T_co | U]:
        """As `race`, but each source once a round; see `PullRaceRobinObj`."""
        from headrace.pull.merge import PullRaceRobinObj

        return PullRaceRobinObj(self, *others, eager=eager, on_error=on_error)

    def cutoff(
        self,
        *cutoffs: Source[Any],
        error: BaseException | None = None,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullRaceCutoffObj[T_co]:
        """The items until one of `cutoffs` gives one; see `PullRaceCutoffObj`."""
        from headrace.pull.merge import PullRaceCutoffObj

        return PullRaceCutoffObj(self, *cutoffs, error=error, eager=eager, on_error=on_error)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x}>"


def _has_own(link: PullObj[Any], name: str) -> bool:
    """Whether the class of a link has a method of this name that is not `PullObj`'s."""
    return getattr(type(link), name) is not PullObj.__dict__[name]


def _upwards(stream: PullObj[Any]) -> Iterator[PullObj[Any]]:
    """The stream and what it pulls from, up to its source."""
    link: PullLink[Any] | None = stream
    while link is not None:
        yield cast("PullObj[Any]", link)
        link = _core.upstream(link)


async def _attempt(closing: Any, errors: list[BaseException]) -> None:
    try:
        await closing
    except asyncio.CancelledError:
        raise
    except Exception as error:
        errors.append(error)


def _override(cls: type[PullObj[Any]], name: str, method: Callable[..., Any]) -> None:
    # By name: what a checker takes for an assignment to a method is one.
    setattr(cls, name, method)


async def _anext_by_next(self: PullObj[Any]) -> Any:
    result = await self.next()
    if result.done:
        raise StopAsyncIteration
    return result.value


async def _next_by_anext(self: PullObj[Any]) -> IteratorResult[Any]:
    try:
        return IteratorResult(await anext(self), False)
    except StopAsyncIteration:
        return IteratorResult(None, True)
