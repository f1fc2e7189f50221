"""The bridge: what is pushed into one end is pulled from the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from headrace._core import Buffer, QueueFeed, end_push, settle_push
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import describe_value, format_count, format_repr
from headrace.pull.source import SourceObj
from headrace.push.sink import SinkObj

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def standing(buffer: Buffer[Any]) -> Iterator[str]:
    """How a buffer stands, for `repr`."""
    yield format_count(len(buffer), buffer.maxsize, "items")
    if pulls := buffer.waiting_getters:
        yield f"{pulls} waiting to pull"
    if pushes := buffer.waiting_putters:
        yield f"{pushes} waiting to push"


class _BufferSource(SourceObj[T], stock=True):
    """The end of a buffer that is pulled from."""

    def __init__(self, buffer: Buffer[T]) -> None:
        self._buffer = buffer
        super().__init__(QueueFeed(buffer))

    def __repr__(self) -> str:
        return format_repr("the source of a buffer", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield from standing(self._buffer)
        yield from super()._repr_parts()


class BufferSink(SinkObj[T], stock=True):
    """The end of a buffer that is pushed into. Any thread may use `next_nowait`."""

    __slots__ = ("_buffer",)

    def __init__(self, buffer: Buffer[T]) -> None:
        self._buffer = buffer
        super().__init__(buffer)

    def __repr__(self) -> str:
        return format_repr("the sink of a buffer", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield from standing(self._buffer)
        yield from super()._repr_parts()

    async def return_impl(self, value: Any) -> None:
        """Lets the source drain what is there, and then end."""
        self._buffer.finish()

    async def throw_impl(self, error: BaseException) -> None:
        """Lets the source drain what is there, and then raise the error, once."""
        self._buffer.fail(error)


@dataclass(frozen=True, slots=True)
class BufferStatistics:
    """What a buffer was doing at one moment."""

    size: int
    """How many items were in it."""
    high_water: int
    """The most that ever were in it."""
    dropped: int
    """How many items an overflow has cost."""
    waiting_consumers: int
    """How many pulls waited for an item."""
    waiting_producers: int
    """How many pushes waited for room."""


class PushPullBufferObj(Uncopied, Generic[T]):
    """A buffer with two ends: push into `sink`, pull from `source`.

    **Unbounded** unless `maxsize` is given.

    Any number of producers and consumers may use the two ends, in any threads and event loops. A
    thread without a loop pushes with `put_sync(item)`, which waits for room, or with
    `sink.next_nowait(item)`, which does not; it pulls with `get_sync()`, and ends the supply with
    `end()`.

    Law: each item that was accepted is delivered once, to one consumer, unless an overflow dropped
    it.
    Order: as `order` says. Those who wait, on either side, are served in the order in which they
    came, tasks and threads in one line.
    Bound: `maxsize` items; none by default.
    Cost: O(1) per item, whatever the number of those who wait. By priority, O(log n) comparisons
    for a push and none for a pull; a push that drops the oldest item then looks for it, in O(n).
    Cancel safety: a cancelled push leaves its item with the caller, a cancelled pull leaves it in
    the buffer.

    `sink.return_()` ends the supply: the source drains, then ends. `sink.throw(error)`: it drains,
    then raises. Closing the source gives every blocked producer a `ClosedError` with its item.

    A pull whose event loop is closed, or does not run when an item comes for it, does not keep that
    item: the next one gets it.

    Args:
        maxsize: How many items may wait, a positive integer; `None` for any number.
        overflow: What becomes of a push into a full buffer. `"block"`: it waits. `"drop_oldest"`:
            it takes the place of the item that has been in the buffer longest. `"drop_newest"`: its
            item is dropped, and counts as accepted. `"error"`: it raises `WouldBlock`, which carries
            the item.
        order: `"fifo"`: first in, first out. `"lifo"`: last in, first out. `"priority"`: the least
            item first, by `<`, and first in, first out among equals.
        key: With `order="priority"`, the items are compared by `key(item)`, which is called once an
            item, when it is pushed.

    Raises:
        TypeError: `maxsize` is not an integer, `overflow` or `order` is no string, `key` is not
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
        """Where items go in."""
        return self._sink

    @property
    def source(self) -> SourceObj[T]:
        """Where items come out."""
        return self._source

    @property
    def maxsize(self) -> int | None:
        """How many items may wait; `None` for any number."""
        return self._buffer.maxsize

    def put_sync(self, item: T, timeout: float | None = None) -> None:
        """Pushes an item from a thread, which sleeps until there is room: `await sink.next(item)` without a loop.

        Order: it stands in one line with those who await `sink.next`.
        Cost: as a push; a thread that has to sleep is woken once.
        Cancel safety: what a signal handler raises, `KeyboardInterrupt` say, ends the wait in the main
        thread, as the timeout does: the item was not pushed then.

        Args:
            item: What is pushed. What becomes of it in a full buffer that does not block is as
                `overflow` says.
            timeout: For how many real seconds it may wait, 0 or more; `None` for any time.

        Raises:
            TimeoutError: There was no room in time. The item is the caller's.
            ClosedError: The supply was ended, or the source closed; it carries the item.
            WouldBlock: The buffer is full, and made with `overflow="error"`; it carries the item.
            RuntimeError: It would have to wait in a thread that runs an event loop, which would stand still.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not a number.
        """
        self._buffer.put_sync(item, timeout)

    def get_sync(self, timeout: float | None = None) -> T:
        """Takes the next item in a thread, which sleeps until there is one: `await anext(source)` without a loop.

        Order: it stands in one line with those who pull `source`.
        Cost: as a pull; a thread that has to sleep is woken once.
        Cancel safety: what a signal handler raises, `KeyboardInterrupt` say, ends the wait in the main
        thread, as the timeout does: no item was taken then.

        Args:
            timeout: For how many real seconds it may wait, 0 or more; `None` for any time.

        Raises:
            TimeoutError: No item came in time.
            ClosedError: None is here, and none will come: the supply was ended, or the source closed. If
                the supply was ended with an error, one consumer, thread or task, gets that error first.
            RuntimeError: It would have to wait in a thread that runs an event loop, which would stand still.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not a number.
        """
        return self._buffer.get_sync(timeout)

    def end(self, error: BaseException | None = None) -> None:
        """Ends the supply from any thread, without waiting: what `await sink.return_()` does, or `sink.throw(error)`.

        Doing so again does nothing.

        Args:
            error: What the source is to raise when it has drained, once; `None` if it is just to end.

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
        """The item that comes out next; it stays.

        Raises:
            WouldBlock: The buffer is empty.
            ClosedError: The buffer is empty, and no item will follow.
        """
        return self._buffer.peek()

    def statistics(self) -> BufferStatistics:
        """Several figures of one moment."""
        return BufferStatistics(*self._buffer.statistics())

    def __len__(self) -> int:
        """How many items are in the buffer."""
        return len(self._buffer)

    def __bool__(self) -> bool:
        """Always true: an empty buffer is still one."""
        return True

    def __repr__(self) -> str:
        return format_repr(type(self).__name__, self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield from standing(self._buffer)
        yield "ended" if self._buffer.is_finished else "open"
