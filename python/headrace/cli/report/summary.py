"""`Summary`: totals and options for the top of a report. `map` makes it at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals and options of a run."""

    job: str
    """The function as named on the command line."""
    options: Sequence[tuple[str, str]]
    """Names and formatted values of the other options."""
    outcome: str
    """The outcome, in one sentence."""
    whole: bool
    """Whether the input was processed to its end."""
    began: datetime
    seconds: float
    unit: str
    """The name of a position in the input: line, or record."""
    read: int
    done: int
    failed: int
    retried: int
    """The number of retries."""
    throttled: int
    """The number of calls that a server throttled, and that were no attempts."""
