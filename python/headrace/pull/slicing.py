"""Operators that take or skip a part of the items: by number, and by a condition. Their logic is a native kernel.

`PullObj.take()`, `skip()`, `take_while()` and `skip_while()` create them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace._core import SkipKernel, TakeKernel, WhileKernel
from headrace._internal.kernel_properties import HasPredicate, HasSize
from headrace.pull.transform import PullObj1To1Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.pull.source import Source

T = TypeVar("T")


class PullTakeObj(PullObj1To1Link[T, T], HasSize, stock=True):
    """The first `size` items.

    Law: `list(itertools.islice(source, size))`. The stream ends after the last item without another pull of the source,
    which stays open until the stream is closed.
    Order: the source's.
    Bound: nothing is held.
    Cost: O(1) per item.
    Cancel safety: as for the source; this stage never waits.

    Args:
        source: A pull object or an iterable, sync or async.
        size: The number of items, 0 or more.

    Raises:
        TypeError: `source` is not iterable, or `size` is not an integer.
        ValueError: `size` is negative.
    """

    def __init__(self, source: Source[T], size: int) -> None:
        super().__init__(source, TakeKernel(size))


class PullSkipObj(PullObj1To1Link[T, T], HasSize, stock=True):
    """All but the first `size` items.

    Law: `list(itertools.islice(source, size, None))`.
    Order: the source's.
    Bound: nothing is held.
    Cost: O(1) per item.
    Cancel safety: as for the source; this stage never waits.

    Args:
        source: A pull object or an iterable, sync or async.
        size: The number of items, 0 or more.

    Raises:
        TypeError: `source` is not iterable, or `size` is not an integer.
        ValueError: `size` is negative.
    """

    def __init__(self, source: Source[T], size: int) -> None:
        super().__init__(source, SkipKernel(size))


class PullTakeWhileObj(PullObj1To1Link[T, T], HasPredicate[T], stock=True):
    """The items up to the first for which `predicate(item)` is false.

    Law: `list(itertools.takewhile(predicate, source))`. The item that ends it is dropped.
    Order: the source's.
    Bound: one item, while its `predicate` runs.
    Cost: O(1) and one call per item.
    Cancel safety: an item whose `predicate` was cancelled with the pull is passed to `predicate` again at the next
    pull: at least once.

    Args:
        source: A pull object or an iterable, sync or async.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `source` is not iterable, or `predicate` is not callable.
    """

    def __init__(self, source: Source[T], predicate: Callable[[T], Any]) -> None:
        super().__init__(source, WhileKernel(predicate, takes=True))


class PullSkipWhileObj(PullObj1To1Link[T, T], HasPredicate[T], stock=True):
    """The items from the first for which `predicate(item)` is false.

    Law: `list(itertools.dropwhile(predicate, source))`.
    Order: the source's.
    Bound: one item, while its `predicate` runs.
    Cost: O(1) per item, and one call up to the first that is kept.
    Cancel safety: an item whose `predicate` was cancelled with the pull is passed to `predicate` again at the next
    pull: at least once.

    Args:
        source: A pull object or an iterable, sync or async.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `source` is not iterable, or `predicate` is not callable.
    """

    def __init__(self, source: Source[T], predicate: Callable[[T], Any]) -> None:
        super().__init__(source, WhileKernel(predicate, takes=False))
