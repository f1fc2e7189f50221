"""The protocols of pull and push objects.

Python's own protocol comes first (`async for`, `anext`, `aclose`). Beside it stands the Obj
protocol, which pull and push objects share. headrace's classes fulfil these protocols, and a push
object of somebody else's that does so can be used as a sink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from headrace._core import IteratorResult

__all__ = ["PullProtocol", "PushProtocol"]

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


@runtime_checkable
class PullProtocol(Protocol[T_co]):
    """Items on demand."""

    def next(self) -> Awaitable[IteratorResult[T_co]]:
        """The next item, or the end (`done`)."""
        ...

    def return_(self, value: Any = None) -> Awaitable[IteratorResult[Any]]:
        """Ends the stream from the consumer's side."""
        ...

    def throw(self, error: BaseException) -> Awaitable[IteratorResult[Any]]:
        """Ends the stream with an error that reaches its source."""
        ...


@runtime_checkable
class PushProtocol(Protocol[T_contra]):
    """Items on supply."""

    def next(self, item: T_contra) -> Awaitable[IteratorResult[Any]]:
        """Takes an item; done when it is accepted.

        `done` in the result says that no more is wanted.
        """
        ...

    def return_(self, value: Any = None) -> Awaitable[IteratorResult[Any]]:
        """Ends the supply."""
        ...

    def throw(self, error: BaseException) -> Awaitable[IteratorResult[Any]]:
        """Ends the supply with an error."""
        ...
