"""`RemoteExecutor`: an executor as a third party would write it, whose workers are threads. The tests control what its workers report.

Each task runs in a new context in a thread, and events travel through the event loop, as those of another process would.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import traceback
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from headrace import Final, WorkerLost
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
        remote: Whether it says that it is remote.
        cancel_support: With FORCE, cancelled work is reported at once, and its thread is left. With COOPERATIVE, its
            asyncio task is cancelled.
        pickles: Whether functions, arguments, values and errors are pickled, as for another process.
    """

    def __init__(
        self,
        slots: int | None = None,
        *,
        window: int = 1,
        carry: Sequence[ContextVar[Any]] = (),
        remote: bool = True,
        cancel_support: CancelSupport = CancelSupport.FORCE,
        pickles: bool = False,
    ) -> None:
        self.capabilities = Capabilities(cancel_support, True, remote, slots, window)
        self.carry = carry
        self.pickles = pickles
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
        # The asyncio tasks that wait for room.
        self.emitting: set[asyncio.Task[None]] = set()
        self._changed: list[Callable[[], object]] = []

    async def start(self) -> None:
        self.starts += 1
        self.loop = asyncio.get_running_loop()

    async def aclose(self, grace: float | None = None) -> None:
        self.closes += 1
        if self.emitting:
            await asyncio.wait(self.emitting)

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
        try:
            handle.call = handle.sent((task.fn, task.args))
        except Exception as error:
            handle.end(error=error)
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
        self.has_ended = self.is_cancelled = False
        self.call: tuple[Callable[..., Any], tuple[Any, ...]] = task.fn, task.args
        # The error of the lease, in the event loop.
        self.refused: BaseException | None = None
        self.emitting: asyncio.Task[None] | None = None
        # Of the worker, while it runs the task.
        self.loop: asyncio.AbstractEventLoop
        self.running: asyncio.Task[Any] | None = None
        self.credits = threading.Semaphore(executor.capabilities.window)

    def cancel(self) -> CancelResult:
        if self.has_ended:
            return CancelResult.STOPPED
        if not self.executor.responds:
            return CancelResult.UNKNOWN
        if self in self.executor.queue:
            self.executor.queue.remove(self)
        elif self.executor.capabilities.cancel_support is CancelSupport.COOPERATIVE:
            self.is_cancelled = True
            self.cancel_in_worker()
            return CancelResult.RUNNING
        self.end(error=asyncio.CancelledError())
        return CancelResult.STOPPED

    def cancel_in_worker(self) -> None:
        running = self.running
        if running is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(running.cancel)

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
        lease = RemoteLease(lambda amounts: self.post(self.settle, amounts))
        context = carried(self.task.context, self.executor.carry, lease)
        try:
            fn, args = self.call
            value = context.run(asyncio.run, self.run(fn, args))
        except BaseException as error:
            self.post(self.end_in_worker, None, self.sent_error(error))
        else:
            self.post(self.end_in_worker, value)

    async def run(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        # `cancel` sets its flag, and then reads `running`. One of the two sees the other.
        self.loop, self.running = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if self.is_cancelled:
                raise asyncio.CancelledError
            value = fn(*args)
            if isinstance(value, AsyncGenerator):
                value = await self.stream(value)
            elif asyncio.iscoroutine(value):
                value = await value
            return self.sent(value)
        finally:
            self.running = None

    async def stream(self, values: AsyncGenerator[object, None]) -> object:
        final: Final[object] | None = None
        async with aclosing(values):
            while True:
                # One credit for each value that was not read.
                await self.credit()
                try:
                    value = await anext(values)
                except StopAsyncIteration:
                    break
                if final is not None:
                    raise RuntimeError(f"{self.listener.name} yielded after its Final")
                if isinstance(value, Final):
                    final = value
                    self.credits.release()
                else:
                    self.post(self.emit, self.sent(value))
        # The values that wait for room.
        for _ in range(self.executor.capabilities.window - 1):
            await self.credit()
        return None if final is None else final.value

    async def credit(self) -> None:
        while not self.credits.acquire(blocking=False):  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.0005)

    def sent(self, value: Any) -> Any:
        """Return a copy that has travelled, if the executor pickles."""
        return pickle.loads(pickle.dumps(value)) if self.executor.pickles else value  # noqa: S301

    def sent_error(self, error: BaseException) -> BaseException:
        if not self.executor.pickles:
            return error
        text = "".join(traceback.format_exception(error))
        try:
            sent = self.sent(error)
        except Exception:
            sent = RuntimeError(f"{type(error).__name__}: {error}")
            # That which `classify` reads.
            vars(sent).update(
                {name: value for name, value in vars(error).items() if isinstance(value, int)}
            )
        error = sent
        error.add_note(text)
        return error

    # In the event loop.

    def settle(self, amounts: dict[str, float]) -> None:
        if self.has_ended:
            return
        try:
            self.listener.settle(amounts)
        except Exception as error:
            self.refused = error

    def end_in_worker(self, value: object, error: BaseException | None = None) -> None:
        error = error or self.refused
        if self.emitting is None or self.is_cancelled:
            self.end(value, error)
        else:
            # After the values that were posted before.
            self.emitting.add_done_callback(lambda _: self.end(value, error))

    def emit(self, value: object) -> None:
        before = self.emitting

        async def emitting() -> None:
            if before is not None:
                await before
            if (room := self.listener.emit(value)) is not None:
                try:
                    await room
                except asyncio.CancelledError:
                    self.cancel()
                    raise
            self.credits.release()

        self.emitting = self.executor.loop.create_task(emitting())
        self.executor.emitting.add(self.emitting)
        self.emitting.add_done_callback(self.executor.emitting.discard)


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
