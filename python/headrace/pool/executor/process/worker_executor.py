"""`WorkerExecutor`: the part that `ProcessExecutor` and `RayExecutor` share. It pickles a task and gives it to a worker, or to a host.

The subclasses start and end the workers. They say how many tasks these take together, and decide what the end of one means for its tasks.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin
from headrace.errors import BrokenError, ClosedError, ForkError, NotSendable, WrongLoopError
from headrace.pool.executor.executor import CancelSupport, Capabilities
from headrace.pool.executor.process.messages import dump_task
from headrace.pool.executor.process.placement import Placement
from headrace.pool.executor.process.setup import named
from headrace.pool.executor.process.submitted_work import SubmittedWork
from headrace.pool.executor.submission import Submission
from headrace.task.failure import Verdict, attach_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import ContextVar
    from typing import ClassVar, Self

    from headrace.pool.executor.handle import Handle, Listener
    from headrace.pool.executor.process.work import Work
    from headrace.task.task import Task

P = TypeVar("P", bound=Placement[Any])


class WorkerExecutor(ReprMixin, Uncopied, ABC, Generic[P]):
    """An executor whose tasks run in worker processes.

    Args:
        placement: The tasks and the workers.
        window: The maximum number of values that a task has yielded and that were not read.
        can_force: Whether a task can be cancelled by force.
        carry: The context variables whose values travel with each task.
    """

    _has_main: ClassVar[bool] = True
    """Whether the workers import the main module of the program."""

    def __init__(
        self, placement: P, *, window: int, can_force: bool, carry: Iterable[ContextVar[Any]]
    ) -> None:
        self._placement: P = placement
        self._window = window
        self._cancel_support = CancelSupport.FORCE if can_force else CancelSupport.COOPERATIVE
        self._carry = tuple(carry)
        self._carried = named(self._carry)
        # The current capabilities, which the pool reads for each task; None after a change.
        self._capabilities: Capabilities | None = None
        self._watchers: dict[object, Callable[[], object]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._is_closing = False
        self._broken: BrokenError | None = None

    @property
    def capabilities(self) -> Capabilities:
        """The current capabilities. `slots` changes when a worker becomes ready or ends."""
        if self._capabilities is None:
            self._capabilities = Capabilities(
                cancel_support=self._cancel_support,
                streaming=True,
                remote=True,
                # A broken executor takes tasks to refuse them.
                slots=self._placement.slots if self._broken is None else None,
                window=self._window,
            )
        return self._capabilities

    def watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Call `changed` after each change of the capabilities; return a function that ends this."""
        token = object()
        self._watchers[token] = changed
        return lambda: self._watchers.pop(token, None)

    def _changed(self) -> None:
        """Note that the capabilities have changed."""
        self._capabilities = None
        for changed in list(self._watchers.values()):
            changed()

    async def __aenter__(self) -> Self:
        """Start the executor."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the executor."""
        await self.aclose()

    @abstractmethod
    async def start(self) -> None:
        """Start the executor. Idempotent."""

    @abstractmethod
    async def aclose(self, grace: float | None = None) -> None:
        """End the workers, and wait for them. Idempotent."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop. A started executor has one."""
        if self._loop is None:
            raise RuntimeError(f"{self!r} was not started: use async with, or await start()")
        return self._loop

    def _enter_loop(self) -> bool:
        """Start the use of the executor on the running event loop. Return whether it was not used there before.

        Raises:
            ClosedError: The executor was closed.
            WrongLoopError: It runs on another event loop.
            ForkError: It belongs to the parent process.
        """
        self._check_process()
        if self._is_closing:
            raise ClosedError(f"{self!r} was closed; make another one")
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return False
        if self._loop is not None:
            if not self._loop.is_closed():
                raise WrongLoopError(f"{self!r} runs on another event loop; make one for each")
            self._abandon()
        self._loop = loop
        return True

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Pickle the task and give it to a worker.

        Raises:
            RuntimeError: The executor was not started.
            ClosedError: It was closed.
            ForkError: It belongs to the parent process.
        """
        if listener is None:
            return Submission(self, task)
        self._check_process()
        loop = self.loop
        if self._is_closing:
            raise ClosedError(f"{self!r} was closed")
        context = task.context
        values = {
            index: context[variable]
            for index, variable in enumerate(self._carry)
            if variable in context
        }
        name = listener.name
        call = (task.fn, task.args, name, values, listener.has_lease)
        try:
            message = dump_task(name, call, has_main=self._has_main)
        except NotSendable as error:
            work = SubmittedWork(listener, (), loop, self._window)
            work.end_with_error(error)
            return work
        work = SubmittedWork(listener, message, loop, self._window)
        self.take(work)
        return work

    def take(self, work: Work) -> None:
        """Give a new task to a worker, or keep it until one can take it."""
        work.on_cancel = self._placement.cancel
        if self._broken is not None:
            work.end_with_error(self._broken)
        else:
            self._placement.place(work)

    def place(self, work: Work) -> None:
        """Give a task that has not begun to a worker, or keep it until one can take it. The workers call this."""
        self._placement.place(work)

    def _break(self, reason: str, cause: BaseException | None) -> None:
        """Refuse all tasks, since no worker can start."""
        self._broken = BrokenError(f"{self!r}: {reason}")
        self._broken.__cause__ = cause
        # Every task of a run would fail for the same reason.
        attach_verdict(self._broken, Verdict("fatal", None, "the workers cannot start"))
        self._placement.refuse(self._broken)
        self._changed()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ForkError(
                f"{type(self).__name__} was made before this process was forked; make another one here"
            )

    @abstractmethod
    def _abandon(self) -> None:
        """End all workers without an event loop, since theirs was closed."""

    def __del__(self) -> None:
        # Also of an executor whose constructor has failed.
        placement: P | None = self.__dict__.get("_placement")
        if placement is not None and placement.workers and self._pid == os.getpid():
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
            self._abandon()
