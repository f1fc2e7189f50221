"""The types of the events that a pool reports about its tasks. `rust/py/src/pool/envelope.rs` reads `EnvelopeType` here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class EnvelopeType(Enum):
    """The type of the event in an envelope."""

    INTERMEDIATE = "intermediate"
    """The task yielded a value and is still running."""
    FINAL = "final"
    """The task ended with a value."""
    ERROR = "error"
    """The task ended with an error, or could not be run."""


@dataclass(frozen=True, slots=True)
class Final(Generic[T_co]):
    """The last item of an async generator task: `yield Final(value)` sets the value of its `FINAL` envelope.

    The generator is resumed after this `yield` and must run to its end; its `async with` blocks exit as after a `return`.
    If it yields another item, the task fails with a `RuntimeError`.
    """

    value: T_co
    """The final value of the task."""
