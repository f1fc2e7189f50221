"""`FanOut`: several sinks below one push object.

The core (`Fan`) runs the branches in place, one after the other, for as far as they go without
waiting. What has to wait comes back here and is awaited side by side.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from headrace._core import Fan, IteratorResult
from headrace._internal.error_notes import as_one, ends_program, raise_all
from headrace._internal.reprs import counted
from headrace._internal.tasks import settled
from headrace.push.base import (
    PushObj,
    acceptors,
    cancelling,
    name_acceptors,
    says_done,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from headrace.abc import PushProtocol

__all__ = ["FanOut"]

T = TypeVar("T")


class FanOut(PushObj[T], stock=True):
    """Several sinks below one push object."""

    __slots__ = ("_fan", "_forward_close")

    # Whether a selector may give None, for an item that goes nowhere.
    _drops = False

    def __init__(
        self,
        sinks: Sequence[PushProtocol[T]],
        route: Literal["all", "ring"] | Callable[[T], Any],
        *,
        concurrent: bool = True,
        forward_close: bool,
    ) -> None:
        self._forward_close = forward_close
        self._fan = Fan(list(sinks), route, concurrent)
        super().__init__(self._fan)

    def _facts(self) -> Iterator[str]:
        yield counted(len(self._fan.sinks), "sink")
        yield from super()._facts()

    async def return_impl(self, value: Any) -> None:
        """Ends all sinks, whatever becomes of the others, unless `forward_close` is off."""
        if self._forward_close:
            await _end_all([sink.return_ for sink in self._fan.sinks], value)

    async def throw_impl(self, error: BaseException) -> None:
        """Ends all sinks with the error, unless `forward_close` is off."""
        if self._forward_close:
            await _end_all([sink.throw for sink in self._fan.sinks], error)

    def _failure(
        self, accepted: list[int], errors: list[tuple[int, BaseException]]
    ) -> BaseException:
        """What a push raises whose item some branches did not take. The core calls it too."""
        sinks = self._fan.sinks
        names = [sinks[number] for number in sorted(accepted)]
        # By identity: a sink of somebody else's may be equal to another.
        own = set(map(id, sinks))
        names += [name for _, error in errors for name in acceptors(error) if id(name) not in own]
        found = [error for _, error in sorted(errors, key=lambda pair: pair[0])]
        error = as_one(found, "several sinks failed")
        self._name(error, names)
        return error

    def _name(self, error: BaseException, names: list[Any]) -> None:
        note = f"the item was accepted by {', '.join(map(repr, names))}" if names else ""
        name_acceptors(error, names, note)

    async def _settle(
        self,
        item: T,
        missing: list[int],
        accepted: list[int],
        errors: list[tuple[int, BaseException]],
        waiting: list[tuple[int, Awaitable[IteratorResult[Any]] | None]],
        later: list[int],
    ) -> IteratorResult[Any]:
        """Awaits the branches that have to wait; called by the core.

        Args:
            item: What is pushed.
            missing: The branches that lack the item. If this is cancelled, it says so of then: the core
                reads it.
            accepted: The branches that have it.
            errors: The branches that failed.
            waiting: The branches that wait, side by side, with what is to be awaited; `None` where
                that is the sink's own `next`.
            later: The branches whose turn comes after that, one by one.
        """
        delivery = _Delivery(self._fan, item, missing, accepted, errors)
        try:
            if len(waiting) == 1:
                await delivery.to(*waiting[0])
            else:
                await _side_by_side([delivery.to(*branch) for branch in waiting])
            for number in later:
                await delivery.to(number, None)
        except BaseException as error:
            delivery.close(waiting)
            missing[:] = delivery.missing
            if isinstance(error, asyncio.CancelledError) and not delivery.accepted:
                self._fan.step_back(missing[0] if missing else -1)
            sinks = self._fan.sinks
            names = [sinks[number] for number in sorted(delivery.accepted)]
            self._name(error, [*names, *delivery.below])
            for _, failure in errors:
                error.add_note(f"while it was cancelled: {failure!r}")
            raise
        if errors:
            raise self._failure(list(delivery.accepted), errors)
        return IteratorResult(None, self._fan.is_done)


class _Delivery(Generic[T]):
    """One item on its way into the branches that wait."""

    def __init__(
        self,
        fan: Fan,
        item: T,
        missing: list[int],
        accepted: list[int],
        errors: list[tuple[int, BaseException]],
    ) -> None:
        self._fan = fan
        self._item = item
        # As keys: a branch may leave from anywhere, whatever their number.
        self.missing: dict[int, None] = dict.fromkeys(missing)
        self.accepted: dict[int, None] = dict.fromkeys(accepted)
        self._errors = errors
        self._sinks = fan.sinks
        self._begun: set[int] = set()
        # What has the item below branches that were cancelled.
        self.below: list[Any] = []

    async def to(self, number: int, awaitable: Awaitable[IteratorResult[Any]] | None) -> None:
        """Awaits one branch, and notes what it came to."""
        self._begun.add(number)
        before = cancelling()
        try:
            if awaitable is None:
                awaitable = self._sinks[number].next(self._item)
            result = await awaitable
        except BaseException as error:
            has_below = acceptors(error)
            if isinstance(error, GeneratorExit) or (
                isinstance(error, asyncio.CancelledError) and cancelling() > before
            ):
                if has_below:
                    self._leave(number)
                    self.below += has_below
                raise
            self._leave(number)
            self._errors.append((number, error))
            if ends_program(error):
                raise
        else:
            self._leave(number)
            self.accepted[number] = None
            if says_done(result):
                self._fan.finish(number)

    def _leave(self, number: int) -> None:
        self.missing.pop(number, None)
        self.accepted.pop(number, None)

    def close(self, waiting: list[tuple[int, Any]]) -> None:
        """Gives up what was never begun."""
        for number, awaitable in waiting:
            if number not in self._begun and awaitable is not None:
                awaitable.close()


async def _end_all(ends: list[Callable[[Any], Awaitable[Any]]], argument: Any) -> None:
    """Calls all of them side by side, whatever becomes of the others."""
    errors: list[BaseException] = []

    async def end(method: Callable[[Any], Awaitable[Any]]) -> None:
        before = cancelling()
        try:
            await method(argument)
        except asyncio.CancelledError as error:
            if cancelling() > before:
                raise
            errors.append(error)
        except GeneratorExit:
            raise
        except BaseException as error:
            errors.append(error)

    if len(ends) == 1:
        await end(ends[0])
    else:
        await _side_by_side([end(method) for method in ends])
    raise_all(errors, "several sinks failed")


async def _side_by_side(running: list[Coroutine[Any, Any, None]]) -> None:
    """Awaits all, each in a task of its own. A cancellation cancels all of them, and waits for their ends."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in running]
    try:
        await asyncio.wait(tasks)
    except BaseException as struck:
        for task in tasks:
            task.cancel()
        # Thrown in by `close()`, when nobody can wait any more.
        if not isinstance(struck, GeneratorExit):
            await settled(*tasks)
        raise
    for task in tasks:
        # Only what means to end the program comes out of one.
        task.result()
