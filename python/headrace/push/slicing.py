"""Operators that take or skip a part of the items."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from headrace._core import (
    TakeKernel,
)
from headrace._internal.kernel_properties import HasSize
from headrace.push.transform import PushObj1To1Link

if TYPE_CHECKING:
    from headrace.abc import PushProtocol

T = TypeVar("T")


class PushTakeObj(PushObj1To1Link[T, T], HasSize, stock=True):
    """The first `size` items; the push of the last one returns `done`.

    Law: the sink gets `list(itertools.islice(items, size))`. What is pushed after that is dropped, and
    its result says `done` again.
    Order: of arrival.
    Bound: nothing is held.
    Cost: O(1) per item.
    Cancel safety: a push that is cancelled below has left its item here, where it is counted; it goes on
    with the next push or the end.

    Args:
        sink: A push object.
        size: How many items, a whole number.

    Raises:
        TypeError: `sink` is not a push object, or `size` is not an integer.
        ValueError: `size` is negative.
    """

    __slots__ = ()

    def __init__(self, sink: PushProtocol[T], size: int) -> None:
        self._kernel = TakeKernel(size)
        super().__init__(sink, self._kernel)
