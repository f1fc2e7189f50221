"""`RecordError`: the error of a record, formatted for messages and for the file of errors; and the wrappers of errors.

Used by `map`, `record_runner` and the report.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.format import shorten
from headrace.cli.output import encode_line
from headrace.errors import RecordedError

if TYPE_CHECKING:
    from types import TracebackType

    from headrace.cli.record_task import RecordTask


_HEADRACE = f"{Path(__file__).parents[1]}{os.sep}"

# Code that is not the user's: of this package, of the standard library, and without a file. Installed packages are in
# a directory `site-packages`.
_LIBRARIES = (_HEADRACE, f"{Path(os.__file__).parent}{os.sep}", "<")


class PermanentError(Exception):
    """Wraps, as its cause, an error that a retry would not change."""


class InterruptingError(PermanentError):
    """Wraps a `KeyboardInterrupt` that the function raised. It stops the run; the record has not failed."""


class DescribedError(RecordedError):
    """An error that is known by its description only."""

    def __init__(self, kind: str, text: str, where: str) -> None:
        super().__init__(kind, text)
        self.where = where


class RemoteRecordError(DescribedError):
    """The error of a call in a worker process."""


class ReplayedError(DescribedError):
    """The error of an earlier run, out of its journal. The function was not called."""

    def __init__(self, kind: str, text: str, where: str, attempts: int) -> None:
        super().__init__(kind, text, where)
        self.attempts = attempts
        """The number of attempts in that run."""


@dataclass(frozen=True, slots=True)
class RecordError:
    """A formatted error."""

    kind: str
    """The name of its class."""
    message: str
    """Its message; may be empty or have many lines."""
    where: str
    """The deepest place in the user's own code, as `file.py:12`; that of a library if there is none, empty if unknown."""

    @classmethod
    def of(cls, error: BaseException) -> RecordError:
        """Format an error, even one whose `__str__` raises."""
        if isinstance(error, DescribedError):
            return cls(error.kind, error.text, error.where)
        if isinstance(error, PermanentError) and error.__cause__ is not None:
            error = error.__cause__
        try:
            message = str(error)
        except Exception as broken:
            message = f"(its __str__ raised {type(broken).__name__})"
        return cls(type(error).__name__, message, _place(error.__traceback__))

    def __str__(self) -> str:
        """Return one line with the location. The message is shortened, without control characters."""
        text = shorten(self.message, 500)
        where = f" ({self.where})" if self.where else ""
        return f"{self.kind}{': ' if text else ''}{text}{where}"


def _place(step: TracebackType | None) -> str:
    """Return the deepest place outside libraries; that in a library if there is none."""
    own, other = None, None
    # The module `traceback` would read the source of each frame, for each failed record.
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if (
            not name.startswith(_LIBRARIES)
            and "site-packages" not in name
            and "dist-packages" not in name
        ):
            own = step
        elif not name.startswith(_HEADRACE):
            other = step
        step = step.tb_next
    found = own or other
    if found is None:
        return ""
    return f"{Path(found.tb_frame.f_code.co_filename).name}:{found.tb_lineno}"


def encode_error_line(record_task: RecordTask, error: RecordError) -> bytes:
    """Encode the line of a failed record in the file of errors: the error, and the record as in the input."""
    fields = {
        "record": record_task.record.number,
        "error": error.kind,
        "message": error.message,
        "where": error.where,
        "attempts": record_task.attempts or record_task.earlier_attempts,
        "throttled": record_task.throttled,
        "seconds": round(record_task.ended - record_task.started, 6),
    }
    # The last field: `record_batches` finds it again.
    value = record_task.record.json
    return encode_line(fields).removesuffix(b"}\n") + f', "input": {value}}}\n'.encode()
