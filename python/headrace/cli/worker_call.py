"""`call` and `call_async`: call the function with one record in a worker process, for `--executor`. `record_executor` submits them.

An outcome is sent back as text: a line of JSON, or a `FailedRecord`. So the driver needs none of the classes of the user, and an error
that cannot be pickled is described as well as any other.
"""

from __future__ import annotations

import functools
from asyncio import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.cli.load_function import load_function
from headrace.cli.output import encode_line
from headrace.cli.record_error import PermanentError, RecordError
from headrace.task._sdk_retries import SdkRetries, sdk_retries
from headrace.task.failure import Verdict, classify

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A call that failed."""

    error: RecordError
    verdict: Verdict
    hidden: SdkRetries | None
    """The retries of an SDK that the call shows."""
    is_interrupt: bool
    """Whether the function raised `KeyboardInterrupt`."""

    @classmethod
    def of(cls, error: BaseException) -> FailedRecord:
        """Describe an error."""
        # The process that retries a `SystemExit` would only end again.
        is_permanent = isinstance(error, (PermanentError, SystemExit))
        verdict = Verdict("permanent") if is_permanent else classify(error)
        is_interrupt = isinstance(error, KeyboardInterrupt)
        return cls(RecordError.of(error), verdict, sdk_retries(error), is_interrupt)


def call(spec: str, folder: str, value: Any) -> bytes | FailedRecord:
    """Call the function with the value of a record. Return the line of its result."""
    try:
        return _encode(_load(spec, folder)(value))
    except BaseException as error:
        return FailedRecord.of(error)


async def call_async(spec: str, folder: str, value: Any) -> bytes | FailedRecord:
    """Call the async function with the value of a record. Return the line of its result."""
    try:
        return _encode(await _load(spec, folder)(value))
    except CancelledError:
        raise
    except BaseException as error:
        return FailedRecord.of(error)


@functools.cache
def _load(spec: str, folder: str) -> Callable[[Any], Any]:
    return load_function(spec, folder)


def _encode(value: object) -> bytes:
    try:
        return encode_line(value)
    except Exception as error:
        # A retry would return the same value.
        raise PermanentError from error
