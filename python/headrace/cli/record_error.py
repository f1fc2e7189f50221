"""What is said of an error that a record failed with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.format import shortened
from headrace.cli.output import as_line

if TYPE_CHECKING:
    from headrace.cli.record_task import Call


class UnretriedError(Exception):
    """Carries an error, as its cause: one that would come again, or that ends more than its record as it is."""


class InterruptingError(UnretriedError):
    """Carries a `KeyboardInterrupt` that the function raised: the record did not fail, the whole job is to stop."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error in words."""

    kind: str
    """The name of its class."""
    message: str
    """What it says; may be empty, or of many lines."""
    where: str
    """`file.py:12`, the place that raised it; empty if that is not known."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Puts an error into words, even one that cannot say what it says."""
        if isinstance(error, UnretriedError) and error.__cause__ is not None:
            error = error.__cause__
        try:
            message = str(error)
        except Exception as mute:
            message = f"(its text cannot be had: {type(mute).__name__})"
        step, where = error.__traceback__, ""
        while step is not None:
            # By hand: `traceback` would read the sources of every frame, for every record that fails.
            where = f"{Path(step.tb_frame.f_code.co_filename).name}:{step.tb_lineno}"
            step = step.tb_next
        return cls(type(error).__name__, message, where)

    def __str__(self) -> str:
        """In one line, with its place; what it says is cut short, and does nothing to a terminal."""
        text = shortened(self.message, 500)
        where = f" ({self.where})" if self.where else ""
        return f"{self.kind}{': ' if text else ''}{text}{where}"


def as_error_line(call: Call, failure: Failure, *, text: bool) -> bytes:
    """The line of a failed record in a file of errors: what went wrong, and the record as it stood in the input."""
    said = {
        "record": call.record.number,
        "error": failure.kind,
        "message": failure.message,
        "where": failure.where,
        "attempts": call.attempts,
        "seconds": round(call.ended - call.started, 6),
    }
    record = call.record.text
    # What is JSON already stays as it is, to the last digit, whatever the function did to the value.
    value = json.dumps(record, ensure_ascii=False) if text else record.strip()
    return as_line(said).removesuffix(b"}\n") + f', "input": {value}}}\n'.encode()
