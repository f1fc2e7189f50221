"""Operators with several sinks: each item goes to all of them, or to one.

`PushChain.fork()`, `distribute()` and `round_robin()` create them.

The core (`Fan`) pushes into the branches in place, one after the other, until one has to wait. The waiting branches are
awaited here, concurrently.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from headrace._core import Fan, IteratorResult
from headrace._internal.error_notes import as_group, ends_program, raise_all
from headrace._internal.kernel_properties import KernelProperty
from headrace._internal.reprs import describe_value, pluralize
from headrace._internal.tasks import cancelling, is_cancellation, wait_until_done
from headrace._internal.validate import check_callable
from headrace.push.base import (
    PushObj,
    acceptors,
    checked_sink,
    checked_sinks,
    different_sinks,
    is_done_result,
    name_acceptors,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from headrace.abc import PushProtocol

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _FanOut(PushObj[T], stock=True):
    """The base of push objects with several sinks."""

    __slots__ = ("_fan", "_forward_close")

    # Whether a selector may return None, for an item that has no sink.
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

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(len(self._fan.sinks), "sink")
        yield from super()._repr_parts()

    async def return_impl(self, value: Any) -> None:
        """End all sinks, even if some fail, unless `forward_close` is off."""
        if self._forward_close:
            await _end_all([sink.return_ for sink in self._fan.sinks], value)

    async def throw_impl(self, error: BaseException) -> None:
        """End all sinks with the error, unless `forward_close` is off."""
        if self._forward_close:
            await _end_all([sink.throw for sink in self._fan.sinks], error)

    def _failure(
        self, accepted: list[int], errors: list[tuple[int, BaseException]]
    ) -> BaseException:
        """Return the error of a push whose item some branches did not accept. The core calls this too."""
        sinks = self._fan.sinks
        names = [sinks[number] for number in sorted(accepted)]
        # By identity: foreign sinks may compare equal.
        own = set(map(id, sinks))
        names += [name for _, error in errors for name in acceptors(error) if id(name) not in own]
        found = [error for _, error in sorted(errors, key=lambda pair: pair[0])]
        error = as_group(found, "several sinks failed")
        name_acceptors(error, names)
        return error

    async def _settle(
        self,
        item: T,
        missing: list[int],
        accepted: list[int],
        errors: list[tuple[int, BaseException]],
        waiting: list[tuple[int, Awaitable[IteratorResult[Any]] | None]],
        later: list[int],
    ) -> IteratorResult[Any]:
        """Await the branches that have to wait; called by the core.

        Args:
            item: The pushed item.
            missing: The branches that lack the item. After a cancellation, the core reads its current value.
            accepted: The branches that have accepted the item.
            errors: The branches that failed.
            waiting: The branches to await concurrently, each with its awaitable; `None` for the sink's own `next`.
            later: The branches to push into after that, one by one.
        """
        delivery = _Delivery(self._fan, item, missing, accepted, errors)
        try:
            if len(waiting) == 1:
                await delivery.to(*waiting[0])
            else:
                await _run_concurrently([delivery.to(*branch) for branch in waiting])
            for number in later:
                await delivery.to(number, None)
        except BaseException as error:
            delivery.close(waiting)
            missing[:] = delivery.missing
            if isinstance(error, asyncio.CancelledError) and not delivery.accepted:
                self._fan.step_back(missing[0] if missing else -1)
            sinks = self._fan.sinks
            names = [sinks[number] for number in sorted(delivery.accepted)]
            name_acceptors(error, [*names, *delivery.below])
            for _, failure in errors:
                error.add_note(f"while it was cancelled: {failure!r}")
            raise
        if errors:
            raise self._failure(list(delivery.accepted), errors)
        return IteratorResult(None, self._fan.is_done)


class _ListFanOut(_FanOut[T], stock=True):
    """The base of push objects with a list of sinks."""

    __slots__ = ()

    @property
    def sinks(self) -> Sequence[PushProtocol[T]]:
        """The sinks."""
        return tuple(self._fan.sinks)


class PushForkObj(_ListFanOut[T], stock=True):
    """Deliver each item to all sinks, concurrently.

    Law: every sink gets every item; the push is done when all have accepted it.
    Order: each sink gets the items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(number of sinks) an item.
    Cancel safety: a cancelled push has delivered its item to each sink whole or not at all; some may
    have it and others not. Those that have it are in the error's attribute `accepted_by`, a tuple.

    A slow sink delays the producer, and so the other sinks. A bounded buffer decouples it:

        buffer = PushPullBufferObj(100)
        fork = PushForkObj([fast, buffer.sink])
        ...  # and in a task of its own:
        await buffer.source.drain_to(slow)

    If a sink fails, the others still get the item; the push then raises its error, or a group of several, with
    `accepted_by`. A sink that returns `done` gets no more items; the fork is done when all sinks are. `next_nowait`
    delivers to all or to none, as far as can be determined without running callables. An async callable in one branch,
    or a callable that fills the buffer of another, is detected too late; the `WouldBlock` then names the sinks that
    have the item in `accepted_by`.

    Args:
        sinks: The push objects, each once.
        concurrent: Whether sinks that have to wait do so concurrently (default), or one after the other, each getting
            the item after those before it have accepted it.
        forward_close: Whether ending the fork ends its sinks (default). Turn it off where sinks are
            shared.

    Raises:
        TypeError: `sinks` is not iterable, or one of them is not a push object.
        ValueError: There are no sinks, or one of them is given twice.
    """

    __slots__ = ()

    def __init__(
        self,
        sinks: Iterable[PushProtocol[T]],
        *,
        concurrent: bool = True,
        forward_close: bool = True,
    ) -> None:
        super().__init__(
            different_sinks(sinks), "all", concurrent=concurrent, forward_close=forward_close
        )


class PushDistributeObj(_ListFanOut[T], stock=True):
    """Deliver each item to the sink that `selector` names.

    Law: each item goes to exactly one sink, number `selector(item)`.
    Order: each sink gets its items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(1) and one call per item.
    Cancel safety: a cancelled push has delivered its item whole or not at all.

    Items for a sink that is done are dropped; the push returns `done` when all sinks are done.

    Args:
        sinks: The push objects; one may be given more than once.
        selector: Sync or async, called with each item; returns the number of its sink, from 0.
        forward_close: Whether ending this ends its sinks (default).

    Raises:
        TypeError: `sinks` is not iterable, one of them is not a push object, or `selector` is not
            callable; at a push: the selector returned no integer.
        ValueError: There are no sinks.
        IndexError: At a push: the selector named no sink. The item stays with the caller.
    """

    __slots__ = ()

    selector: KernelProperty[Callable[[T], Any], Callable[[T], Any]] = KernelProperty(
        "The callable, live: a new one applies from the next item.", of="_fan"
    )

    def __init__(
        self,
        sinks: Iterable[PushProtocol[T]],
        selector: Callable[[T], int] | Callable[[T], Coroutine[Any, Any, int]],
        *,
        forward_close: bool = True,
    ) -> None:
        checked = checked_sinks(sinks)
        super().__init__(checked, check_callable("selector", selector), forward_close=forward_close)


class PushRoundRobinObj(_ListFanOut[T], stock=True):
    """Deliver items to the sinks in rotation.

    Law: item number `i` goes to `sinks[i % len(sinks)]`. A sink that is done is skipped from then on; the push returns
    `done` when all sinks are done.
    Order: each sink gets its items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(1) per item, and one check of each sink that is done.
    Cancel safety: a cancelled push has delivered its item whole or not at all; if not, the next push goes to the same
    sink, unless another push came in between. A failed push counts as the turn of its sink.

    Args:
        sinks: The push objects; one that is given twice gets twice as many items.
        forward_close: Whether ending this ends its sinks (default).

    Raises:
        TypeError: `sinks` is not iterable, or one of them is not a push object.
        ValueError: There are no sinks.
    """

    __slots__ = ()

    def __init__(self, sinks: Iterable[PushProtocol[T]], *, forward_close: bool = True) -> None:
        super().__init__(checked_sinks(sinks), "ring", forward_close=forward_close)


class PushLabeledDistributeObj(_FanOut[T], Generic[K, T], stock=True):
    """Deliver each item to the sink whose label `selector` returns.

    Law: each item goes to exactly one sink, `sinks[selector(item)]`, or as `missing` says.
    Order: each sink gets its items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(1) and one call per item.
    Cancel safety: a cancelled push has delivered its item whole or not at all.

    Args:
        sinks: The push objects by label; one may have several labels.
        selector: Sync or async, called with each item; returns its label.
        missing: The fate of an item whose label is unknown: `"raise"` a `KeyError` (default), `"drop"` the item, or
            push it into the given sink.
        forward_close: Whether ending this ends its sinks (default), that of `missing` included.

    Raises:
        TypeError: `sinks` is not a mapping, one of them or `missing` is not a push object, or `selector` is not
            callable; at a push: the selector returned a value that cannot be a label.
        ValueError: There are no sinks, or `missing` is a different string.
        KeyError: At a push: no sink has that label. The item stays with the caller.
    """

    __slots__ = ("_by_label", "_drops", "_labeled")

    selector: KernelProperty[Callable[[T], Any], Callable[[T], Any]] = KernelProperty(
        "The callable, live: a new one applies from the next item.",
        of="_by_label",
        check=check_callable,
    )

    def __init__(
        self,
        sinks: Mapping[K, PushProtocol[T]],
        selector: Callable[[T], K] | Callable[[T], Coroutine[Any, Any, K]],
        missing: Literal["raise", "drop"] | PushProtocol[T] = "raise",
        *,
        forward_close: bool = True,
    ) -> None:
        if not isinstance(cast("object", sinks), Mapping):
            raise TypeError(f"sinks must be a mapping of push objects, got {describe_value(sinks)}")
        self._labeled = dict(sinks)
        if not self._labeled:
            raise ValueError("sinks must hold at least one push object, got none")
        for label, sink in self._labeled.items():
            checked_sink(sink, f"sinks[{label!r}]")
        ways = list(self._labeled.values())
        if not isinstance(missing, str):
            ways.append(checked_sink(missing, "missing"))
        elif missing not in ("raise", "drop"):
            raise ValueError(f'missing must be "raise", "drop" or a push object, got {missing!r}')
        self._drops = missing == "drop"
        self._by_label = _ByLabel(
            {label: number for number, label in enumerate(self._labeled)},
            check_callable("selector", selector),
            missing,
        )
        super().__init__(ways, self._by_label, forward_close=forward_close)

    @property
    def sinks(self) -> Mapping[K, PushProtocol[T]]:
        """The sinks, by label."""
        return MappingProxyType(self._labeled)


class _ByLabel:
    """A selector of sink numbers, based on a selector of labels."""

    def __init__(
        self, numbers: dict[Any, int], selector: Callable[[Any], Any], missing: Any
    ) -> None:
        self._numbers = numbers
        self.selector = selector
        self._missing = missing

    def __call__(self, item: Any) -> Any:
        label = self.selector(item)
        if inspect.isawaitable(label):
            return self._await_number(label, item)
        return self._number(label, item)

    async def _await_number(self, label: Awaitable[Any], item: Any) -> int | None:
        return self._number(await label, item)

    def _number(self, label: Any, item: Any) -> int | None:
        try:
            number = self._numbers.get(label)
        except TypeError as error:
            raise TypeError(
                f"selector must give a label, which is hashable, got {label!r} ({type(label).__name__}) for {item!r}"
            ) from error
        if number is not None or self._missing == "drop":
            return number
        if self._missing == "raise":
            raise KeyError(
                f"selector gave {describe_value(label)} for {item!r}, and no sink has that label"
            )
        return len(self._numbers)


class _Delivery(Generic[T]):
    """One item being pushed into the waiting branches."""

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
        # As keys: any branch can be removed in O(1).
        self.missing: dict[int, None] = dict.fromkeys(missing)
        self.accepted: dict[int, None] = dict.fromkeys(accepted)
        self._errors = errors
        self._sinks = fan.sinks
        self._begun: set[int] = set()
        # The objects that accepted the item below cancelled branches.
        self.below: list[Any] = []

    async def to(self, number: int, awaitable: Awaitable[IteratorResult[Any]] | None) -> None:
        """Await one branch, and record its outcome."""
        self._begun.add(number)
        before = cancelling()
        try:
            if awaitable is None:
                awaitable = self._sinks[number].next(self._item)
            result = await awaitable
        except BaseException as error:
            has_below = acceptors(error)
            if is_cancellation(error, before):
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
            if is_done_result(result):
                self._fan.finish(number)

    def _leave(self, number: int) -> None:
        self.missing.pop(number, None)
        self.accepted.pop(number, None)

    def close(self, waiting: list[tuple[int, Any]]) -> None:
        """Drop the branches that were not started."""
        for number, awaitable in waiting:
            if number not in self._begun and awaitable is not None:
                awaitable.close()


async def _end_all(ends: list[Callable[[Any], Awaitable[Any]]], argument: Any) -> None:
    """Call all of them concurrently, even if some fail."""
    errors: list[BaseException] = []

    async def end(method: Callable[[Any], Awaitable[Any]]) -> None:
        before = cancelling()
        try:
            await method(argument)
        except BaseException as error:
            if is_cancellation(error, before):
                raise
            errors.append(error)

    if len(ends) == 1:
        await end(ends[0])
    else:
        await _run_concurrently([end(method) for method in ends])
    raise_all(errors, "several sinks failed")


async def _run_concurrently(running: list[Coroutine[Any, Any, None]]) -> None:
    """Await all, each in its own task. A cancellation cancels all tasks and waits until they have ended."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in running]
    try:
        await asyncio.wait(tasks)
    except BaseException as cancellation:
        for task in tasks:
            task.cancel()
        # Raised by `close()`, after which waiting is impossible.
        if not isinstance(cancellation, GeneratorExit):
            await wait_until_done(*tasks)
        raise
    for task in tasks:
        # Only errors that end the program propagate out of such a task.
        task.result()
