"""`PushObj`: the base of every push object."""

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

# What a subclass may override, so that no line runs it in place any more.
_PROTOCOL = frozenset(
    {"next_impl", "next", "next_nowait", "return_", "throw", "aclose", "return_impl", "throw_impl"}
)


class PushObj(PushLink[T_contra], DescribeMixin):
    """An eager stream: whoever has an item pushes it in.

    `await obj.next(item)` returns when what is below has accepted the item: that is the
    back-pressure. Its result's `done` says that no more is wanted; what is pushed all the same is
    dropped. `return_()` ends the supply, `throw(error)` ends it with an error; a push after that
    raises `ClosedError`, which carries the item. `next_nowait(item)` is for producers that cannot
    wait: it delivers, or raises `WouldBlock`, and the item is still the producer's.

    To make your own, override `next_impl(item)`, and `return_impl(value)` or `throw_impl(error)` if
    the end matters.

    Law: an item is accepted once, by all that it is for, or it is the caller's.
    Order: each push for itself; pushes are not serialised (see `PushSerialObj`).
    Bound: nothing is held, but for what a stage with state made of an item whose push was cancelled.
    Cost: O(1) per item and stage.
    Cancel safety: a cancelled push has delivered its item whole or not at all. A stage that keeps
    state (a window, a set of keys, a running result) cannot give an item back: cancelled below it, a
    push leaves there what it made of the item, and the next push or the end delivers that first.
    The error then names the stage in its attribute `accepted_by`, a tuple; where that is missing or
    empty, the item is the caller's.
    """

    # What stock objects have stands in slots: while the `__dict__` is not there yet, which is for you, CPython finds a
    # method at once.
    __slots__ = ("__dict__",)

    _is_opaque: ClassVar[bool] = False
    _has_own_push: ClassVar[bool] = False

    def __init_subclass__(cls, *, stock: bool = False, **kwargs: Any) -> None:
        """Notes what a subclass overrides.

        `stock` is headrace's own: its overrides change nothing that fusing would skip.
        """
        super().__init_subclass__(**kwargs)
        overridden: frozenset[str] = frozenset() if stock else _PROTOCOL & cls.__dict__.keys()
        if overridden:
            cls._is_opaque = True
        # Also in headrace's own classes: an item that they take goes to their Python code.
        if "next_impl" in cls.__dict__:
            cls._is_opaque = True
            cls._has_own_push = True

    async def return_(self, value: Any = None) -> IteratorResult[Any]:
        """Ends the supply: what is still held goes out, what is below is told, and every later push raises `ClosedError`.

        Doing so again does nothing, unless it was cancelled: then it goes on.
        """
        if _core.end_push(self):
            await self._settle_end(self.return_impl(value))
        return IteratorResult(value, True)

    async def throw(self, error: BaseException) -> IteratorResult[Any]:
        """Ends the supply with an error, which what is below is told; what is still held is dropped.

        Doing so again does nothing, unless it was cancelled: then it goes on.

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
        """Ends the supply, as `return_()`."""
        await self.return_()

    async def return_impl(self, value: Any) -> None:
        """What ending means for this object; called once, and again only if it was cancelled.

        Override it to flush or to tell others.
        """

    async def throw_impl(self, error: BaseException) -> None:
        """What ending with an error means for this object, instead of `return_impl`."""

    async def __aenter__(self) -> Self:
        """The push object; it is ended at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the supply: with the error of the block, if there is one."""
        if error is None:
            await self.return_()
        else:
            await self.throw(error)

    def _repr_state(self) -> Iterator[str]:
        yield "ended" if self.closed else "open"


def checked_sink(sink: PushProtocol[Any], parameter: str = "sink") -> PushProtocol[Any]:
    """The sink, if it is one.

    Raises:
        TypeError: It lacks a method of the push protocol; or it has all of their names, and is a pull
            object all the same, or a class.
    """
    given = cast("object", sink)
    what = None
    if isinstance(given, type):
        what = "a class: make one of it"
    elif isinstance(given, PullLink):
        what = "a pull object"
    if what is not None:
        raise TypeError(
            f"{parameter} must be a push object, got {describe_value(sink)}, which is {what}"
        )
    missing = [
        name for name in ("next", "return_", "throw") if not callable(getattr(sink, name, None))
    ]
    if missing:
        raise TypeError(
            f"{parameter} must be a push object, got {describe_value(sink)}, which has no {' and no '.join(missing)}()"
        )
    return sink


def checked_selector(selector: Any) -> Any:
    """The selector, if it is callable.

    Raises:
        TypeError: It is not.
    """
    if not callable(selector):
        raise TypeError(f"selector must be callable, got {describe_value(selector)}")
    return selector


def checked_sinks(sinks: Iterable[PushProtocol[T]]) -> tuple[PushProtocol[T], ...]:
    """The sinks, if they are some.

    Raises:
        TypeError: It is not iterable, or one of them is not a push object.
        ValueError: There are none.
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
    """The sinks, if they are some, each once.

    Raises:
        TypeError: It is not iterable, or one of them is not a push object.
        ValueError: There are none, or one of them is given twice.
    """
    checked = checked_sinks(sinks)
    places: dict[int, int] = {}
    for number, sink in enumerate(checked):
        if (first := places.setdefault(id(sink), number)) != number:
            raise ValueError(
                f"sinks must be different from each other, got {sink!r} as sinks[{first}] and sinks[{number}]"
            )
    return checked


def cancelling() -> int:
    """How often the running task has been asked to cancel.

    A `CancelledError` is a cancellation only if this number rose; otherwise it is an error like any
    other.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def acceptors(error: BaseException) -> tuple[Any, ...]:
    """Who has the item of a push that raised this."""
    return getattr(error, "accepted_by", ())


def name_acceptors(error: BaseException, names: Iterable[Any], note: str = "") -> None:
    """Says in an error who has the item all the same."""
    # An exception that takes no attribute still has to arrive.
    with suppress(Exception):
        vars(error)["accepted_by"] = tuple(names)
        if note:
            add_note_once(error, note)


def says_done(result: Any) -> bool:
    """Whether a push came to `done`; somebody else's may come to nothing at all."""
    if result is None:
        return False
    if not isinstance(cast("object", result), IteratorResult):
        raise TypeError(
            f"the result of a push must be None or an IteratorResult, got {describe_value(result)}"
        )
    return bool(result.done)


def refuse_after_end(link: PushObj[Any], item: Any) -> None:
    """What the driver sees to for the others.

    Raises:
        ClosedError: `link` was ended.
    """
    if link.closed:
        raise ClosedError("pushed after the end; the item is in this error's `item`", item=item)


def pushes_now(sink: PushProtocol[T]) -> Callable[[T], IteratorResult[Any]]:
    """`sink.next_nowait`, of a push object that has it.

    Raises:
        TypeError: It has none.
    """
    try:
        next_nowait: Callable[[T], IteratorResult[Any]] = cast("Any", sink).next_nowait
    except AttributeError:
        raise TypeError(
            f"{describe_value(sink)} cannot be pushed into without waiting: it has no next_nowait(); await next(item)"
        ) from None
    return next_nowait


def push_now(sink: PushProtocol[Any], item: Any) -> IteratorResult[Any]:
    """`sink.next_nowait(item)`, of a push object that has it."""
    return checked_result(sink, pushes_now(sink)(item))


def checked_result(sink: PushProtocol[Any], result: Any) -> IteratorResult[Any]:
    """The result of `sink.next_nowait`; a class of the user may return nothing, which accepts the item.

    Raises:
        TypeError: It is something else. The sink has the item all the same.
    """
    if result is None:
        return IteratorResult(None, False)
    if isinstance(cast("object", result), IteratorResult):
        checked: IteratorResult[Any] = result
        return checked
    error = TypeError(
        f"the result of next_nowait of {type(sink).__name__} must be None or an IteratorResult, got {describe_value(result)}"
    )
    name_acceptors(error, (sink,))
    raise error
