"""`RunExecutors`: the executors of a run, which `Run` makes, and `ExecutorUse`: the use of one of them.

Runs may share an executor. `_SharedSlots` counts its slots for all of them. It notifies the runs that wait for a slot in FIFO order: one
run when a slot is returned, all when the capabilities change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import WrongLoopError
from headrace.pool.executor.executor import CancelSupport
from headrace.pool.executor.thread import ThreadExecutor

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from contextvars import Context

    from headrace.pool.executor.executor import Executor


class RunExecutors:
    """The executors of a run: its own threads, and the executor that the user has passed.

    Args:
        name: The name of the runner.
        given: The executor of all tasks that need no thread; None for the event loop.
    """

    __slots__ = ("_given", "_threads")

    def __init__(self, name: str, given: Executor | None) -> None:
        self._threads = ExecutorUse(ThreadExecutor(name), is_owned=True)
        self._given = None if given is None else ExecutorUse(given, is_owned=False)

    def use(self, is_given: bool) -> ExecutorUse:
        """Return the use of the user's executor, or of the threads of the run."""
        return self._given if is_given and self._given is not None else self._threads

    def busy_threads(self) -> list[tuple[int, str]]:
        """Return the identifier of each thread that runs work, and the name of the work. Any thread may call it."""
        uses = [self._threads] if self._given is None else [self._threads, self._given]
        executors = [use.executor for use in uses if isinstance(use.executor, ThreadExecutor)]
        return [busy for executor in executors for busy in executor.busy()]

    async def aclose(self) -> None:
        """Close the threads, and leave the executor of the user."""
        await self._threads.aclose()
        if self._given is not None:
            await self._given.aclose()


class ExecutorUse:
    """The use of an executor by one run.

    Args:
        executor: The executor.
        is_owned: Whether the run has created the executor, and closes it.
    """

    def __init__(self, executor: Executor, *, is_owned: bool) -> None:
        self.executor = executor
        # None after the run, to which it refers.
        self._freed: Callable[[], object] | None = None
        self._is_owned = is_owned
        self._slots: _SharedSlots | None = None
        self._loop: AbstractEventLoop | None = None
        self._context: Context | None = None
        self._is_notified = False

    @property
    def can_cancel(self) -> bool:
        """Whether the executor can cancel work."""
        return self.executor.capabilities.cancel_support is not CancelSupport.NONE

    async def start(
        self, loop: AbstractEventLoop, context: Context, freed: Callable[[], object]
    ) -> None:
        """Start the executor, or join the other runs that use it.

        Args:
            loop: The event loop of the run.
            context: The context of the run.
            freed: Called in that context when a slot may be free, after `take_slot` has returned False.

        Raises:
            WrongLoopError: Runs of another event loop use the executor.
        """
        slots = _shared.get(id(self.executor))
        # A run whose event loop was closed never leaves.
        if slots is None or slots.loop.is_closed():
            slots = _SharedSlots(self.executor, loop)
        elif slots.loop is not loop:
            raise WrongLoopError(f"{self.executor!r}: runs of another event loop use this executor")
        self._loop, self._context, self._freed = loop, context, freed
        self._slots = slots
        slots.join()
        await self.executor.start()

    async def aclose(self) -> None:
        """Close the executor if the run has created it; otherwise leave it to its owner."""
        slots, self._slots = self._slots, None
        self._freed = None
        if slots is not None:
            slots.leave(self)
        if self._is_owned:
            await self.executor.aclose()

    def take_slot(self) -> bool:
        """Take a slot, if one is free. Otherwise `freed` is called when one may be."""
        return self._slots is None or self._slots.take(self)

    def return_slot(self) -> None:
        """Return a slot, whose work has stopped."""
        if self._slots is not None:
            self._slots.put()

    def slot_returner(self) -> Callable[[], None]:
        """Return a function that returns a slot, from any thread and also after the end of the run."""
        loop, slots = self._loop, self._slots

        def put() -> None:
            if loop is None or slots is None:
                return
            try:
                loop.call_soon_threadsafe(slots.put)
            except RuntimeError:
                # The event loop was closed, so no run on it waits for a slot.
                slots.used -= 1

        return put

    def notify(self) -> None:
        """Call `freed` in the next event-loop iteration, once."""
        if not self._is_notified and self._loop is not None:
            self._is_notified = True
            # Not at once: a slot is returned before the event of its task is put.
            self._loop.call_soon(self._on_notified, context=self._context)

    def _on_notified(self) -> None:
        self._is_notified = False
        slots = self._slots
        if self._freed is not None:
            self._freed()
        # The run may not need the slot any more.
        if slots is not None:
            slots.pass_on()


_shared: dict[int, _SharedSlots] = {}
"""The slots of the executors that runs use, by the identity of the executor; an executor need not be hashable."""


class _SharedSlots:
    """The slots of one executor, for all runs that use it."""

    def __init__(self, executor: Executor, loop: AbstractEventLoop) -> None:
        # A reference: while it exists, no other object has this identity.
        self._executor = executor
        self.loop = loop
        self.used = 0
        self._users = 0
        # The uses that wait for a slot, in FIFO order.
        self._waiting: dict[ExecutorUse, None] = {}
        self._unwatch: Callable[[], object] | None = None

    def join(self) -> None:
        """Add a run."""
        self._users += 1
        if self._users == 1:
            _shared[id(self._executor)] = self
            self._unwatch = self._executor.watch(self._changed)

    def leave(self, use: ExecutorUse) -> None:
        """Remove a run."""
        self._waiting.pop(use, None)
        self._users -= 1
        self._forget()
        self.pass_on()

    def take(self, use: ExecutorUse) -> bool:
        """Take a slot, if one is free; otherwise add the run to the wait queue."""
        limit = self._executor.capabilities.slots
        if limit is None or self.used < limit:
            self.used += 1
            return True
        self._waiting[use] = None
        return False

    def pass_on(self) -> None:
        """Wake the next run, if a slot is free."""
        limit = self._executor.capabilities.slots
        if limit is None or self.used < limit:
            self._wake_next()

    def put(self) -> None:
        """Return a slot."""
        self.used -= 1
        self._forget()
        self.pass_on()

    def _forget(self) -> None:
        """Forget the executor when no run uses it and no detached work has a slot."""
        if not self._users and self._unwatch is not None:
            unwatch, self._unwatch = self._unwatch, None
            unwatch()
        if not self._users and not self.used and _shared.get(id(self._executor)) is self:
            del _shared[id(self._executor)]

    def _wake_next(self) -> None:
        if self._waiting:
            use = next(iter(self._waiting))
            del self._waiting[use]
            use.notify()

    def _changed(self) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for use in waiting:
            use.notify()
