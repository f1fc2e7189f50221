"""Sinks, the ends of push pipelines: into a list, into callbacks, and into nothing.

`BufferSink` and `SinkWriterObj` derive from `SinkObj`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace._core import Callbacks
from headrace._internal.reprs import callable_names, format_count
from headrace.push.base import PushObj

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class SinkObj(PushObj[T_contra], stock=True):
    """The base of sinks of your own: override `next_impl(item)`, an async method."""

    __slots__ = ()


class SinkCollectObj(SinkObj[T], stock=True):
    """Collect all items in a list. **Unbounded** unless `maxsize` is given: it keeps every pushed item.

    Law: after pushing `items`, `buffer == items[:maxsize]`. The push that fills it returns `done`; items pushed while
    it is full are dropped, and their pushes return `done` too.
    Order: of acceptance.
    Bound: `maxsize` items; none by default.
    Cost: O(1) per item.
    Cancel safety: items are accepted immediately; no push waits here.

    Args:
        maxsize: The maximum number of items, a positive integer; `None` for no limit.

    Raises:
        TypeError: `maxsize` is not an integer.
        ValueError: `maxsize` is not positive.
    """

    __slots__ = ("_buffer", "_maxsize")

    def __init__(self, maxsize: int | None = None) -> None:
        self._buffer: list[T] = []
        self._maxsize = maxsize
        super().__init__(self._buffer, maxsize=maxsize)

    @property
    def buffer(self) -> list[T]:
        """The pushed items, live: the list itself."""
        return self._buffer

    @property
    def maxsize(self) -> int | None:
        """The maximum number of items; `None` for no limit."""
        return self._maxsize

    def _repr_parts(self) -> Iterator[str]:
        yield format_count(len(self._buffer), self._maxsize, "items")
        yield from super()._repr_parts()


class SinkCallbackObj(SinkObj[T_contra], stock=True):
    """Call one or more callbacks with each item.

    Law: `for callback in callbacks: callback(item)`, each awaited if it is awaitable; an item is accepted when the last
    one has finished.
    Order: of arrival, for as long as nothing suspends; the callbacks of an item in the order given.
    Bound: nothing is held.
    Cost: O(1) per item, and one call for each callback.
    Cancel safety: a push cancelled in a callback is not accepted, though those before that one have
    been called. So it is with an error.

    Args:
        callbacks: Sync or async, at least one.

    Raises:
        TypeError: One of them is not callable.
        ValueError: No callback is given.
    """

    __slots__ = ("_callbacks",)

    def __init__(self, *callbacks: Callable[[T_contra], Any]) -> None:
        self._callbacks = Callbacks(*_at_least_one(callbacks))
        super().__init__(self._callbacks)

    @property
    def callbacks(self) -> tuple[Callable[[T_contra], Any], ...]:
        """The callables, live: new ones apply from the next item."""
        return self._callbacks.functions

    @callbacks.setter
    def callbacks(self, callbacks: tuple[Callable[[T_contra], Any], ...]) -> None:
        self._callbacks.functions = _at_least_one(tuple(callbacks))

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_names(self.callbacks)}"
        yield from super()._repr_parts()


class SinkNullObj(SinkObj[T_contra], stock=True):
    """Accept every item and drop it.

    Law: items have no effect.
    Order: none.
    Bound: nothing is held.
    Cost: O(1) per item.
    Cancel safety: items are accepted immediately; no push waits here.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Callbacks())


def _at_least_one(callbacks: tuple[Callable[[Any], Any], ...]) -> tuple[Callable[[Any], Any], ...]:
    if not callbacks:
        raise ValueError("callbacks must hold at least one callable, got none; see SinkNullObj")
    return callbacks
