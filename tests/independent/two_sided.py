"""A queue with one interface for threads and one for tasks, like janus and culsans, over one `headrace.queue.Queue`.

Only names differ. Where those two block the thread of a running event loop, headrace raises an error. Because their tests
do this, another thread waits instead.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar

from headrace import queue

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AsyncSide", "Side", "SyncSide", "TwoSided"]


class TwoSided:
    __slots__ = ("shared",)

    kind: ClassVar[type[queue.Queue[Any]]] = queue.Queue
    sync_side: ClassVar[type[SyncSide]]
    async_side: ClassVar[type[AsyncSide]]

    def __init__(self, maxsize: int = 0) -> None:
        self.shared = self.kind(maxsize)

    @property
    def sync_q(self) -> SyncSide:
        return self.sync_side(self)

    @property
    def async_q(self) -> AsyncSide:
        return self.async_side(self)

    @property
    def maxsize(self) -> float:
        return self.shared.maxsize

    # The numbers that its `repr` shows.

    @property
    def getting(self) -> int:
        return self.shared._figures()[0]

    @property
    def putting(self) -> int:
        return self.shared._figures()[1]

    @property
    def unfinished_tasks(self) -> int:
        return self.shared._figures()[2]

    @property
    def is_shutdown(self) -> bool:
        return self.shared._figures()[3]

    @property
    def closed(self) -> bool:
        return self.is_shutdown

    def _qsize(self) -> int:
        return self.shared.qsize()

    def shutdown(self, immediate: bool = False) -> None:
        self.shared.shutdown(immediate)

    def close(self) -> None:
        self.shutdown(immediate=True)

    async def wait_closed(self) -> None:
        """Return at once: nothing is pending after a shutdown."""
        if not self.is_shutdown:
            raise RuntimeError("Waiting for non-closed queue")

    async def aclose(self) -> None:
        self.close()
        await self.wait_closed()


class Side:
    __slots__ = ("wrapped",)

    def __init__(self, wrapped: TwoSided) -> None:
        self.wrapped = wrapped

    @property
    def maxsize(self) -> float:
        return self.wrapped.maxsize

    @property
    def unfinished_tasks(self) -> int:
        return self.wrapped.unfinished_tasks

    @property
    def is_shutdown(self) -> bool:
        return self.wrapped.is_shutdown

    @property
    def closed(self) -> bool:
        return self.wrapped.closed

    def qsize(self) -> int:
        return self.wrapped.shared.qsize()

    def empty(self) -> bool:
        return self.wrapped.shared.empty()

    def full(self) -> bool:
        return self.wrapped.shared.full()

    def put_nowait(self, item: Any) -> None:
        self.wrapped.shared.put_nowait(item)

    def get_nowait(self) -> Any:
        return self.wrapped.shared.get_nowait()

    def task_done(self) -> None:
        self.wrapped.shared.task_done()

    def shutdown(self, immediate: bool = False) -> None:
        self.wrapped.shutdown(immediate)


class SyncSide(Side):
    __slots__ = ()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if block:
            _call_beside_loop(self.wrapped.shared.put_sync, item, timeout)
        else:
            self.put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block:
            return _call_beside_loop(self.wrapped.shared.get_sync, timeout)
        return self.get_nowait()

    def join(self) -> None:
        # A queue belongs to no loop, so a thread may wait in a loop of its own.
        _call_beside_loop(asyncio.run, self._join())

    async def _join(self) -> None:
        await self.wrapped.shared.join()


class AsyncSide(Side):
    __slots__ = ()

    async def put(self, item: Any) -> None:
        await self.wrapped.shared.put(item)

    async def get(self) -> Any:
        return await self.wrapped.shared.get()

    async def join(self) -> None:
        await self.wrapped.shared.join()


TwoSided.sync_side = SyncSide
TwoSided.async_side = AsyncSide


def _call_beside_loop(call: Callable[..., Any], *args: Any) -> Any:
    """Call a function here, or, if a loop runs in this thread, in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call(*args)
    outcome: Future[Any] = Future()

    def call_there() -> None:
        try:
            outcome.set_result(call(*args))
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=call_there, daemon=True).start()
    return outcome.result()
