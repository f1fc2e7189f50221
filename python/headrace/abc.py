"""The protocols of pull and push objects. The operators of `headrace.push` take a `PushProtocol` as their sink.

Python's own protocol comes first (`async for`, `anext`, `aclose`). The Obj protocol, which pull and push objects share,
complements it. headrace's classes fulfil these protocols, and any other push object that does can be used as a sink.
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
        """Return the next item, or the end (`done`)."""
        ...

    def return_(self, value: Any = None) -> Awaitable[IteratorResult[Any]]:
        """End the stream from the consumer's side."""
        ...

    def throw(self, error: BaseException) -> Awaitable[IteratorResult[Any]]:
        """End the stream with an error that is passed to its source."""
        ...


@runtime_checkable
class PushProtocol(Protocol[T_contra]):
    """Items on supply."""

    def next(self, item: T_contra) -> Awaitable[IteratorResult[Any]]:
        """Push an item; return when it is accepted.

        If `done` is set in the result, the sink accepts no further items.
        """
        ...

    def return_(self, value: Any = None) -> Awaitable[IteratorResult[Any]]:
        """End the supply."""
        ...

    def throw(self, error: BaseException) -> Awaitable[IteratorResult[Any]]:
        """End the supply with an error."""
        ...
