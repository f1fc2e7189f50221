"""Where pushed items end."""

from __future__ import annotations

from typing import Any, TypeVar

from headrace.push.base import PushObj

__all__ = ["SinkCollectObj", "SinkObj"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class SinkObj(PushObj[T_contra], stock=True):
    """The base of sinks of your own: override `next_impl(item)`, an async method."""


class SinkCollectObj(SinkObj[T], stock=True):
    """Keeps all items in a list. **Unbounded**: it holds everything that is pushed.

    Law: after pushing `items`, `buffer == items`.
    Order: of acceptance.
    Bound: none.
    Cost: O(1) an item.
    Cancel safety: it accepts at once, so no push waits here.
    """

    def __init__(self) -> None:
        self._buffer: list[T] = []
        super().__init__(self._buffer)

    @property
    def buffer(self) -> list[T]:
        """What was pushed, live: the list itself."""
        return self._buffer

    def __repr__(self) -> str:
        state: Any = "ended" if self.closed else "open"
        return f"<SinkCollectObj of {len(self._buffer)}, {state}>"
