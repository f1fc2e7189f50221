"""`RecordRunner`: makes the pool task that calls the function with one record. `map` receives the outcomes."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from headrace.cli.conversion import NUMBER, RESULT
from headrace.cli.load_function import is_async
from headrace.cli.output import encode_line
from headrace.cli.record_error import InterruptingError, PermanentError
from headrace.task.failure import classify
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from headrace.cli.hidden_retries import HiddenRetries
    from headrace.cli.record_task import RecordTask


class RecordListener(Protocol):
    """Receives the outcome of each record, once, after its last attempt, on the event loop."""

    def is_stopped(self) -> bool:
        """Whether no further record may be started."""
        ...

    def complete(self, record_task: RecordTask, line: bytes | None) -> None:
        """Accept a result as a line of JSON; None if the record was not started."""
        ...

    def fail(self, record_task: RecordTask, error: BaseException) -> None:
        """Accept the error of a record that failed, was cancelled or could not be started."""
        ...


class RecordRunner:
    """Makes a pool task from each record.

    An async function runs on the event loop, any other in a thread. The result is encoded as JSON in the same place.

    Args:
        function: the function of the user.
        listener: it receives the outcomes.
        hidden_retries: it looks at each error.
        cooldown: whether a throttled answer costs a record no attempt.
        number: whether each result is written with the number of its record.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        listener: RecordListener,
        hidden_retries: HiddenRetries,
        *,
        cooldown: bool,
        number: bool,
    ) -> None:
        self._function = function
        self._listener = listener
        self._number = number
        self._hidden_retries = hidden_retries
        self._cooldown = cooldown
        self._is_async = is_async(function)

    def make_task(self, record_task: RecordTask, cost: int | Mapping[str, float]) -> Task:
        """Make the task of a record, with its line number as key. `cost` is charged for each call."""
        listener = self._listener
        return Task(
            self._on_loop if self._is_async else self._in_thread,
            record_task,
            key=record_task.record.number,
            cost=cost,
            thread=not self._is_async,
            on_complete=lambda line: listener.complete(record_task, line),
            on_error=lambda error: listener.fail(record_task, error),
        )

    async def _on_loop(self, record_task: RecordTask) -> bytes | None:
        if self._listener.is_stopped():
            return None  # the pool had already granted it
        with self._call(record_task):
            value = await self._function(self._value(record_task))
        record_task.line = self._encode(record_task, value)
        return record_task.line

    def _in_thread(self, record_task: RecordTask) -> bytes | None:
        if self._listener.is_stopped():
            return None
        with self._call(record_task):
            value = self._function(self._value(record_task))
        record_task.line = self._encode(record_task, value)
        return record_task.line

    def _encode(self, record_task: RecordTask, value: object) -> bytes:
        try:
            if self._number:
                value = {NUMBER: record_task.record.number, RESULT: value}
            return encode_line(value)
        except Exception as error:
            # A retry would return the same value.
            raise PermanentError from error

    def _value(self, record_task: RecordTask) -> Any:
        """Return the argument of the function, parsed again for each later call: an earlier one may have changed it."""
        record = record_task.record
        return record.value if record_task.calls == 1 else record.copy_value()

    @contextmanager
    def _call(self, record_task: RecordTask) -> Generator[None]:
        """Time a call of the function, and wrap the errors that would end the event loop or the thread."""
        record_task.begin()
        try:
            yield
        except KeyboardInterrupt as error:
            raise InterruptingError from error
        except SystemExit as error:
            raise PermanentError from error
        except CancelledError:
            record_task.is_cancelled = True
            raise
        except Exception as error:
            record_task.error = type(error).__name__
            self._hidden_retries.look_at(error)
            if self._cooldown and classify(error).kind == "throttled":
                record_task.throttled += 1
            raise
        finally:
            record_task.end()
