"""`RecordingSink`: a sink for tests that records its items and how it was ended; see also `assert_closed()`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from headrace._internal.reprs import pluralize
from headrace._internal.validate import check_int
from headrace.push.sink import SinkObj

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class RecordingSink(SinkObj[T]):
    """A sink that records all items and endings, optionally with a delay.

    Law: after all items of a list are pushed, `items` is equal to it. The value or error that ended the sink is in
    `returned` or `thrown`.
    Order: that of acceptance.
    Bound: none: it keeps everything it records.
    Cost: O(1) per item.
    Cancel safety: an item whose push was cancelled is in `offered`, but not in `items`.

    Args:
        iterations: The number of event-loop iterations that each push waits before its item is accepted.

    Attributes:
        offered: The items in the order in which their pushes started.
        items: The accepted items.
        returned: The value of each `return_()`; ending an ended sink again is not recorded.
        thrown: The error of each `throw()`.

    Raises:
        TypeError: `iterations` is not an integer.
        ValueError: `iterations` is less than 0.
    """

    def __init__(self, *, iterations: int = 0) -> None:
        super().__init__()
        self._turns = check_int("RecordingSink: iterations", 0, iterations)
        self.offered: list[T] = []
        self.items: list[T] = []
        self.returned: list[Any] = []
        self.thrown: list[BaseException] = []

    async def next_impl(self, item: T) -> None:
        """Record an item when it is offered, and again when it is accepted."""
        self.offered.append(item)
        for _ in range(self._turns):
            await asyncio.sleep(0)
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        """Record the value with which the sink was ended."""
        self.returned.append(value)

    async def throw_impl(self, error: BaseException) -> None:
        """Record the error with which the sink was ended."""
        self.thrown.append(error)

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(len(self.items), "item")
        # Pushes that wait, and pushes that were cancelled.
        if (unaccepted := len(self.offered) - len(self.items)) > 0:
            yield f"{unaccepted} offered and not accepted"
        yield from super()._repr_parts()
