"""`PullEagerObj`: items prefetched by a background task. `PullObj.prefetch()` creates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from headrace._internal.kernel_properties import KernelProperty
from headrace._internal.reprs import format_count
from headrace._internal.validate import check_size
from headrace.pull._background import BackgroundPuller, PullBackgroundObj
from headrace.pull.source import as_pull

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.pull.base import PullObj
    from headrace.pull.source import Source

T = TypeVar("T")


class PullEagerObj(PullBackgroundObj[T, T], stock=True):
    """The items of the source, prefetched by a background task.

    Law: the items of the source, each once. From the first pull on, the source is pulled until `buffer_size` items are
    prefetched, the item being pulled included, and again whenever an item is taken.
    Order: the source's.
    Bound: `buffer_size` items.
    Cost: O(1) per item; one asyncio task from the first pull to the end.
    Cancel safety: a cancelled pull loses no item, whatever the source: the cancellation does not reach the source. So
    an async generator can be pulled under a timeout.

    An error of the source is raised in order, and the source is not pulled further before that. The source is closed by
    the task that pulls it: at its end, by `aclose()`, or at the end of `async with`. An `asyncio.timeout` or a task
    group that an async generator holds open across a `yield` works unless it cancels the task while the generator is
    suspended at the `yield`; that ends the stream with a `SourceCancelledError`.

    Args:
        source: A pull object or an iterable, sync or async.
        buffer_size: The maximum number of prefetched items, a positive integer.

    Raises:
        TypeError: `source` is not iterable, or `buffer_size` is not an integer.
        ValueError: `buffer_size` is not positive.
    """

    buffer_size: KernelProperty[int, int] = KernelProperty(
        "The maximum number of prefetched items, live: a new number applies from the next pull.",
        of="_puller",
        check=check_size,
    )

    def __init__(self, source: Source[T], buffer_size: int = 1) -> None:
        super().__init__(_Prefetcher(as_pull(source), check_size("buffer_size", buffer_size)))


class _Prefetcher(BackgroundPuller[T, T]):
    def __init__(self, source: PullObj[T], buffer_size: int) -> None:
        super().__init__(source)
        self.buffer_size = buffer_size

    def parts(self) -> Iterator[str]:
        yield format_count(len(self.buffer), self.buffer_size, "ahead")

    def max_buffered(self) -> int:
        return self.buffer_size

    async def __anext__(self) -> T:
        if not self.buffer:
            await self.wait()
        return self.take()
