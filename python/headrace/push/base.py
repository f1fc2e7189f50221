"""`PushObj`: the base of every push object, and checks that push operators share.

The native `PushLink` pushes through fused stages; this class ends and describes push objects, and records which methods a subclass
overrides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import headrace._core as _core
from headrace._core import IteratorResult, PullLink, PushLink
from headrace._internal.error_notes import add_note_once
from headrace._internal.reprs import DescribeMixin, describe_value
from headrace.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import TracebackType

    from headrace.abc import PushProtocol

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

# Methods that, once a subclass overrides them, keep its objects out of fused pipelines.
_PROTOCOL = frozenset(
    {"next_impl", "next", "next_nowait", "return_", "throw", "aclose", "return_impl", "throw_impl"}
)


class PushObj(PushLink[T_contra], DescribeMixin):
    """An eager stream: producers push items into it.

    `await obj.next(item)` returns when the stages below have accepted the item, which is the back-pressure. If `done`
    is set in its result, no further items are needed, and later ones are dropped. `return_()` ends the supply,
    `throw(error)` ends it with an error; a later push raises `ClosedError`, which carries the item. `next_nowait(item)`
    is for producers that cannot wait: it delivers, or raises `WouldBlock`, and the item stays with the producer.

    To make your own, override `next_impl(item)`, and `return_impl(value)` or `throw_impl(error)` if
    the end matters.

    Law: an item is accepted once, by all its receivers, or it stays with the caller.
    Order: concurrent pushes are not serialised (see `PushSerialObj`).
    Bound: nothing is held, except the output of a stateful stage for an item whose push was cancelled.
    Cost: O(1) per item and stage.
    Cancel safety: a cancelled push has delivered its item whole or not at all. A stateful stage (a window, a set of
    keys, a running result) cannot return an item. If a push is cancelled below it, the stage keeps its output, and the
    next push or the end delivers that first. The error then names the stage in its attribute `accepted_by`, a tuple; if
    that is missing or empty, the item stays with the caller.
    """

    # Stock objects keep their attributes in slots. CPython finds methods faster while the `__dict__`, which is for
    # subclasses, is not created yet.
    __slots__ = ("__dict__",)

    _is_opaque: ClassVar[bool] = False
    _has_own_push: ClassVar[bool] = False

    def __init_subclass__(cls, *, stock: bool = False, **kwargs: Any) -> None:
        """Record which methods a subclass overrides.

        `stock` is for headrace's own classes: fusing skips none of the behaviour that they
        override.
        """
        super().__init_subclass__(**kwargs)
        overridden: frozenset[str] = frozenset() if stock else _PROTOCOL & cls.__dict__.keys()
        if overridden:
            cls._is_opaque = True
        # Also in headrace's own classes: their items are handled by Python code.
        if "next_impl" in cls.__dict__:
            cls._is_opaque = True
            cls._has_own_push = True

    async def return_(self, value: Any = None) -> IteratorResult[Any]:
        """End the supply: deliver held items, end the stages below; every later push raises `ClosedError`.

        Idempotent; called again after a cancellation, it continues.
        """
        if _core.end_push(self):
            await self._settle_end(self.return_impl(value))
        return IteratorResult(value, True)

    async def throw(self, error: BaseException) -> IteratorResult[Any]:
        """End the supply with an error: drop held items and pass the error to the stages below.

        Idempotent; called again after a cancellation, it continues.

        Raises:
            TypeError: `error` is not an exception.
        """
        if not isinstance(cast("object", error), BaseException):
            raise TypeError(f"error must be an exception, got {describe_value(error)}")
        if _core.end_push(self):
            await self._settle_end(self.throw_impl(error))
        return IteratorResult(None, True)

    async def _settle_end(self, ending: Coroutine[Any, Any, None]) -> None:
        ended = True
        try:
            await ending
        except (asyncio.CancelledError, GeneratorExit):
            ended = False
            raise
        finally:
            _core.settle_push(self, ended)

    async def aclose(self) -> None:
        """End the supply, as `return_()` does."""
        await self.return_()

    async def return_impl(self, value: Any) -> None:
        """End this object; called once, and again only if it was cancelled.

        Override it to flush items or to end other objects.
        """

    async def throw_impl(self, error: BaseException) -> None:
        """End this object with an error; called in place of `return_impl`."""

    async def __aenter__(self) -> Self:
        """Return the push object; it is ended at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the supply, with the error of the block if there is one."""
        if error is None:
            await self.return_()
        else:
            await self.throw(error)

    def _repr_state(self) -> Iterator[str]:
        yield "ended" if self.closed else "open"


def checked_sink(sink: PushProtocol[Any], parameter: str = "sink") -> PushProtocol[Any]:
    """Return the argument if it is a sink.

    Raises:
        TypeError: It lacks a method of the push protocol, or has all of them but is a pull object or a class.
    """
    given = cast("object", sink)
    kind = None
    if isinstance(given, type):
        kind = "a class: make one of it"
    elif isinstance(given, PullLink):
        kind = "a pull object"
    if kind is not None:
        raise TypeError(
            f"{parameter} must be a push object, got {describe_value(sink)}, which is {kind}"
        )
    missing = [
        name for name in ("next", "return_", "throw") if not callable(getattr(sink, name, None))
    ]
    if missing:
        raise TypeError(
            f"{parameter} must be a push object, got {describe_value(sink)}, which has no {' and no '.join(missing)}()"
        )
    return sink


def checked_sinks(sinks: Iterable[PushProtocol[T]]) -> tuple[PushProtocol[T], ...]:
    """Return the sinks as a tuple.

    Raises:
        TypeError: It is not iterable, or one of them is not a push object.
        ValueError: There are no sinks.
    """
    if not isinstance(cast("object", sinks), Iterable):
        raise TypeError(f"sinks must be an iterable of push objects, got {describe_value(sinks)}")
    checked = tuple(sinks)
    if not checked:
        raise ValueError("sinks must hold at least one push object, got none")
    for number, sink in enumerate(checked):
        checked_sink(sink, f"sinks[{number}]")
    return checked


def different_sinks(sinks: Iterable[PushProtocol[T]]) -> tuple[PushProtocol[T], ...]:
    """Return the sinks as a tuple, each of which must be given once.

    Raises:
        TypeError: It is not iterable, or one of them is not a push object.
        ValueError: There are no sinks, or one of them is given twice.
    """
    checked = checked_sinks(sinks)
    positions: dict[int, int] = {}
    for number, sink in enumerate(checked):
        if (first := positions.setdefault(id(sink), number)) != number:
            raise ValueError(
                f"sinks must be different from each other, got {sink!r} as sinks[{first}] and sinks[{number}]"
            )
    return checked


def acceptors(error: BaseException) -> tuple[Any, ...]:
    """Return the objects that accepted the item of a push that raised this error."""
    return getattr(error, "accepted_by", ())


def name_acceptors(error: BaseException, names: Iterable[Any], note: str | None = None) -> None:
    """Record in an error which objects accepted the item, and name them in a note, or add `note` instead."""
    accepted_by = tuple(names)
    # An exception that takes no attribute must still be raised.
    with suppress(Exception):
        vars(error)["accepted_by"] = accepted_by
        if note is None and accepted_by:
            note = f"the item was accepted by {', '.join(map(repr, accepted_by))}"
        if note:
            add_note_once(error, note)


def is_done_result(result: Any) -> bool:
    """Return whether a push returned `done`; a foreign push object may return None."""
    if result is None:
        return False
    if not isinstance(cast("object", result), IteratorResult):
        raise TypeError(
            f"the result of a push must be None or an IteratorResult, got {describe_value(result)}"
        )
    return bool(result.done)


def refuse_after_end(link: PushObj[Any], item: Any) -> None:
    """Check that a link was not ended. For other links the driver does this.

    Raises:
        ClosedError: `link` was ended.
    """
    if link.closed:
        raise ClosedError("pushed after the end; the item is in this error's `item`", item=item)


def require_next_nowait(sink: PushProtocol[T]) -> Callable[[T], IteratorResult[Any]]:
    """Return `sink.next_nowait`.

    Raises:
        TypeError: The sink has no `next_nowait`.
    """
    try:
        next_nowait: Callable[[T], IteratorResult[Any]] = cast("Any", sink).next_nowait
    except AttributeError:
        raise TypeError(
            f"{describe_value(sink)} cannot be pushed into without waiting: it has no next_nowait(); await next(item)"
        ) from None
    return next_nowait


def push_now(sink: PushProtocol[Any], item: Any) -> IteratorResult[Any]:
    """Call `sink.next_nowait(item)` and check its result."""
    return checked_result(sink, require_next_nowait(sink)(item))


def checked_result(sink: PushProtocol[Any], result: Any) -> IteratorResult[Any]:
    """Return the result of `sink.next_nowait`; a user's class may return None, which accepts the item.

    Raises:
        TypeError: It is neither; the sink has accepted the item nevertheless.
    """
    if result is None:
        return IteratorResult(None, False)
    if isinstance(cast("object", result), IteratorResult):
        checked: IteratorResult[Any] = result
        return checked
    error = TypeError(
        f"the result of next_nowait of {type(sink).__name__} must be None or an IteratorResult, got {describe_value(result)}"
    )
    name_acceptors(error, (sink,), "")
    raise error
