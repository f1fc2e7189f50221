"""One to many: each item to all sinks, or to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headrace._core import IteratorResult
from headrace.push.base import PushObj, checked_sink

if TYPE_CHECKING:
    from headrace.abc import PushProtocol

__all__ = ["PushDistributeObj", "PushForkObj"]

T = TypeVar("T")


class _PushGroup(PushObj[T], stock=True):
    """Several sinks below one push object."""

    def __init__(self, sinks: Iterable[PushProtocol[T]], *, forward_close: bool) -> None:
        if not isinstance(cast("object", sinks), Iterable):
            raise TypeError(
                f"sinks must be an iterable of push objects, got {sinks!r} ({type(sinks).__name__})"
            )
        self._sinks = tuple(sinks)
        if not self._sinks:
            raise ValueError("sinks must hold at least one push object, got none")
        for number, sink in enumerate(self._sinks):
            checked_sink(sink, f"sinks[{number}]")
        self._forward_close = forward_close
        # By position: the same sink may stand here twice.
        self._done = [False] * len(self._sinks)
        super().__init__()

    @property
    def sinks(self) -> Sequence[PushProtocol[T]]:
        """What it pushes into."""
        return self._sinks

    async def return_impl(self, value: Any) -> None:
        """Ends all sinks, unless `forward_close` is off."""
        if self._forward_close:
            await _side_by_side([sink.return_(value) for sink in self._sinks])

    async def throw_impl(self, error: BaseException) -> None:
        """Ends all sinks with the error, unless `forward_close` is off."""
        if self._forward_close:
            await _side_by_side([sink.throw(error) for sink in self._sinks])

    async def _push(self, number: int, item: T) -> IteratorResult[Any]:
        result = await self._sinks[number].next(item)
        if result.done:
            self._done[number] = True
        return result


class PushForkObj(_PushGroup[T], stock=True):
    """Delivers each item to all sinks, side by side.

    Law: every sink gets every item; the push is done when all have accepted it.
    Order: each sink gets the items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held. A slow sink holds up the producer; put a bounded `PushPullBufferObj`
    before it to decouple it.
    Cost: O(number of sinks) an item.
    Cancel safety: a cancelled push has delivered its item to each sink whole or not at all; some
    may have it and others not.

    A sink that fails does not keep the item from the others; the producer then gets its error, or a
    group of several. A sink that says `done` gets no more; the fork is done when all are.

    Args:
        sinks: The push objects.
        concurrent: Whether the sinks get an item side by side (default), or one after the other.
        forward_close: Whether ending the fork ends its sinks (default). Turn it off where sinks are
            shared.

    Raises:
        TypeError: `sinks` is not iterable, or one of them is no push object.
        ValueError: There are no sinks.
    """

    def __init__(
        self,
        sinks: Iterable[PushProtocol[T]],
        *,
        concurrent: bool = True,
        forward_close: bool = True,
    ) -> None:
        super().__init__(sinks, forward_close=forward_close)
        self._concurrent = concurrent

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Delivers one item to every sink that is not done."""
        live = [number for number, done in enumerate(self._done) if not done]
        await _side_by_side(
            [self._push(number, item) for number in live], concurrent=self._concurrent
        )
        return IteratorResult(None, all(self._done))


class PushDistributeObj(_PushGroup[T], stock=True):
    """Delivers each item to the sink that `selector` names.

    Law: each item goes to exactly one sink, number `selector(item)`.
    Order: each sink gets its items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(1) and one call an item.
    Cancel safety: a cancelled push has delivered its item whole or not at all.

    Args:
        sinks: The push objects.
        selector: Called with each item; gives the number of its sink, from 0.
        forward_close: Whether ending this ends its sinks (default).

    Raises:
        TypeError: `sinks` is not iterable, one of them is no push object, or `selector` is not
            callable; at a push: the selector gave no integer.
        ValueError: There are no sinks.
        IndexError: At a push: the selector named no sink. The item is still the caller's.
    """

    def __init__(
        self,
        sinks: Iterable[PushProtocol[T]],
        selector: Callable[[T], int],
        *,
        forward_close: bool = True,
    ) -> None:
        super().__init__(sinks, forward_close=forward_close)
        self.selector = selector

    @property
    def selector(self) -> Callable[[T], int]:
        """The callable, live: a new one holds from the next item."""
        return self._selector

    @selector.setter
    def selector(self, selector: Callable[[T], int]) -> None:
        if not callable(cast("object", selector)):
            raise TypeError(
                f"selector must be callable, got {selector!r} ({type(selector).__name__})"
            )
        self._selector = selector

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Delivers one item to its sink."""
        number = cast("object", self._selector(item))
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(
                f"selector must give the number of a sink, got {number!r} ({type(number).__name__}) for {item!r}"
            )
        if not 0 <= number < len(self._sinks):
            raise IndexError(
                f"selector must give a number below {len(self._sinks)}, got {number} for {item!r}"
            )
        if not self._done[number]:
            await self._push(number, item)
        return IteratorResult(None, all(self._done))


async def _side_by_side(pushes: Sequence[Any], *, concurrent: bool = True) -> None:
    """Awaits all, whatever becomes of the others; then raises what went wrong: one error as it is, several as a group."""
    if len(pushes) == 1:
        await pushes[0]
        return
    if concurrent:
        outcomes = await asyncio.gather(*pushes, return_exceptions=True)
    else:
        outcomes = [await _outcome(push) for push in pushes]
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("several sinks failed", errors)


async def _outcome(push: Coroutine[Any, Any, Any]) -> BaseException | None:
    try:
        await push
    except Exception as error:
        return error
    return None
