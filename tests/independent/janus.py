"""Stands in for janus: its names over `headrace.queue`, and of its privates those that its tests read."""

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
    """Whether another thread is in the middle of an operation: none of ours can be seen there."""

    def locked(self) -> bool:
        return False


# Without slots: the tests set what they like.


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

    # Tasks and threads stand in one line here.

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
