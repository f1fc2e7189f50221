"""Operators that group items into lists: by number, and by a condition. Each is a pull stream over a source with a native kernel.

`PullObj.batch()` and `PullObj.batch_until()` create them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace._core import BatchKernel, BatchUntilKernel
from headrace._internal.kernel_properties import HasCondition, HasSize
from headrace._internal.validate import check_partial
from headrace.pull.transform import PullObj1To1Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.pull.source import Source

T = TypeVar("T")


class PullWindowObj(PullObj1To1Link[T, list[T]], HasSize, stock=True):
    """Lists of `size` items.

    Law: `list(itertools.batched(source, size))`, as lists; the last one may be shorter, or is dropped
    with `partial="drop"`.
    Order: the source's.
    Bound: `size` items.
    Cost: O(1) per item.
    Cancel safety: the items gathered by a cancelled pull are kept for the next pull.

    Args:
        source: A pull object or an iterable, sync or async.
        size: The number of items per list, a positive integer.
        partial: The fate of an incomplete list at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `source` is not iterable, or `size` is not an integer.
        ValueError: `size` is not positive, or `partial` is neither of the two.
    """

    def __init__(
        self, source: Source[T], size: int, *, partial: Literal["keep", "drop"] = "keep"
    ) -> None:
        super().__init__(source, BatchKernel(size, check_partial(partial)))


class PullBufferObj(PullObj1To1Link[T, list[T]], HasCondition[T], stock=True):
    """Lists of items, each complete once `condition(items)` is true of the items so far.

    Law: the items in their order, split after each one with which `condition` is true: that item is
    the last of its list. The incomplete list at the end is yielded too, or dropped with
    `partial="drop"`.
    Order: the source's.
    Bound: one list, of a length that `condition` determines, and the copy that `condition` gets; and one item, while
    its `condition` runs.
    Cost: O(1) and one call per item; if `condition` keeps a list, the next one is copied.
    Cancel safety: the items gathered by a cancelled pull are kept for the next pull. An item whose `condition` was
    cancelled with the pull is passed to `condition` again at the next pull, with the same list: at least once.

    Args:
        source: A pull object or an iterable, sync or async.
        condition: Sync or async, called for each item with the list so far, which ends with that item. Changes to that
            list do not change what is yielded. An error that it raises drops that item, and the list continues without
            it.
        partial: The fate of an incomplete list at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `source` is not iterable, or `condition` is not callable.
        ValueError: `partial` is neither of the two.
    """

    def __init__(
        self,
        source: Source[T],
        condition: Callable[[list[T]], Any],
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> None:
        super().__init__(source, BatchUntilKernel(condition, check_partial(partial)))
