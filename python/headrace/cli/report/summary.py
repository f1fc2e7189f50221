"""What stands at the top of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run went, in a few words and numbers."""

    job: str
    """The function, as the command line names it."""
    options: Sequence[tuple[str, str]]
    """What else the command line asked for: names and values."""
    outcome: str
    """How it ended, in one sentence."""
    whole: bool
    """Whether it came to the end of its input."""
    began: datetime
    seconds: float
    read: int
    done: int
    failed: int
    retried: int
    """Calls that were made again after an error."""
