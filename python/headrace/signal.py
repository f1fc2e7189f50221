"""`WaitObject`: a signal that delivers one value to all its waiters. It is used by `gate`, `PushSignalObj` and `tee`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from headrace._core import Signal
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin, describe_value

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class WaitObject(ReprMixin, Uncopied, Signal[T]):
    """A signal that delivers one value to all its waiters, from any thread.

    `await signal.wait()` returns the value of the next `resolve(value)`. Iterating the signal yields one value after
    another, until `stop()`. A thread without a loop waits with `wait_sync(timeout=None)`, which raises `TimeoutError`
    after that many real seconds.

    Law: `resolve` wakes all current waiters. If there are none, or all woken waiters are cancelled before taking the
    value, the value is kept for the next waiter; a later value replaces a kept one. `reject(error)` raises in all
    current and later waiters, until `reset()`.
    Order: waiters are woken in FIFO order; tasks and threads share one wait queue.
    Bound: one value.
    Cost: O(1) to wait, O(number of waiters) to resolve.
    Cancel safety: a cancelled wait loses no value.
    """

    _instead = "hand on the object itself, in any thread of this process"

    def _repr_parts(self) -> Iterator[str]:
        yield f"{self.waiting} waiting"
        yield "stopped" if self.stopped else "open"


def check_signal(parameter: str, signal: WaitObject[T]) -> WaitObject[T]:
    """Return the argument if it is a signal.

    Raises:
        TypeError: It is not a signal.
    """
    given = cast("object", signal)
    if not isinstance(given, WaitObject):
        raise TypeError(f"{parameter} must be a WaitObject, got {describe_value(given)}")
    return signal
