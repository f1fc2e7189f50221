"""Replace culsans: its names over `headrace.queue`."""

from __future__ import annotations

from headrace import queue
from two_sided import TwoSided

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


class Queue(TwoSided):
    __slots__ = ()


class LifoQueue(Queue):
    __slots__ = ()

    kind = queue.LifoQueue


class PriorityQueue(Queue):
    __slots__ = ()

    kind = queue.PriorityQueue
