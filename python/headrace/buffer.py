"""`PushPullBufferObj`: a buffer whose items are pushed into one end and pulled from the other. `PrioritySourceObj` has a `BufferSink`.

The native `Buffer` stores the items and queues the waiters; the classes here are its two ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from headrace._core import Buffer, BufferSource, end_push, settle_push
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin, describe_value, format_count, format_repr
from headrace.pull.source import SourceObj
from headrace.push.sink import SinkObj

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def state_parts(buffer: Buffer[Any]) -> Iterator[str]:
    """Describe the state of a buffer, for `repr`."""
    yield format_count(len(buffer), buffer.maxsize, "items")
    if pulls := buffer.waiting_getters:
        yield f"{pulls} waiting to pull"
    if pushes := buffer.waiting_putters:
        yield f"{pushes} waiting to push"


class _BufferSource(SourceObj[T], stock=True):
    """The pull end of a buffer."""

    def __init__(self, buffer: Buffer[T]) -> None:
        self._buffer = buffer
        super().__init__(BufferSource(buffer))

    def __repr__(self) -> str:
        return format_repr("the source of a buffer", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield from state_parts(self._buffer)
        yield from super()._repr_parts()


class BufferSink(SinkObj[T], stock=True):
    """The push end of a buffer. Any thread may use `next_nowait`."""

    __slots__ = ("_buffer",)

    def __init__(self, buffer: Buffer[T]) -> None:
        self._buffer = buffer
        super().__init__(buffer)

    def __repr__(self) -> str:
        return format_repr("the sink of a buffer", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield from state_parts(self._buffer)
        yield from super()._repr_parts()

    async def return_impl(self, value: Any) -> None:
        """End the supply: the source drains, then ends."""
        self._buffer.finish()

    async def throw_impl(self, error: BaseException) -> None:
        """End the supply with an error: the source drains, then raises the error once."""
        self._buffer.fail(error)


@dataclass(frozen=True, slots=True)
class BufferStatistics:
    """A snapshot of a buffer."""

    size: int
    """The number of items in the buffer."""
    high_water: int
    """The highest number of items so far."""
    dropped: int
    """The number of items dropped by overflow."""
    waiting_consumers: int
    """The number of pulls waiting for an item."""
    waiting_producers: int
    """The number of pushes waiting for space."""


class PushPullBufferObj(ReprMixin, Uncopied, Generic[T]):
    """A buffer with two ends: push into `sink`, pull from `source`.

    **Unbounded** unless `maxsize` is given.

    Any number of producers and consumers may use the two ends, in any threads and event loops. A thread without a loop
    pushes with `put_sync(item)`, which waits for space, or with `sink.next_nowait(item)`, which does not; it pulls with
    `get_sync()`, and ends the supply with `end()`.

    Law: each accepted item is delivered once, to one consumer, unless an overflow drops it.
    Order: as `order` says. The waiters of either end are served in FIFO order; tasks and threads share one wait queue.
    Bound: `maxsize` items; none by default.
    Cost: O(1) per item, whatever the number of waiters. By priority, O(log n) comparisons for a
    push and none for a pull; a push that drops the oldest item then looks for it, in O(n).
    Cancel safety: a cancelled push leaves its item with the caller, a cancelled pull leaves it in
    the buffer.

    `sink.return_()` ends the supply: the source drains, then ends. `sink.throw(error)`: it drains,
    then raises. Closing the source gives every blocked producer a `ClosedError` with its item.

    A pull whose event loop is closed or not running when its item arrives does not keep that item: the next pull gets
    it.

    Args:
        maxsize: The maximum number of items, a positive integer; `None` for no limit.
        overflow: The effect of a push into a full buffer. `"block"`: it waits. `"drop_oldest"`: its item replaces the
            one that has been in the buffer longest. `"drop_newest"`: its item is dropped, and counts as accepted.
            `"error"`: it raises `WouldBlock`, which carries the item.
        order: `"fifo"`: first in, first out. `"lifo"`: last in, first out. `"priority"`: the least
            item first, by `<`, and first in, first out among equals.
        key: With `order="priority"`, the items are compared by `key(item)`, which is called once per item, at the push.

    Raises:
        TypeError: `maxsize` is not an integer, `overflow` or `order` is not a string, `key` is not
            callable. A push by priority raises what the comparison raises; the buffer is as before.
        ValueError: `maxsize` is not positive, `overflow` or `order` is unknown, `key` is given
            without `order="priority"`.
    """

    _instead = "make another one and move its items"

    def __init__(
        self,
        maxsize: int | None = None,
        *,
        overflow: Literal["block", "drop_oldest", "drop_newest", "error"] = "block",
        order: Literal["fifo", "lifo", "priority"] = "fifo",
        key: Callable[[T], Any] | None = None,
    ) -> None:
        self._buffer: Buffer[T] = Buffer(maxsize, overflow, order, key)
        self._sink: SinkObj[T] = BufferSink(self._buffer)
        self._source: SourceObj[T] = _BufferSource(self._buffer)

    @property
    def sink(self) -> SinkObj[T]:
        """The push end."""
        return self._sink

    @property
    def source(self) -> SourceObj[T]:
        """The pull end."""
        return self._source

    @property
    def maxsize(self) -> int | None:
        """The maximum number of items; `None` for no limit."""
        return self._buffer.maxsize

    def put_sync(self, item: T, timeout: float | None = None) -> None:
        """Push an item from a thread, blocking until there is space: `await sink.next(item)` without a loop.

        Order: the thread shares one wait queue with the tasks that await `sink.next`.
        Cost: as for a push; a blocked thread is woken once.
        Cancel safety: an exception of a signal handler, such as `KeyboardInterrupt`, ends the wait in the main thread,
        as the timeout does: the item is not pushed then.

        Args:
            item: The item to push. For a full buffer that does not block, see `overflow`.
            timeout: The maximum wait in real seconds, 0 or more; `None` for no limit.

        Raises:
            TimeoutError: There was no space in time. The item stays with the caller.
            ClosedError: The supply was ended or the source closed; the error carries the item.
            WouldBlock: The buffer is full and has `overflow="error"`; the error carries the item.
            RuntimeError: The call would have to wait in a thread that runs an event loop, and would block that loop.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not a number.
        """
        self._buffer.put_sync(item, timeout)

    def get_sync(self, timeout: float | None = None) -> T:
        """Take the next item in a thread, blocking until there is one: `await anext(source)` without a loop.

        Order: the thread shares one wait queue with the pulls of `source`.
        Cost: as for a pull; a blocked thread is woken once.
        Cancel safety: an exception of a signal handler, such as `KeyboardInterrupt`, ends the wait in the main thread,
        as the timeout does: no item is taken then.

        Args:
            timeout: The maximum wait in real seconds, 0 or more; `None` for no limit.

        Raises:
            TimeoutError: No item arrived in time.
            ClosedError: The buffer is empty and no item will follow: the supply was ended or the source closed. If the
                supply was ended with an error, one consumer, thread or task, gets that error first.
            RuntimeError: The call would have to wait in a thread that runs an event loop, and would block that loop.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not a number.
        """
        return self._buffer.get_sync(timeout)

    def end(self, error: BaseException | None = None) -> None:
        """End the supply from any thread without waiting, as `await sink.return_()` or `sink.throw(error)` does.

        Idempotent.

        Args:
            error: The error that the source raises once after draining; `None` to end it.

        Raises:
            TypeError: `error` is not an exception.
        """
        if error is not None and not isinstance(cast("object", error), BaseException):
            raise TypeError(f"error must be an exception or None, got {describe_value(error)}")
        if end_push(self._sink):
            if error is None:
                self._buffer.finish()
            else:
                self._buffer.fail(error)
            settle_push(self._sink, True)

    def peek(self) -> T:
        """Return the next item without removing it.

        Raises:
            WouldBlock: The buffer is empty.
            ClosedError: The buffer is empty, and no item will follow.
        """
        return self._buffer.peek()

    def statistics(self) -> BufferStatistics:
        """Return a snapshot of several figures."""
        return BufferStatistics(*self._buffer.statistics())

    def __len__(self) -> int:
        """Return the number of items in the buffer."""
        return len(self._buffer)

    def __bool__(self) -> bool:
        """Return True: an empty buffer is not false."""
        return True

    def _repr_parts(self) -> Iterator[str]:
        yield from state_parts(self._buffer)
        yield "ended" if self._buffer.is_finished else "open"
