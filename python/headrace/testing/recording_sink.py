"""A sink that remembers what was done to it."""

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
    """A sink that notes everything, and may take its time.

    Law: after pushing a list, `items` is equal to it; what ended it is in `returned` or `thrown`.
    Order: of acceptance.
    Bound: none: it keeps what it notes.
    Cost: O(1) an item.
    Cancel safety: an item whose push was cancelled was offered, and not accepted.

    Args:
        turns: For how many turns of the loop each push waits before its item is accepted.

    Attributes:
        offered: The items in the order in which their pushes began.
        items: The items that were accepted.
        returned: The value of each `return_()`; ending it again is not told.
        thrown: The error of each `throw()`.

    Raises:
        TypeError: `turns` is no integer.
        ValueError: `turns` is less than 0.
    """

    def __init__(self, *, turns: int = 0) -> None:
        super().__init__()
        self._turns = check_int("RecordingSink: turns", 0, turns)
        self.offered: list[T] = []
        self.items: list[T] = []
        self.returned: list[Any] = []
        self.thrown: list[BaseException] = []

    async def next_impl(self, item: T) -> None:
        """Notes an item, before it waits and after."""
        self.offered.append(item)
        for _ in range(self._turns):
            await asyncio.sleep(0)
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        """Notes how the supply ended."""
        self.returned.append(value)

    async def throw_impl(self, error: BaseException) -> None:
        """Notes the error with which the supply ended."""
        self.thrown.append(error)

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(len(self.items), "item")
        if (waiting := len(self.offered) - len(self.items)) > 0:
            yield f"{waiting} offered and not accepted"
        yield from super()._repr_parts()
