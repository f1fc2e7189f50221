"""Queues with the names of `asyncio.Queue`, for any number of loops and threads.

User code creates them; `rust/py/src/buffer/queue.rs` raises the exceptions of this module.

`Queue`, `LifoQueue` and `PriorityQueue` replace those of asyncio: the same methods, the same exceptions (subclasses of
asyncio's), `shutdown()` on every version of Python. They replace janus too: a thread uses `put_sync()` and `get_sync()`
of the same object.

Differences:

- A woken waiter has its item: a later caller cannot take it first. `qsize()`, `empty()` and `full()` leave out assigned
  items and slots, and so agree with `get_nowait()` and `put_nowait()`.
- A queue is not bound to an event loop, and may be created before one runs.
- `put()` and `get()` are not coroutine functions. They return awaitables that pass the usual checks for coroutines.
- A `PriorityQueue` returns equal items in insertion order.
- `_init`, `_get`, `_put` and other underscored names of `asyncio.Queue` do not exist and cannot be overridden.
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
    """No item is available, or none arrived in time."""


class QueueFull(HeadraceError, asyncio.QueueFull, queue.Full):
    """There is no space, or there was none in time."""


if sys.version_info >= (3, 13):

    class QueueShutDown(HeadraceError, asyncio.QueueShutDown, queue.ShutDown):
        """The queue was shut down."""

else:

    class QueueShutDown(HeadraceError):
        """The queue was shut down."""


class Queue(Uncopied, _core.Queue[T]):
    """First in, first out, from any thread and loop to any thread and loop.

    **Unbounded** unless `maxsize` is given. As with `asyncio.Queue`, and unlike a stream, a `get()` that finds an item
    and a `put()` that finds space do not yield to the event loop.

    Law: each item put is returned once. The item of a cancelled `get()` stays in the queue or goes to another waiter.
    Order: as the class says. Waiters are served in FIFO order; tasks and threads share one wait queue.
    Bound: `maxsize` items.
    Cost: O(1) per item, whatever the number of waiters; by priority, O(log n) comparisons for a
    put.
    Cancel safety: a cancelled `put()` leaves its item with the caller, a cancelled `get()` leaves it in the queue.

    Threads wait with `put_sync(item, timeout=None)` and `get_sync(timeout=None)`, which raise `QueueFull` and `QueueEmpty`
    on a timeout. In a thread that runs an event loop they raise `RuntimeError` instead of waiting.

    Args:
        maxsize: The maximum number of items; 0 or less for no limit.

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
    """A `Queue` that returns the last item first."""

    _order: ClassVar[str] = "lifo"


class PriorityQueue(Queue[T]):
    """A `Queue` that returns the least item first, by `<`; equal items in insertion order.

    A `put` that cannot compare its item raises what the comparison raises, and the queue is unchanged. A `put()` that
    has to wait compares its item when there is space.
    """

    _order: ClassVar[str] = "priority"
