"""`RecordExecutor`: runs the calls of `headrace map` in worker processes, for `--executor`. `map` makes one.

The pool submits the task of a record. It cannot travel, since it refers to the run, so a task that can is submitted in its place
(`worker_call`): the name of the function and the value of the record. A listener notes the start and the end of each call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast, overload

from headrace.cli.record_error import InterruptingError, RemoteRecordError
from headrace.cli.worker_call import FailedRecord
from headrace.errors import WorkerLost
from headrace.pool.executor.submission import Submission
from headrace.task.failure import attach_verdict
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headrace.cli.executor_options import ExecutorOptions
    from headrace.cli.record_runner import RecordRunner
    from headrace.cli.record_task import RecordTask
    from headrace.pool.executor.executor import Capabilities
    from headrace.pool.executor.handle import Handle, Listener


class RecordExecutor:
    """An executor for the tasks of records.

    Args:
        options: The options of the workers.
        runner: The maker of the tasks. It counts the calls.
        function: The function of the user.
    """

    def __init__(
        self, options: ExecutorOptions, runner: RecordRunner, function: Callable[[Any], Any]
    ) -> None:
        # The name of the function, and the directory in which the name has its meaning.
        self._function = options.function, os.getcwd()  # noqa: PTH109 - it is sent as text
        self._workers, self._call = options.make(function)
        self._runner = runner

    @property
    def capabilities(self) -> Capabilities:
        """Those of the workers."""
        return self._workers.capabilities

    def watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        """See `Executor`."""
        return self._workers.watch(changed)

    async def start(self) -> None:
        """See `Executor`."""
        await self._workers.start()

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Submit a call of the function with the value of the record."""
        if listener is None:
            return Submission(self, task)
        record_task = cast("RecordTask", task.args[0])
        remote = Task(self._call, *self._function, record_task.record.value)
        return self._workers.submit(remote, _CallListener(self._runner, record_task, listener))

    async def aclose(self, grace: float | None = None) -> None:
        """End all workers."""
        await self._workers.aclose(grace)


class _CallListener:
    """Notes the start and the end of one call of a record, and passes them on to the pool."""

    def __init__(self, runner: RecordRunner, record_task: RecordTask, listener: Listener) -> None:
        self._runner = runner
        self._record_task = record_task
        self._listener = listener

    @property
    def name(self) -> str:
        return self._listener.name

    @property
    def has_lease(self) -> bool:
        return self._listener.has_lease

    def called(self) -> None:
        self._runner.begin(self._record_task)
        self._listener.called()

    def emit(self, value: object) -> Awaitable[None] | None:
        # The function returns one result, so its call yields no values.
        return self._listener.emit(value)

    def settle(self, amounts: dict[str, float]) -> None:
        self._listener.settle(amounts)

    def returned(self, value: object) -> None:
        if not isinstance(value, FailedRecord):
            self._record_task.end()
            self._listener.returned(self._runner.keep(self._record_task, cast("bytes", value)))
            return
        if value.hidden is not None:
            self._runner.hidden_retries.report(value.hidden)
        if value.is_interrupt:
            self._fail(InterruptingError())
            return
        error = RemoteRecordError(value.error.kind, value.error.message, value.error.where)
        attach_verdict(error, value.verdict)
        self._fail(error)

    def raised(self, error: BaseException) -> None:
        if isinstance(error, WorkerLost) and not error.started:
            # The pool submits it again.
            self._listener.raised(error)
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._listener.raised(self._runner.end_failed(self._record_task, error))
