"""Operators that group items into lists: by number, and by a condition. Each is a push object over a sink with a native kernel.

`PushChain.batch()` and `PushChain.batch_until()` create them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace._core import BatchKernel, BatchUntilKernel
from headrace._internal.kernel_properties import HasCondition, HasSize
from headrace._internal.validate import check_partial
from headrace.push.transform import PushObj1To1Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.abc import PushProtocol

T = TypeVar("T")


class PushWindowObj(PushObj1To1Link[T, list[T]], HasSize, stock=True):
    """Lists of `size` items.

    Law: the sink gets `list(itertools.batched(items, size))`, as lists; the last one may be shorter,
    and is delivered by `return_()`, unless `partial="drop"`.
    Order: of arrival.
    Bound: `size` items, and the lists left by cancelled pushes.
    Cost: O(1) per item.
    Cancel safety: an item in the window is accepted. A push that is cancelled while its list is
    being delivered leaves the list here, and the error names this object in `accepted_by`; the next
    push or the end delivers it first.

    `throw(error)` drops the items of the incomplete list.

    Args:
        sink: A push object.
        size: The number of items per list, a positive integer.
        partial: The fate of an incomplete list at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `sink` is not a push object, or `size` is not an integer.
        ValueError: `size` is not positive, or `partial` is neither of the two.
    """

    __slots__ = ()

    def __init__(
        self,
        sink: PushProtocol[list[T]],
        size: int,
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> None:
        super().__init__(sink, BatchKernel(size, check_partial(partial)))


class PushBufferObj(PushObj1To1Link[T, list[T]], HasCondition[T], stock=True):
    """Lists of items, each complete once `condition(items)` is true of the items so far.

    Law: the items in their order, split after each one with which `condition` is true: that item is
    the last of its list. The incomplete list at the end is delivered by `return_()`, unless
    `partial="drop"`.
    Order: of arrival, for as long as `condition` does not suspend.
    Bound: one list, of a length that `condition` determines, the copy that `condition` gets, and the lists left by
    cancelled pushes.
    Cost: O(1) and one call per item; if `condition` keeps a list, the next one is copied.
    Cancel safety: a push cancelled in `condition` has delivered nothing. An item in the list is accepted. A push that
    is cancelled while its list is being delivered leaves the list here, and the error names this object in
    `accepted_by`; the next push or the end delivers it first.

    `throw(error)` drops the items of the incomplete list.

    Args:
        sink: A push object.
        condition: Sync or async, called for each item with the list so far, which ends with that item. Changes to that
            list do not change what is delivered. An error that it raises drops that item, and the list continues
            without it.
        partial: The fate of an incomplete list at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `sink` is not a push object, or `condition` is not callable.
        ValueError: `partial` is neither of the two.
    """

    __slots__ = ()

    def __init__(
        self,
        sink: PushProtocol[list[T]],
        condition: Callable[[list[T]], Any],
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> None:
        super().__init__(sink, BatchUntilKernel(condition, check_partial(partial)))
