"""What a pool tells about its tasks: one immutable envelope for each thing that happened."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["EnvelopeType", "Final", "TaskProgressEnvelope"]

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
class TaskProgressEnvelope(Generic[T_co]):
    """One thing that happened to one task of a pool.

    For each task that was called there are zero or more `INTERMEDIATE` envelopes, in the order in which it yielded
    them, and then exactly one `FINAL` or `ERROR`. Times are seconds of the clock of the loop that ran the pool.
    """

    task_id: int
    """The number of the task in its runner, from 1, in the order in which tasks were taken up."""
    key: Hashable
    """The `key` that the `Task` was built with; None for a bare callable."""
    type: EnvelopeType
    """What this envelope tells."""
    value: T_co
    """What the task yielded or ended with; None in an `ERROR`."""
    error: BaseException | None
    """What the task raised, the very object; None unless this is an `ERROR`."""
    attempt: int
    """Which call of the task this is about, from 1; 0 if the task was never called."""
    queued: float
    """When the runner took the task up."""
    started: float | None
    """When the task was called, its capacity held; None if it never was."""
    finished: float | None
    """When the task ended; None in an `INTERMEDIATE`."""


@dataclass(frozen=True, slots=True)
class Final(Generic[T_co]):
    """The last item of an async generator task: `yield Final(value)` gives the value of its `FINAL` envelope.

    The generator goes on behind that `yield` to its own end, so that its `async with` blocks end as they would after a
    `return`. One that yields anything more has failed, and gives a `RuntimeError`.
    """

    value: T_co
    """The final value of the task."""
