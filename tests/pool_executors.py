"""`RemoteExecutor`: an executor as a third party would write it, whose workers are threads. The tests control what its workers report.

Each task runs in a new context in a thread, and events travel through the event loop, as those of another process would.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from headrace import WorkerLost
from headrace.pool import (
    CancelResult,
    CancelSupport,
    Capabilities,
    LoopExecutor,
    RemoteLease,
    Submission,
    ThreadExecutor,
    carried,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import ContextVar

    from headrace import Task
    from headrace.pool import Executor, Listener


class RemoteExecutor:
    """An executor of a third party.

    Args:
        slots: The slots.
        window: The window.
        carry: The context variables that travel.
    """

    def __init__(
        self,
        slots: int | None = None,
        *,
        window: int = 1,
        carry: Sequence[ContextVar[Any]] = (),
        remote: bool = True,
        cancel_support: CancelSupport = CancelSupport.FORCE,
    ) -> None:
        self.capabilities = Capabilities(cancel_support, True, remote, slots, window)
        self.carry = carry
        self.starts = 0
        self.closes = 0
        # The work that was submitted and has not begun.
        self.queue: deque[RemoteHandle] = deque()
        # All work that has not stopped, and the most at a time.
        self.live: set[RemoteHandle] = set()
        self.most = 0
        self.submitted = 0
        # Whether work begins when it is submitted; otherwise by `begin`.
        self.is_prompt = True
        # Whether a cancelled worker responds.
        self.responds = True
        # The number of submissions whose worker is lost before they begin, and whether it reported the call.
        self.lost = 0
        self.lost_after_call = False
        self._changed: list[Callable[[], object]] = []

    async def start(self) -> None:
        self.starts += 1
        self.loop = asyncio.get_running_loop()

    async def aclose(self, grace: float | None = None) -> None:
        self.closes += 1

    def watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    @property
    def watchers(self) -> int:
        return len(self._changed)

    def change(self, *, slots: int | None) -> None:
        """Change the slots."""
        now = self.capabilities
        self.capabilities = Capabilities(
            now.cancel_support, now.streaming, now.remote, slots, now.window
        )
        for changed in list(self._changed):
            changed()

    def submit(self, task: Task, listener: Listener | None = None) -> Any:
        if listener is None:
            return Submission(self, task)
        self.submitted += 1
        handle = RemoteHandle(self, task, listener)
        self.live.add(handle)
        self.most = max(self.most, len(self.live))
        if self.lost:
            self.lost -= 1
            if self.lost_after_call:
                listener.called()
            handle.end(error=WorkerLost("the worker ended", started=False, confirmed="exit"))
            return handle
        self.queue.append(handle)
        if self.is_prompt:
            self.begin()
        return handle

    def begin(self) -> None:
        """Begin the next work."""
        handle = self.queue.popleft()
        handle.listener.called()
        threading.Thread(target=handle.work, daemon=True).start()


class RemoteHandle:
    """The work of one task."""

    def __init__(self, executor: RemoteExecutor, task: Task, listener: Listener) -> None:
        self.executor, self.task, self.listener = executor, task, listener
        self.has_ended = False
        self.emitting: asyncio.Task[None] | None = None
        self.credits = threading.Semaphore(executor.capabilities.window)

    def cancel(self) -> CancelResult:
        if self.has_ended:
            return CancelResult.STOPPED
        if not self.executor.responds:
            return CancelResult.UNKNOWN
        if self in self.executor.queue:
            self.executor.queue.remove(self)
        self.end(error=asyncio.CancelledError())
        return CancelResult.STOPPED

    def inside(self) -> bool:
        return False

    def leave(self, stopped: Callable[[], object]) -> None:
        raise NotImplementedError

    def end(self, value: object = None, error: BaseException | None = None) -> None:
        """Report the end, once."""
        if self.has_ended:
            return
        self.has_ended = True
        self.executor.live.discard(self)
        if self.emitting is not None:
            self.emitting.cancel()
        if error is None:
            self.listener.returned(value)
        else:
            self.listener.raised(error)

    # In the worker.

    def post(self, call: Callable[..., object], *args: object) -> None:
        # The event loop is closed if the work was left running.
        with suppress(RuntimeError):
            self.executor.loop.call_soon_threadsafe(call, *args)

    def work(self) -> None:
        lease = RemoteLease(lambda amounts: self.post(self.listener.settle, amounts))
        context = carried(self.task.context, self.executor.carry, lease)
        try:
            value = context.run(self.task.fn, *self.task.args)
            if isinstance(value, AsyncGenerator):
                value = context.run(asyncio.run, self.stream(value))
            elif asyncio.iscoroutine(value):
                value = context.run(asyncio.run, value)
        except BaseException as error:
            self.post(lambda error=error: self.end(error=error))
        else:
            self.post(self.end, value)

    async def stream(self, values: AsyncGenerator[object, None]) -> None:
        while True:
            # One credit for each value that was not read.
            await asyncio.to_thread(self.credits.acquire)
            try:
                value = await anext(values)
            except StopAsyncIteration:
                break
            self.post(self.emit, value)
        # The values that wait for room.
        for _ in range(self.executor.capabilities.window - 1):
            await asyncio.to_thread(self.credits.acquire)

    def emit(self, value: object) -> None:
        before = self.emitting

        async def emitting() -> None:
            if before is not None:
                await before
            if (room := self.listener.emit(value)) is not None:
                await room
            self.credits.release()

        self.emitting = self.executor.loop.create_task(emitting())


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "loop": LoopExecutor,
    "thread": ThreadExecutor,
    "remote": RemoteExecutor,
    "local": lambda: RemoteExecutor(remote=False),
}


def double(number: int) -> int:
    return 2 * number


async def has_ended(task: asyncio.Future[Any]) -> Any:
    """Return the result of a task that must end soon."""
    await asyncio.wait([task], timeout=10)
    assert task.done()
    return task.result()
