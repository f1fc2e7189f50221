"""The bridge: what is pushed into one end is pulled from the other."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from headrace._core import Buffer, QueueFeed
from headrace.pull.source import SourceObj
from headrace.push.sink import SinkObj

__all__ = ["PushPullBufferObj"]

T = TypeVar("T")


class _BufferSource(SourceObj[T], stock=True):
    """The end of a buffer that is pulled from."""

    def __init__(self, buffer: Buffer[T]) -> None:
        super().__init__(QueueFeed(buffer))


class _BufferSink(SinkObj[T], stock=True):
    """The end of a buffer that is pushed into. Any thread may use `next_nowait`."""

    def __init__(self, buffer: Buffer[T]) -> None:
        self._buffer = buffer
        super().__init__(buffer)

    async def return_impl(self, value: Any) -> None:
        """Lets the source drain what is there, and then end."""
        self._buffer.finish()

    async def throw_impl(self, error: BaseException) -> None:
        """Lets the source drain what is there, and then raise the error, once."""
        self._buffer.fail(error)


class PushPullBufferObj(Generic[T]):
    """A buffer with two ends: push into `sink`, pull from `source`.

    **Unbounded** unless `maxsize` is given.

    Any number of producers and consumers may use the two ends, in any threads and event loops: a
    thread pushes with `buffer.sink.next_nowait(item)`.

    Law: each item that was accepted is delivered once, to one consumer.
    Order: first in, first out; those who wait, on either side, are served in the order in which
    they came.
    Bound: `maxsize` items; none by default.
    Cost: O(1) an item, whatever the number of those who wait.
    Cancel safety: a cancelled push leaves its item with the caller, a cancelled pull leaves it in
    the buffer.

    `sink.return_()` ends the supply: the source drains, then ends. `sink.throw(error)`: it drains,
    then raises. Closing the source gives every blocked producer a `ClosedError` with its item.

    Args:
        maxsize: How many items may wait, a positive integer; `None` for any number.

    Raises:
        TypeError: `maxsize` is no integer.
        ValueError: `maxsize` is not positive.
    """

    def __init__(self, maxsize: int | None = None) -> None:
        self._buffer: Buffer[T] = Buffer(maxsize)
        self._sink: SinkObj[T] = _BufferSink(self._buffer)
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

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._buffer)

    def __bool__(self) -> bool:
        """Always true: an empty buffer is still one."""
        return True

    def __repr__(self) -> str:
        bound = "unbounded" if self.maxsize is None else f"at most {self.maxsize}"
        return f"<PushPullBufferObj of {len(self)}, {bound}>"
