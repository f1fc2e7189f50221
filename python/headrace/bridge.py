"""Objects that join pull and push. User code creates them; `describe` walks through them.

`PushPullObj` is a pair of a sink and a source as one object. `PullPushBridgeObj` and `PullPushDistributeObj` are pull streams that push
each item into sinks before they yield it; their iterator, `_Tap`, keeps an item until all its sinks have it.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace._core import AsyncIterSource, Delivery
from headrace._internal.copying import Uncopied
from headrace._internal.depth import check_depth
from headrace._internal.error_notes import (
    as_group,
    ends_program,
    raise_all,
    raise_closing,
    wrap_iteration_error,
)
from headrace._internal.kernel_properties import KernelProperty
from headrace._internal.reprs import describe_value, format_repr, pluralize
from headrace._internal.sentinels import NOTHING
from headrace._internal.tasks import cancelling, is_cancellation
from headrace._internal.validate import check_callable
from headrace.errors import CLOSING
from headrace.pull.base import PullObj, attempt
from headrace.pull.source import Restartable, as_pull
from headrace.push.base import (
    acceptors,
    checked_sink,
    checked_sinks,
    different_sinks,
    is_done_result,
    name_acceptors,
    push_now,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Iterable,
        Iterator,
        Sequence,
    )
    from typing import Self

    from headrace._core import IteratorResult
    from headrace.abc import PushProtocol
    from headrace.pull.source import Source

IN_contra = TypeVar("IN_contra", contravariant=True)
OUT_co = TypeVar("OUT_co", covariant=True)
T = TypeVar("T")


class PushPullObj(Uncopied, Generic[IN_contra, OUT_co]):
    """Two ends as one object: pushes go into `sink`, pulls come from `source`.

        buffer = PushPullBufferObj(100)
        line = PushChain.start().map(parse).into(buffer.sink)
        both = PushPullObj(line, buffer.source.filter(is_good))
        await both.next(text)
        async for item in both: ...

    It is accepted wherever a sink or a source is.

    Law: `both.next(item)` is `sink.next(item)`, and `aiter(both)` is `source`. The connection between the two, usually
    a shared store, is up to them.
    Order, Bound, Cost, Cancel safety: those of its ends.

    `return_()` and `throw(error)` end the sink. The source is closed as `both.source`.

    Args:
        sink: A push object.
        source: A pull object or an iterable, sync or async.

    Raises:
        TypeError: `sink` is not a push object, or `source` not iterable.
    """

    def __init__(self, sink: PushProtocol[IN_contra], source: Source[OUT_co]) -> None:
        self._sink = checked_sink(sink)
        self._source: PullObj[OUT_co] = as_pull(source)

    @property
    def sink(self) -> PushProtocol[IN_contra]:
        """The sink."""
        return self._sink

    @property
    def source(self) -> PullObj[OUT_co]:
        """The source, as a pull object."""
        return self._source

    def __aiter__(self) -> AsyncIterator[OUT_co]:
        """Return the source."""
        return self._source

    def next(self, item: IN_contra) -> Awaitable[IteratorResult[Any]]:
        """Push an item into the sink."""
        return self._sink.next(item)

    def next_nowait(self, item: IN_contra) -> IteratorResult[Any]:
        """Push an item into the sink without waiting.

        Raises:
            WouldBlock: The sink would have to wait. TypeError: The sink has no `next_nowait`.
        """
        return push_now(self._sink, item)

    def return_(self, value: Any = None) -> Awaitable[IteratorResult[Any]]:
        """End the supply."""
        return self._sink.return_(value)

    def throw(self, error: BaseException) -> Awaitable[IteratorResult[Any]]:
        """End the supply with an error."""
        return self._sink.throw(error)

    def __repr__(self) -> str:
        return format_repr("PushPullObj", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        # By their classes: pairs may be nested.
        yield f"into {type(self._sink).__name__}"
        yield f"out of {type(self._source).__name__}"


class _PullPushObj(PullObj[T], stock=True):
    """A pull stream that also pushes its items."""

    def __init__(self, tap: _Tap[T]) -> None:
        self._tap = tap
        self._depth = check_depth(tap.source, type(self).__name__)
        super().__init__(AsyncIterSource(Restartable(tap)))

    @property
    def source(self) -> PullObj[T]:
        """The source."""
        return self._tap.source

    @property
    def sinks(self) -> Sequence[PushProtocol[T]]:
        """The sinks."""
        return self._tap.sinks

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(len(self._tap.sinks), "sink")
        if self._tap.holds:
            yield "1 held"
        yield from super()._repr_parts()

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        if self._tap.has_ended_sinks:
            raise RuntimeError(
                f"cannot restart: the sinks of {type(self).__name__} were ended with it; forward_close=False keeps them open"
            )
        yield from super()._restarting()
        yield self._tap.source
        self._tap.restart()


class PullPushBridgeObj(_PullPushObj[T], stock=True):
    """The items of the source, each also pushed into all sinks.

    Law: the items of the source, and every sink gets them too; an item is yielded when all sinks have accepted it.
    Order: the source's; an item is pushed into the sinks one after the other, in the given order. Use one `PushForkObj`
    to push into several concurrently.
    Bound: one item.
    Cost: O(number of sinks) an item.
    Cancel safety: as the source's, and an item whose push was cancelled stays here: the next pull
    pushes it into those sinks that lack it. A sink whose error has a non-empty `accepted_by` has the item.

    If a sink fails, the others still get the item. The pull raises the error, or a group of several, which names in
    `accepted_by` the sinks that have the item; the item is not yielded, and the next pull continues with the next one.
    A sink that returns `done` gets no more items. Unless `forward_close` is off, the sinks are ended with `return_()`
    when the source ends, before the pull reports the end, and when the stream is closed.

    Depth: at most 100 bridges, gates and branches of `tee` may be nested; a link whose task pulls the source, such as
    `.prefetch(1)`, resets the count.

    Args:
        source: A pull object or an iterable, sync or async.
        sinks: The push objects, at least one, each once.
        forward_close: Whether to end the sinks with the stream (default).

    Raises:
        TypeError: `source` is not iterable, or one of `sinks` no push object.
        ValueError: There are no sinks, or one of them is given twice; or `source` is nested too deeply.
    """

    def __init__(
        self, source: Source[T], *sinks: PushProtocol[T], forward_close: bool = True
    ) -> None:
        super().__init__(
            _Tap(as_pull(source), different_sinks(sinks), type(self).__name__, ends=forward_close)
        )


class PullPushDistributeObj(_PullPushObj[T], stock=True):
    """The items of the source, each also pushed into the sink that `selector` names.

    Law: the items of the source, and sink number `selector(item)` gets each of them too; an item is yielded when that
    sink has accepted it.
    Order: the source's.
    Bound: one item.
    Cost: O(1) and one call per item.
    Cancel safety: as the source's, and an item whose push was cancelled stays here: the next pull
    pushes it into its sink, if that lacks it. An item whose `selector` was cancelled with the pull is passed to
    `selector` again: at least once.

    An error of `selector` or of the sink is raised by the pull instead of the item; the next pull continues with the
    next one. Items for a sink that returned `done` are no longer pushed, but are still yielded. Unless `forward_close`
    is off, the sinks are ended with `return_()` when the source ends, before the pull reports the end, and when the
    stream is closed.

    Depth: at most 100 bridges, gates and branches of `tee` may be nested; a link whose task pulls the source, such as
    `.prefetch(1)`, resets the count.

    Args:
        source: A pull object or an iterable, sync or async.
        sinks: The push objects; one may be given more than once.
        selector: Sync or async, called with each item; returns the number of its sink, from 0.
        forward_close: Whether to end the sinks with the stream (default).

    Raises:
        TypeError: `source` or `sinks` is not iterable, one of them is not a push object, or `selector` is not callable;
            at a pull: the selector returned no integer.
        ValueError: There are no sinks; or `source` is nested too deeply.
        IndexError: At a pull: the selector named no sink.
    """

    selector: KernelProperty[Callable[[T], Any], Callable[[T], Any]] = KernelProperty(
        "The callable, live: a new one applies from the next item.", of="_tap", check=check_callable
    )

    def __init__(
        self,
        source: Source[T],
        sinks: Iterable[PushProtocol[T]],
        selector: Callable[[T], int] | Callable[[T], Awaitable[int]],
        *,
        forward_close: bool = True,
    ) -> None:
        super().__init__(
            _Tap(
                as_pull(source),
                checked_sinks(sinks),
                type(self).__name__,
                ends=forward_close,
                selector=check_callable("selector", selector),
            )
        )


class _Tap(Generic[T]):
    """The iterator over the items. The link of the stream allows one pull at a time."""

    def __init__(
        self,
        source: PullObj[T],
        sinks: tuple[PushProtocol[T], ...],
        name: str,
        *,
        ends: bool,
        selector: Callable[[T], Any] | None = None,
    ) -> None:
        self.source = source
        self.sinks = sinks
        self.selector = selector
        self.has_ended_sinks: bool = False
        self._name = name
        # The sinks that are not ended yet.
        self._open = list({id(sink): sink for sink in sinks}.values()) if ends else []
        # The sinks that are done, by identity: foreign sinks may compare equal.
        self._done: set[int] = set()
        self._delivery = Delivery()
        self._is_over = False
        self._give_up()

    @property
    def holds(self) -> bool:
        """Whether an item is being pushed."""
        return self._held is not NOTHING

    def _give_up(self) -> None:
        """Drop the item that is being pushed."""
        self._held: Any = NOTHING
        # The sinks that lack the item; unknown before it is routed.
        self._missing: list[PushProtocol[T]] | None = None
        self._accepted: list[Any] = []
        self._errors: list[BaseException] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._held is NOTHING:
            await self._pull()
        item: T = self._held
        if self._missing is None:
            self._missing = await self._routed(item)
        await self._push(item, self._missing)
        errors, accepted = self._errors, self._accepted
        self._give_up()
        if errors:
            raise self._failure(errors, accepted)
        return item

    async def aclose(self) -> None:
        """Close the source and end the sinks, even if some fail."""
        self._give_up()
        errors: list[BaseException] = []
        cancelled: asyncio.CancelledError | None = None
        closes: list[Callable[[], Awaitable[Any]]] = [self.source.aclose]
        closes += [sink.return_ for sink in self._open]
        for close in closes:
            cancelled = await attempt(close(), errors) or cancelled
        self.has_ended_sinks = self.has_ended_sinks or bool(self._open)
        self._open.clear()
        raise_closing(cancelled, errors, "several ends failed to close")

    def restart(self) -> None:
        """Begin a new cycle; drop an item that is being pushed."""
        self._is_over = False
        self._give_up()

    async def _pull(self) -> None:
        """Take the next item, or end the sinks."""
        if not self._is_over:
            try:
                self._held = await anext(self.source)
            except StopAsyncIteration:
                self._is_over = True
            else:
                return
        await self._end_sinks()
        raise StopAsyncIteration

    async def _end_sinks(self) -> None:
        errors: list[BaseException] = []
        while self._open:
            self.has_ended_sinks = True
            before = cancelling()
            try:
                await self._open[0].return_()
            except BaseException as error:
                # A cancelled end continues at the next pull.
                if _is_interruption(error, before):
                    raise
                if ends_program(error):
                    self._open.pop(0)
                    raise
                errors.append(wrap_iteration_error(error, f"a sink of {self._name}"))
            self._open.pop(0)
        raise_all(errors, "several sinks failed to end")

    async def _routed(self, item: T) -> list[PushProtocol[T]]:
        """Return the sinks for an item."""
        if self.selector is None:
            return list(self.sinks)
        before, is_called = cancelling(), False
        try:
            number = self.selector(item)
            is_called = True
            if inspect.isawaitable(number):
                number = await number
        except BaseException as error:
            # A cancelled selector is called again.
            if is_called and _is_interruption(error, before):
                raise
            self._give_up()
            blamed = wrap_iteration_error(error, f"selector of {self._name}")
            if blamed is error and isinstance(error, Exception):
                note = f"raised by selector of {self._name}"
                name_acceptors(error, acceptors(error), note)
            raise blamed from blamed.__cause__
        try:
            return [self.sinks[_checked_number(number, len(self.sinks), item)]]
        except Exception:
            self._give_up()
            raise

    async def _push(self, item: T, missing: list[PushProtocol[T]]) -> None:
        """Push an item into the sinks that lack it."""
        while missing:
            sink = missing[0]
            if id(sink) not in self._done:
                before = cancelling()
                try:
                    result = await self._delivery.push(sink, item)
                except BaseException as error:
                    names = self._delivery.accepted_by
                    if _is_interruption(error, before):
                        if names:
                            missing.pop(0)
                            self._accepted.append(sink)
                        raise
                    missing.pop(0)
                    self._accepted += names
                    if ends_program(error):
                        raise
                    self._errors.append(wrap_iteration_error(error, f"a sink of {self._name}"))
                    continue
                self._accepted.append(sink)
                if is_done_result(result):
                    self._done.add(id(sink))
            missing.pop(0)

    def _failure(self, errors: list[BaseException], accepted: list[Any]) -> BaseException:
        error = as_group(errors, "several sinks failed")
        name_acceptors(error, accepted)
        return error


def _checked_number(number: object, count: int, item: object) -> int:
    got = f"got {describe_value(number)} for {describe_value(item)}"
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"selector must give the number of a sink, {got}")
    if not 0 <= number < count:
        raise IndexError(f"selector must give a number from 0 to {count - 1}, {got}")
    return number


def _is_interruption(error: BaseException, before: int) -> bool:
    """Return whether an error was caused by cancelling or dropping the pull, not by a callable."""
    is_closing = isinstance(error, asyncio.CancelledError) and error.args == (CLOSING,)
    return is_closing or is_cancellation(error, before)
