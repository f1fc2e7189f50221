"""`PushObj`: the base of every push object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from headrace import _core
from headrace._core import IteratorResult, PushLink

if TYPE_CHECKING:
    from types import TracebackType

    from headrace.abc import PushProtocol

__all__ = ["PushObj"]

T_contra = TypeVar("T_contra", contravariant=True)

# What a subclass may override, so that no line runs it in place any more.
_PROTOCOL = frozenset(
    {"next_impl", "next", "next_nowait", "return_", "throw", "aclose", "return_impl", "throw_impl"}
)


class PushObj(PushLink[T_contra]):
    """An eager stream: whoever has an item pushes it in.

    `await obj.next(item)` returns when what is below has accepted the item: that is the
    back-pressure. Its result's `done` says that no more is wanted. `return_()` ends the supply,
    `throw(error)` ends it with an error; a push after that raises `ClosedError`, which carries the
    item.

    To make your own, override `next_impl(item)`, and `return_impl(value)` or `throw_impl(error)` if
    the end matters.

    Law: an item is accepted once, by all that it is for, or it is the caller's.
    Order: each push for itself; pushes are not serialised (see `PushSerialObj`).
    Bound: nothing is held.
    Cost: O(1) an item and stage.
    Cancel safety: a cancelled push has delivered its item whole or not at all.
    """

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
        """Ends the supply: what is below is told, and every later push raises `ClosedError`.

        Doing so again does nothing.
        """
        if _core.end_push(self):
            await self.return_impl(value)
        return IteratorResult(value, True)

    async def throw(self, error: BaseException) -> IteratorResult[Any]:
        """Ends the supply with an error, which what is below is told. Doing so again does nothing.

        Raises:
            TypeError: `error` is no exception.
        """
        if not isinstance(cast("object", error), BaseException):
            raise TypeError(f"error must be an exception, got {error!r} ({type(error).__name__})")
        if _core.end_push(self):
            await self.throw_impl(error)
        return IteratorResult(None, True)

    async def aclose(self) -> None:
        """Ends the supply, as `return_()`."""
        await self.return_()

    async def return_impl(self, value: Any) -> None:
        """What ending means for this object; called once.

        Override it to flush or to tell others.
        """

    async def throw_impl(self, error: BaseException) -> None:
        """What ending with an error means for this object; called once, instead of `return_impl`."""

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

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {'ended' if self.closed else 'open'}, at {id(self):#x}>"


def checked_sink(sink: PushProtocol[Any], parameter: str = "sink") -> PushProtocol[Any]:
    """The sink, if it is one.

    Raises:
        TypeError: It lacks a method of the push protocol.
    """
    missing = [
        name for name in ("next", "return_", "throw") if not callable(getattr(sink, name, None))
    ]
    if missing:
        kind = type(cast("object", sink)).__name__
        raise TypeError(
            f"{parameter} must be a push object, got {sink!r} ({kind}), which has no {' and no '.join(missing)}()"
        )
    return sink
