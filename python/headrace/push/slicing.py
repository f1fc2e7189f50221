"""`PushTakeObj`: the first items. `PushChain.take()` creates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from headrace._core import TakeKernel
from headrace._internal.kernel_properties import HasSize
from headrace.push.transform import PushObj1To1Link

if TYPE_CHECKING:
    from headrace.abc import PushProtocol

T = TypeVar("T")


class PushTakeObj(PushObj1To1Link[T, T], HasSize, stock=True):
    """The first `size` items; the push of the last one returns `done`.

    Law: the sink gets `list(itertools.islice(items, size))`. Later items are dropped, and their pushes return `done` too.
    Order: of arrival.
    Bound: nothing is held.
    Cost: O(1) per item.
    Cancel safety: an item whose push is cancelled below counts and stays here; the next push or the end delivers it.

    Args:
        sink: A push object.
        size: The number of items, 0 or more.

    Raises:
        TypeError: `sink` is not a push object, or `size` is not an integer.
        ValueError: `size` is negative.
    """

    __slots__ = ()

    def __init__(self, sink: PushProtocol[T], size: int) -> None:
        super().__init__(sink, TakeKernel(size))
