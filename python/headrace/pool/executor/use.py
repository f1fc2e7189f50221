"""`RunExecutors`: the executors of a run, which `Run` makes, and `ExecutorUse`: the use of one of them.

Runs may share an executor. `_SharedSlots` counts its slots for all of them. While more than one run needs a slot, a slot goes to the run
that has had the fewest for the weight of its capacity (start-time fair queueing, counted in tasks):

1. A run that finds no free slot, or finds another run waiting, waits.
2. A returned slot is given in the next event-loop iteration, so that the run that has returned it may wait for it too.
3. The chosen run is promised the slot and notified. A promise that it does not take up goes to the next run.

A run that is alone is notified at once. That saves two event-loop iterations a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headrace.errors import WrongLoopError
from headrace.pool.executor.executor import CancelSupport
from headrace.pool.executor.thread import ThreadExecutor

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from contextvars import Context

    from headrace.pool.executor.executor import Executor


class _Weighted(Protocol):
    @property
    def weight(self) -> float: ...


class RunExecutors:
    """The executors of a run: its own threads, and the executor that the user has passed.

    Args:
        name: The name of the runner.
        given: The executor of all tasks that need no thread; None for the event loop.
        capacity: The capacity of the run, by whose weight it shares the slots of the executor with other runs.
    """

    __slots__ = ("_given", "_threads")

    def __init__(self, name: str, given: Executor | None, capacity: _Weighted) -> None:
        self._threads = ExecutorUse(ThreadExecutor(name), capacity, is_owned=True)
        self._given = None if given is None else ExecutorUse(given, capacity, is_owned=False)

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
        capacity: The capacity of the run.
        is_owned: Whether the run has created the executor, and closes it.
    """

    def __init__(self, executor: Executor, capacity: _Weighted, *, is_owned: bool) -> None:
        self.executor = executor
        self.capacity = capacity
        self.service: float = 0.0
        """The number of slots that the run has had, divided by its weight, since it shares them."""
        self.is_promised: bool = False
        """Whether a slot is kept for the run until it has been notified."""
        # None after the run, to which it refers.
        self._freed: Callable[[], object] | None = None
        self._is_owned = is_owned
        self._slots: _SharedSlots | None = None
        self._loop: AbstractEventLoop | None = None
        self._context: Context | None = None

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
        """Call `freed` in the context of the run."""
        if self._freed is not None and self._context is not None:
            self._context.run(self._freed)


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
        # The number of free slots that are kept for runs that were chosen.
        self._promised = 0
        # The service of the run that was chosen last.
        self._service = 0.0
        self._is_giving = False
        self._unwatch: Callable[[], object] | None = None

    def join(self) -> None:
        """Add a run."""
        self._users += 1
        if self._users == 1:
            _shared[id(self._executor)] = self
            self._unwatch = self._executor.watch(self._give_soon)

    def leave(self, use: ExecutorUse) -> None:
        """Remove a run."""
        self._waiting.pop(use, None)
        self._take_promise(use)
        self._users -= 1
        self._forget()
        self._give_soon()

    def take(self, use: ExecutorUse) -> bool:
        """Take a slot, if one is free for this run; otherwise add the run to the wait queue."""
        is_promised = self._take_promise(use)
        others_wait = len(self._waiting) > (use in self._waiting)
        if is_promised or (self._has_free() and not others_wait):
            # It stays in the wait queue: another of its tasks may wait for a slot.
            self.used += 1
            use.service = max(use.service, self._service) + 1 / use.capacity.weight
            return True
        self._waiting[use] = None
        if self._has_free():
            self._give_soon()
        return False

    def put(self) -> None:
        """Return a slot."""
        self.used -= 1
        self._forget()
        if self._users == 1:
            self._give()
        else:
            self._give_soon()

    def _has_free(self) -> bool:
        limit = self._executor.capabilities.slots
        return limit is None or self.used + self._promised < limit

    def _take_promise(self, use: ExecutorUse) -> bool:
        """Return whether a slot is kept for this run, and keep it no longer."""
        was_promised, use.is_promised = use.is_promised, False
        self._promised -= was_promised
        return was_promised

    def _give_soon(self) -> None:
        """Give free slots in the next event-loop iteration: a slot is returned before its run waits for the next one."""
        if self._waiting and not self._is_giving and not self.loop.is_closed():
            self._is_giving = True
            self.loop.call_soon(self._give)

    def _give(self) -> None:
        """Notify the runs for which there is a slot."""
        self._is_giving = False
        while self._waiting and self._has_free():
            use = min(self._waiting, key=lambda use: max(use.service, self._service))
            self._service = max(use.service, self._service)
            del self._waiting[use]
            if self._users > 1:
                use.is_promised = True
                self._promised += 1
                # The run takes the slot at once, or in the next step of its feeder.
                self.loop.call_soon(self.loop.call_soon, self._end_promise, use)
            use.notify()

    def _end_promise(self, use: ExecutorUse) -> None:
        """Give the slot to the next run, if this one has not taken it: it does not need it any more."""
        if self._take_promise(use):
            self._give_soon()

    def _forget(self) -> None:
        """Forget the executor when no run uses it and no detached work has a slot."""
        if not self._users and self._unwatch is not None:
            unwatch, self._unwatch = self._unwatch, None
            unwatch()
        if not self._users and not self.used and _shared.get(id(self._executor)) is self:
            del _shared[id(self._executor)]
