"""What a pool tells about its tasks: one immutable envelope for each thing that happened."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class EnvelopeType(Enum):
    """What an envelope tells."""

    INTERMEDIATE = "intermediate"
    """The task yielded a value and goes on."""
    FINAL = "final"
    """The task ended with a value."""
    ERROR = "error"
    """The task ended with an error, or could not be run at all."""


@dataclass(frozen=True, slots=True)
class Final(Generic[T_co]):
    """The last item of an async generator task: `yield Final(value)` gives the value of its `FINAL` envelope.

    The generator goes on behind that `yield` to its own end, so that its `async with` blocks end as they would after a
    `return`. One that yields anything more has failed, and gives a `RuntimeError`.
    """

    value: T_co
    """The final value of the task."""
