"""Replace janus: its public names over `headrace.queue`, and the private ones that its tests read."""

from __future__ import annotations

from headrace import queue
from two_sided import AsyncSide, SyncSide, TwoSided

__all__ = [
    "AsyncQueueEmpty",
    "AsyncQueueFull",
    "AsyncQueueShutDown",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "SyncQueueEmpty",
    "SyncQueueFull",
    "SyncQueueShutDown",
]

AsyncQueueEmpty = SyncQueueEmpty = queue.QueueEmpty
AsyncQueueFull = SyncQueueFull = queue.QueueFull
AsyncQueueShutDown = SyncQueueShutDown = queue.QueueShutDown


class _NeverLocked:
    """Report that no thread is inside an operation: ours are atomic for other threads."""

    def locked(self) -> bool:
        return False


# Without slots, because the tests set attributes.


class _SyncSide(SyncSide):
    @property
    def _parent(self) -> TwoSided:
        return self.wrapped


class Queue(TwoSided):
    sync_side = _SyncSide
    async_side = AsyncSide
    _sync_mutex = _NeverLocked()

    @property
    def _maxsize(self) -> float:
        return self.maxsize

    # Tasks and threads share one wait queue here.

    @property
    def _sync_not_empty_waiting(self) -> int:
        return self.getting

    @property
    def _async_not_empty_waiting(self) -> int:
        return self.getting

    @property
    def _sync_not_full_waiting(self) -> int:
        return self.putting

    @property
    def _async_not_full_waiting(self) -> int:
        return self.putting


class LifoQueue(Queue):
    kind = queue.LifoQueue


class PriorityQueue(Queue):
    kind = queue.PriorityQueue
