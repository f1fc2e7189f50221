"""`Setting`: the executor, the directory and the helpers of one case."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headrace.capacity.node import CapacitySource
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.task.task import Task
from headrace.testing.executors import _needs, _tasks
from headrace.testing.executors._observed import Observed, Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from contextvars import ContextVar

    from headrace._core import TaskProgressEnvelope
    from headrace.pool.executor.executor import Capabilities, Executor
    from headrace.pool.executor.handle import Handle

_PAUSE = 0.001


class MakeExecutor(Protocol):
    """A function that returns a new executor, for a case to start and to close."""

    def __call__(self, *, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
        """Return a new executor.

        Args:
            carry: The context variables that travel with a task. A local executor, which copies the context, ignores them.
        """
        ...


class Setting:
    """The executor, the directory and the helpers of one case.

    Args:
        make_executor: Returns a new executor.
        directory: The directory of the case.
    """

    def __init__(self, make_executor: MakeExecutor, directory: str) -> None:
        self._make = make_executor
        self._directory = Path(directory)
        self._made: list[Observed] = []
        self.waits_for: str = "the start of the executor"
        """The condition that the case waits for, or has waited for last."""
        self.executor: Observed = self.make()
        """The executor, under observation."""

    @property
    def raw(self) -> Executor:
        """The executor itself."""
        return self.executor.inner

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the executor."""
        return self.executor.capabilities

    def make(self, carry: Sequence[ContextVar[Any]] = ()) -> Observed:
        """Return another executor, which was not started; `aclose` closes it."""
        executor = Observed(self._make(carry=carry))
        self._made.append(executor)
        return executor

    async def aclose(self) -> None:
        """Open all gates, and close the executors."""
        _tasks.mark(self.path(_tasks.STOP))
        for executor in self._made:
            await executor.aclose(1.0)

    def faults(self) -> list[str]:
        """Return the rules that the executors broke, in words."""
        return [fault for executor in self._made for fault in executor.faults()]

    # Files.

    def path(self, name: str) -> str:
        """Return the path of a file of the case."""
        return str(self._directory / name)

    def open(self, name: str = "gate") -> None:
        """Open a gate."""
        _tasks.mark(self.path(name))

    def has(self, name: str) -> bool:
        """Return whether a mark was made."""
        return Path(self.path(name)).exists()

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file."""
        return _tasks.lines(self.path(name))

    # Waiting.

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition is true; `what` names it, if that takes too long."""
        self.waits_for = what
        while not condition():
            await asyncio.sleep(_PAUSE)

    async def marked(self, name: str) -> None:
        """Wait until a task has made a mark."""
        await self.until(lambda: self.has(name), f"the mark {name!r} of a task")

    async def result(self, work: asyncio.Future[Any], what: str) -> Any:
        """Return the result of an asyncio task."""
        await self.until(work.done, what)
        return work.result()

    async def settle_down(self) -> None:
        """Yield until all callbacks that are ready have run, and those that they have made ready."""
        for _ in range(20):
            await asyncio.sleep(0)

    # Tasks.

    def gated(self, begun: str, gate: str = "gate", **options: Any) -> Task[Any]:
        """Return a task that makes a mark and waits for a gate. It can be cancelled, if the executor can cancel."""
        wait = _tasks.wait_async if _needs.streams(self.capabilities) else _tasks.wait
        return Task[Any](wait, self.path(begun), self.path(gate), **options)

    def napping(self, number: int, seconds: float, **options: Any) -> Task[Any]:
        """Return a task that returns a number after a delay, without blocking an event loop."""
        nap = _tasks.nap_async if _needs.streams(self.capabilities) else _tasks.nap
        return Task[Any](nap, number, seconds, **options)

    def submit(
        self,
        task: Task[Any],
        room: Callable[[], Awaitable[Any]] | None = None,
        on_end: Callable[[], object] | None = None,
    ) -> tuple[Handle, Recorder]:
        """Submit a task.

        Args:
            task: The task.
            room: Returns an awaitable that waits for room for a value; None if there always is.
            on_end: Called after the outcome, which some executors report before this returns; None for nothing.
        """
        recorder = Recorder(task, room, on_end)
        return self.executor.submit(task, recorder), recorder

    async def outcome(self, task: Task[Any]) -> Recorder:
        """Submit a task, and wait for its outcome."""
        _, recorder = self.submit(task)
        await self.ended(recorder)
        return recorder

    async def ended(self, *recorders: Recorder) -> None:
        """Wait for the outcomes of submitted tasks."""
        for recorder in recorders:
            await self.until(recorder.has_ended, f"the outcome of {recorder.name}")

    async def lives(self) -> None:
        """Check that the executor runs another task."""
        recorder = await self.outcome(Task(_tasks.double, 21))
        expect_equal(recorder.calls, [("called", None), ("returned", 42)], "the events afterwards")

    # Runs.

    def pool(
        self,
        tasks: Iterable[Any],
        capacity: CapacitySource | int = 4,
        executor: Observed | None = None,
        **options: Any,
    ) -> HierarchicalTaskPoolRunner[Any]:
        """Return a runner that uses the executor."""
        if isinstance(capacity, int):
            capacity = CapacitySource(capacity)
        return HierarchicalTaskPoolRunner(
            tasks, capacity, executor=executor or self.executor, **options
        )

    async def events(
        self, runner: HierarchicalTaskPoolRunner[Any]
    ) -> list[TaskProgressEnvelope[Any]]:
        """Run to the end, and return the events."""
        self.waits_for = "the end of a run"
        async with runner.run_tasks() as progress:
            found = [event async for event in progress]
        self.released(runner)
        return found

    def released(self, runner: HierarchicalTaskPoolRunner[Any]) -> None:
        """Check that a run has released its capacity."""
        held = runner.capacity.held
        amounts = [held] if isinstance(held, (int, float)) else held.values()
        expect(not any(amounts), f"capacity is held after a run: {held}")
        expect_equal(runner.capacity.waiting, 0, "the requests that wait after a run")

    async def not_waiting(self, *tasks: asyncio.Future[Any]) -> None:
        """Cancel asyncio tasks of the case."""
        for task in tasks:
            task.cancel()
            with suppress(BaseException):
                await task


def expect(condition: object, message: str) -> None:
    """Check a condition. It is no `assert`, which `python -O` removes.

    Raises:
        AssertionError: The condition is false.
    """
    if not condition:
        raise AssertionError(message)


def expect_equal(found: object, expected: object, subject: str) -> None:
    """Check that two objects are equal.

    Raises:
        AssertionError: They are not.
    """
    if found != expected:
        raise AssertionError(f"{subject}: expected {expected!r}, found {found!r}")


def expect_error(found: object, kind: type[BaseException]) -> None:
    """Check the class of an error.

    Raises:
        AssertionError: It is another object.
    """
    if not isinstance(found, kind):
        raise AssertionError(f"expected a {kind.__name__}, found {found!r}") from (
            found if isinstance(found, BaseException) else None
        )
