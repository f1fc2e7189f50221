"""`PushSignalObj`: resolves a signal with each pushed item. `PushChain.signal()` creates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace.push.base import name_acceptors, push_now, refuse_after_end
from headrace.push.transform import PushObj1To1Link
from headrace.signal import check_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace._core import IteratorResult
    from headrace.abc import PushProtocol
    from headrace.signal import WaitObject

T = TypeVar("T")


class PushSignalObj(PushObj1To1Link[T, T], stock=True):
    """Push items on, and resolve a signal with each.

    Law: for each item the push, then `wait_obj.resolve(item)`; with `when="before"` in reverse order. An item that the
    sink refuses does not resolve the signal; with `"before"` it has done so already.
    Order: of arrival, for as long as the sink does not suspend; of acceptance with `"after"`.
    Bound: nothing is held; the signal keeps its last value.
    Cost: O(1) per item, and O(number of waiters of the signal).
    Cancel safety: a cancelled push has delivered its item whole or not at all. With `"before"` the signal is resolved
    nevertheless, and resolved again if the item is pushed again.

    Ending this ends the sink, and does not change the signal.

    Args:
        sink: A push object.
        wait_obj: The signal.
        when: Whether to resolve it `"after"` the sink has accepted the item, or `"before"` the push.

    Raises:
        TypeError: `sink` is not a push object, or `wait_obj` is not a `WaitObject`.
        ValueError: `when` is neither of the two.
    """

    def __init__(
        self,
        sink: PushProtocol[T],
        wait_obj: WaitObject[T],
        *,
        when: Literal["after", "before"] = "after",
    ) -> None:
        super().__init__(sink)
        self.wait_obj = wait_obj
        self.when = when

    @property
    def wait_obj(self) -> WaitObject[T]:
        """The signal, live: a new one applies from the next item."""
        return self._wait_obj

    @wait_obj.setter
    def wait_obj(self, wait_obj: WaitObject[T]) -> None:
        self._wait_obj = check_signal("wait_obj", wait_obj)

    @property
    def when(self) -> Literal["after", "before"]:
        """When the signal is resolved, live."""
        return self._when

    @when.setter
    def when(self, when: Literal["after", "before"]) -> None:
        if when not in ("after", "before"):
            raise ValueError(f'when must be "after" or "before", got {when!r}')
        self._when: Literal["after", "before"] = when

    def _repr_parts(self) -> Iterator[str]:
        yield f"resolves {self._when}"
        yield from super()._repr_parts()

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Push one item on, and resolve the signal."""
        when = self._when
        if when == "before":
            self._wait_obj.resolve(item)
        result = await self._sink.next(item)
        if when == "after":
            self._resolve(item)
        return result

    def next_nowait(self, item: T) -> IteratorResult[Any]:
        """Push one item on without waiting, and resolve the signal.

        Raises:
            WouldBlock: The sink would have to wait. With `when="before"`, the signal is resolved nevertheless.
        """
        refuse_after_end(self, item)
        when = self._when
        if when == "before":
            self._wait_obj.resolve(item)
        result = push_now(self._sink, item)
        if when == "after":
            self._resolve(item)
        return result

    def _resolve(self, item: T) -> None:
        try:
            self._wait_obj.resolve(item)
        except BaseException as error:
            name_acceptors(error, (self._sink,))
            raise
