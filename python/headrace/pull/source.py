"""Where pull streams begin."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import Any, TypeVar, cast

from headrace._core import ForeignFeed, IterFeed, StoreFeed
from headrace.pull.base import PullObj

__all__ = ["Source", "SourceBufferObj", "SourceIterObj", "SourceObj", "as_pull"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Source = Iterable[T_co] | AsyncIterable[T_co]
"""What is accepted wherever a stream is wanted: a pull object, or any iterable, sync or async."""


class SourceObj(PullObj[T_co], stock=True):
    """The base of sources of your own: override `pull_impl` as an async generator method."""


class SourceBufferObj(SourceObj[T], stock=True):
    """The items that it is given, and those that are added to its `buffer` while it runs.

    Law: `list(SourceBufferObj(items))` is `list(items)`; the buffer is empty then.
    Order: first in, first out.
    Bound: what you put in; the items given are copied.
    Cost: O(1) an item.
    Cancel safety: a pull never waits here, so none can be cancelled.

    Args:
        items: Any iterable; it is copied at once.

    Raises:
        TypeError: `items` is not iterable.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._buffer: deque[T] = deque(_checked(items, "items"))
        super().__init__(StoreFeed(self._buffer))

    @property
    def buffer(self) -> deque[T]:
        """What has not been pulled yet, live: append to it to add items, also while the stream runs."""
        return self._buffer


class SourceIterObj(SourceObj[T_co], stock=True):
    """The items of any iterable, sync or async.

    Law: the items of the iterable, each once. Its iterator is made at the first pull.
    Order: the iterable's.
    Bound: nothing is held.
    Cost: O(1) an item, besides the iterable's own.
    Cancel safety: of a sync iterable no pull can be cancelled. An async generator is ended by a
    cancelled pull; the next pull then raises `SourceCancelledError`. What another async iterator
    does then is its own business.

    Args:
        iterable: The items. `restart()` takes a new iterator of it, and raises if it is an iterator
            itself.

    Raises:
        TypeError: It is not iterable.
    """

    def __init__(self, iterable: Source[T_co]) -> None:
        if isinstance(iterable, AsyncIterable):
            super().__init__(ForeignFeed(cast("Any", iterable)))
        else:
            super().__init__(IterFeed(_checked(iterable, "iterable")))


def as_pull(source: Source[T]) -> PullObj[T]:
    """A pull object for any source: itself, if it is one.

    Raises:
        TypeError: It is not iterable.
    """
    if isinstance(source, PullObj):
        return source
    if not isinstance(source, AsyncIterable):
        _checked(source, "source")
    return SourceIterObj(source)


def _checked(iterable: Iterable[T], parameter: str) -> Iterable[T]:
    # Not `isinstance(..., Iterable)`: a class with `__getitem__` alone can be iterated too.
    kind = type(cast("object", iterable))
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        raise TypeError(
            f"{parameter} must be an iterable or an async iterable, got {iterable!r} ({kind.__name__})"
        )
    return iterable
