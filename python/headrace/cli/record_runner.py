"""The function that records are called with: what becomes of one, as a task for a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headrace.cli.load_function import is_async
from headrace.cli.output import as_line
from headrace.cli.record_error import InterruptingError, UnretriedError
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.cli.record_task import Call
    from headrace.cli.records import RecordReader


class RecordListener(Protocol):
    """Who hears how calls ended, on the loop: in the end, not of each attempt."""

    def is_stopped(self) -> bool:
        """Whether no record is to be begun any more."""
        ...

    def complete(self, call: Call, line: bytes | None) -> None:
        """It has a result, as a line of JSON; None if it was not begun any more."""
        ...

    def fail(self, call: Call, error: BaseException) -> None:
        """It failed, was stopped, or could not be called."""
        ...


class Caller:
    """Makes tasks of records.

    An async function runs on the loop and any other in a thread; the result is made a line of JSON where it came from.
    """

    def __init__(
        self, function: Callable[[Any], Any], reader: RecordReader, settling: RecordListener
    ) -> None:
        self._function = function
        self._reader = reader
        self._settling = settling
        self._is_async = is_async(function)

    def task(self, call: Call, cost: int | Mapping[str, float]) -> Task:
        """The task of a record, under the number of its line; `cost` is that of each attempt."""
        settling = self._settling
        return Task(
            self._on_loop if self._is_async else self._in_thread,
            call,
            key=call.record.number,
            cost=cost,
            thread=not self._is_async,
            on_complete=lambda line: settling.complete(call, line),
            on_error=lambda error: settling.fail(call, error),
        )

    async def _on_loop(self, call: Call) -> bytes | None:
        if self._settling.is_stopped():
            return None  # the pool had it on its way
        call.begin()
        try:
            value = await self._function(self._value(call))
        except KeyboardInterrupt as error:
            raise InterruptingError from error
        except SystemExit as error:
            raise UnretriedError from error
        finally:
            call.end()
        call.line = _line(value)
        return call.line

    def _in_thread(self, call: Call) -> bytes | None:
        if self._settling.is_stopped():
            return None
        call.begin()
        try:
            value = self._function(self._value(call))
        except KeyboardInterrupt as error:
            raise InterruptingError from error
        except SystemExit as error:
            raise UnretriedError from error
        finally:
            call.end()
        call.line = _line(value)
        return call.line

    def _value(self, call: Call) -> Any:
        """What the function is called with: anew for each attempt, since the one before may have changed it."""
        record = call.record
        return record.value if call.attempts == 1 else self._reader.parse(record.text)


def _line(value: object) -> bytes:
    try:
        return as_line(value)
    except Exception as error:
        # It would be the same another time.
        raise UnretriedError from error
