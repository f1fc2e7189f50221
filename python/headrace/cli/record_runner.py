"""`RecordRunner`: makes the pool task that calls the function with one record. `map` receives the outcomes."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any, Protocol

from headrace.cli.conversion import NUMBER, RESULT
from headrace.cli.load_function import is_async
from headrace.cli.output import encode_line
from headrace.cli.record_error import DescribedError, InterruptingError, PermanentError
from headrace.task.failure import Verdict, classify
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.cli.hidden_retries import HiddenRetries
    from headrace.cli.record_task import RecordTask


class RecordListener(Protocol):
    """Receives the outcome of each record, once, after its last attempt, on the event loop."""

    def is_stopped(self) -> bool:
        """Whether no further record may be started."""
        ...

    def complete(self, record_task: RecordTask, line: bytes) -> None:
        """Accept a result as a line of JSON."""
        ...

    def fail(self, record_task: RecordTask, error: BaseException) -> None:
        """Accept the error of a record that failed, was cancelled or could not be started."""
        ...


class RecordRunner:
    """Makes a pool task from each record.

    An async function runs on the event loop, any other in a thread. The result is encoded as JSON in the same place. In a run with
    worker processes, `RecordExecutor` makes the calls instead, and reports them to `begin`, `keep` and `end_failed`.

    Args:
        function: the function of the user.
        listener: it receives the outcomes.
        hidden_retries: it looks at each error.
        cooldown: whether a throttled answer costs a record no attempt.
        number: whether each result is written with the number of its record.
        is_remote: whether worker processes make the calls.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        listener: RecordListener,
        hidden_retries: HiddenRetries,
        *,
        cooldown: bool,
        number: bool,
        is_remote: bool = False,
    ) -> None:
        self._function = function
        self._listener = listener
        self._number = number
        self.hidden_retries: HiddenRetries = hidden_retries
        self._cooldown = cooldown
        self._is_async = is_async(function)
        self._is_threaded = not (self._is_async or is_remote)

        def in_thread(record_task: RecordTask) -> bytes:
            return self._in_thread(record_task)

        # A function, because `Task` takes longer to check a method.
        self._call: Callable[[RecordTask], Any] = self._on_loop if self._is_async else in_thread
        # The records whose last error the pool has not judged yet, by the identity of the error. Throttled answers are counted
        # only if they cost no attempt.
        self._unjudged: dict[int, RecordTask] = {}

    def make_task(self, record_task: RecordTask, cost: int | Mapping[str, float]) -> Task:
        """Make the task of a record. `cost` is charged for each call."""
        return Task(
            self._call,
            record_task,
            key=record_task,
            cost=cost,
            thread=self._is_threaded,
            on_complete=lambda line: self._listener.complete(
                record_task, self._numbered(record_task, line)
            ),
            on_error=lambda error: self._fail(record_task, error),
        )

    def classify(self, error: Exception) -> Verdict:
        """Return the verdict on the error of a call, and count throttled answers. The pool calls it once for each failed call."""
        if isinstance(error, PermanentError):
            return Verdict("permanent")
        verdict = classify(error)
        record_task = self._unjudged.pop(id(error), None)
        if record_task is not None:
            record_task.raised = None
            if verdict.kind == "throttled":
                record_task.throttled += 1
        return verdict

    async def _on_loop(self, record_task: RecordTask) -> bytes:
        self._check_stopped()
        try:
            value = await self._function(self._begin_with_value(record_task))
        except BaseException as error:
            wrapped = self.end_failed(record_task, error)
            if wrapped is error:
                raise
            raise wrapped from error
        return self._end_with_value(record_task, value)

    def _in_thread(self, record_task: RecordTask) -> bytes:
        self._check_stopped()
        try:
            value = self._function(self._begin_with_value(record_task))
        except BaseException as error:
            wrapped = self.end_failed(record_task, error)
            if wrapped is error:
                raise
            raise wrapped from error
        return self._end_with_value(record_task, value)

    def _check_stopped(self) -> None:
        """Cancel a call that the pool had already granted when the run was stopped. A journal must not record a result for it."""
        if self._listener.is_stopped():
            raise CancelledError

    def begin(self, record_task: RecordTask) -> None:
        """Note the start of a call."""
        self._forget(record_task)
        record_task.begin()

    def _begin_with_value(self, record_task: RecordTask) -> Any:
        """Note the start of a call. Return its argument, parsed again for a later call: an earlier one may have changed it."""
        self.begin(record_task)
        record = record_task.record
        return record.value if record_task.calls == 1 else record.copy_value()

    def keep(self, record_task: RecordTask, line: bytes) -> bytes:
        """Keep the line of a result, and return it for the pool: without its number, which may be another in a later run."""
        record_task.line = self._numbered(record_task, line)
        return line

    def end_failed(self, record_task: RecordTask, error: BaseException) -> BaseException:
        """Note the end of a call that failed. Return its error, or the wrapper of one that would end the event loop or the thread."""
        record_task.end()
        if isinstance(error, KeyboardInterrupt):
            return InterruptingError()
        if isinstance(error, SystemExit):
            return PermanentError()
        if isinstance(error, CancelledError):
            record_task.is_cancelled = True
        elif isinstance(error, Exception):
            record_task.error = (
                error.kind if isinstance(error, DescribedError) else type(error).__name__
            )
            self.hidden_retries.look_at(error)
            if self._cooldown:
                record_task.raised = error
                self._unjudged[id(error)] = record_task
        return error

    def _fail(self, record_task: RecordTask, error: BaseException) -> None:
        self._forget(record_task)
        self._listener.fail(record_task, error)

    def _forget(self, record_task: RecordTask) -> None:
        """Forget an error that the pool did not judge, such as one that was raised after the time limit of its call."""
        if record_task.raised is not None:
            self._unjudged.pop(id(record_task.raised), None)
            record_task.raised = None

    def _end_with_value(self, record_task: RecordTask, value: object) -> bytes:
        record_task.end()
        try:
            line = encode_line(value)
        except Exception as error:
            # A retry would return the same value.
            raise PermanentError from error
        return self.keep(record_task, line)

    def _numbered(self, record_task: RecordTask, line: bytes) -> bytes:
        if not self._number:
            return line
        number = record_task.record.number
        return b'{"%s": %d, "%s": %s}\n' % (NUMBER.encode(), number, RESULT.encode(), line[:-1])
