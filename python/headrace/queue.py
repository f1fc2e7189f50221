"""Queues with the names of `asyncio.Queue`, for any number of loops and threads.

`Queue`, `LifoQueue` and `PriorityQueue` take the place of asyncio's: the same methods, the same exceptions (subclasses
of asyncio's), `shutdown()` on every version of Python. They take the place of janus too: a thread uses `put_sync()` and
`get_sync()` of the very same object.

What is different, and why:

- A waiter that was woken has its item: nobody who comes later can take it first. `qsize()`, `empty()` and `full()` leave
  out what is promised, so that what they say is what `get_nowait()` and `put_nowait()` do.
- A queue belongs to no loop, and may be made before there is one.
- `put()` and `get()` are no coroutine functions: they return awaitables, which are coroutines for everybody who asks.
- In a `PriorityQueue`, equals come out in the order in which they went in.
- `_init`, `_get`, `_put` and other underscored names of `asyncio.Queue` are not there to be overridden.
"""

from __future__ import annotations

import asyncio
import queue
import sys
from typing import ClassVar, TypeVar

import headrace._core as _core
from headrace._internal.copying import Uncopied
from headrace.errors import HeadraceError

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueEmpty", "QueueFull", "QueueShutDown"]

T = TypeVar("T")


class QueueEmpty(HeadraceError, asyncio.QueueEmpty, queue.Empty):
    """There is no item to be had now, or there was none in time."""


class QueueFull(HeadraceError, asyncio.QueueFull, queue.Full):
    """There is no room now, or there was none in time."""


if sys.version_info >= (3, 13):

    class QueueShutDown(HeadraceError, asyncio.QueueShutDown, queue.ShutDown):
        """The queue was shut down."""

else:

    class QueueShutDown(HeadraceError):
        """The queue was shut down."""


class Queue(Uncopied, _core.Queue[T]):
    """First in, first out, from any thread and loop to any thread and loop.

    **Unbounded** unless `maxsize` is given. As with `asyncio.Queue`, and unlike a stream, a `get()` that finds an item
    and a `put()` that finds room do not let the loop turn.

    Law: an item that was put is got once. Of a cancelled `get()` the item is still in the queue, or another waiter's.
    Order: the items' as the class says; those who wait are served in the order in which they came, tasks and threads
    in one line.
    Bound: `maxsize` items.
    Cost: O(1) per item, whatever the number of those who wait; by priority, O(log n) comparisons for a put.
    Cancel safety: a cancelled `put()` leaves its item with the caller, a cancelled `get()` leaves it in the queue.

    Threads wait with `put_sync(item, timeout=None)` and `get_sync(timeout=None)`, which raise `QueueFull` and `QueueEmpty`
    when the time is over. Where they would have to wait in a thread that runs an event loop, they raise `RuntimeError`.

    Args:
        maxsize: How many items it holds, at most; 0 or less for any number.

    Raises:
        TypeError: `maxsize` is not a number.
    """

    _instead = "make another one and move its items"

    def __init__(self, maxsize: float = 0) -> None:
        super().__init__(maxsize)

    def _format(self) -> str:
        getters, putters, unfinished, is_shut_down = self._figures()
        parts = [f"maxsize={self.maxsize!r}", f"size={self.qsize()}"]
        parts += [f"getters={getters}"] * bool(getters) + [f"putters={putters}"] * bool(putters)
        parts += [f"tasks={unfinished}"] * bool(unfinished) + ["shutdown"] * is_shut_down
        return " ".join(parts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self._format()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._format()}>"


class LifoQueue(Queue[T]):
    """A `Queue` that gives what came last first."""

    _order: ClassVar[str] = "lifo"


class PriorityQueue(Queue[T]):
    """A `Queue` that gives the least item first, by `<`; of equals the one that came first.

    A `put` that cannot compare its item raises what the comparison raises, and the queue is as before. The comparisons
    of a `put()` that has to wait are made when it has room.
    """

    _order: ClassVar[str] = "priority"
