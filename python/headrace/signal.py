"""A signal: one value for everybody who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from headrace._core import Signal
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import shown, told

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WaitObject"]

T = TypeVar("T")


class WaitObject(Uncopied, Signal[T]):
    """One value for everybody who waits for it, from any thread.

    `await signal.wait()` gives the value of the next `resolve(value)`. Iterating it gives one value
    after another, until `stop()`. A thread without a loop waits with `wait_sync(timeout=None)`, which
    raises `TimeoutError` after so many real seconds.

    Law: `resolve` wakes everybody who waits at that moment. If nobody does, or everybody who was
    woken was cancelled before taking the value, it is kept for the next one; of several that are
    kept the last one wins. `reject(error)` raises in everybody who waits and in everybody who
    comes, until `reset()`.
    Order: those who wait are woken in the order in which they came, tasks and threads in one line.
    Bound: one value.
    Cost: O(1) to wait, O(number of those who wait) to resolve.
    Cancel safety: a cancelled wait loses nothing.
    """

    _instead = "hand on the object itself, in any thread of this process"

    def __repr__(self) -> str:
        return told(type(self).__name__, self._facts())

    def _facts(self) -> Iterator[str]:
        yield f"{self.waiting} waiting"
        yield "stopped" if self.stopped else "open"


def checked_signal(wait_obj: WaitObject[T]) -> WaitObject[T]:
    """The signal, if it is one.

    Raises:
        TypeError: It is something else.
    """
    given = cast("object", wait_obj)
    if not isinstance(given, WaitObject):
        raise TypeError(f"wait_obj must be a WaitObject, got {shown(given)}")
    return wait_obj
