"""`RunExecutors`: the executors of a run, which `Run` makes, and `ExecutorUse`: the use of one of them, whose slots runs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.pool.executor.executor import CancelSupport
from headrace.pool.executor.shared_slots import SharedSlots
from headrace.pool.executor.thread import ThreadExecutor

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from contextvars import Context

    from headrace.pool.executor.executor import Executor
    from headrace.pool.executor.shared_slots import Weighted


class RunExecutors:
    """The executors of a run: its own threads, and the executor that the user has passed.

    Args:
        name: The name of the runner.
        given: The executor of all tasks that need no thread; None for the event loop.
        capacity: The capacity of the run, by whose weight it shares the slots of the executor with other runs.
    """

    __slots__ = ("_given", "_threads")

    def __init__(self, name: str, given: Executor | None, capacity: Weighted) -> None:
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

    def awaited(self) -> Executor | None:
        """Return the executor of the user if the run waits for a slot of it. Any thread may call it."""
        return self._given.executor if self._given is not None and self._given.waits else None

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

    def __init__(self, executor: Executor, capacity: Weighted, *, is_owned: bool) -> None:
        self.executor = executor
        self.capacity: Weighted = capacity
        """The capacity of the run."""
        # None after the run, to which it refers.
        self._freed: Callable[[], object] | None = None
        self._is_owned = is_owned
        self._slots: SharedSlots | None = None
        self._loop: AbstractEventLoop | None = None
        self._context: Context | None = None

    @property
    def can_cancel(self) -> bool:
        """Whether the executor can cancel work."""
        return self.executor.capabilities.cancel_support is not CancelSupport.NONE

    @property
    def waits(self) -> bool:
        """Whether the run waits for a slot."""
        return self._slots is not None and self._slots.is_waiting(self)

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
        slots = SharedSlots.of(self.executor, loop)
        self._loop, self._context, self._freed = loop, context, freed
        self._slots = slots
        slots.join(self)
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

    def lend_slot(self) -> None:
        """Lend a slot, whose task waits for its capacity, to other runs."""
        if self._slots is not None:
            self._slots.lend(self)

    def reclaim_slot(self) -> None:
        """Use a lent slot again."""
        if self._slots is not None:
            self._slots.reclaim(self)

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
