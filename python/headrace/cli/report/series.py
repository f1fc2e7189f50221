"""What the time line of a report looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Gauge:
    """A level that can be read at any time, and how it is to be shown."""

    name: str
    """Its name in the time line."""
    title: str
    note: str
    """What is counted, in a few words."""
    limit: float | None
    """What it never exceeds, where there is such a thing."""
    read: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Family:
    """Levels of the same kind, which come and go; they can be read at any time."""

    title: str
    note: str
    limit: float | None
    """What none of them ever exceeds, where there is such a thing."""
    read: Callable[[], Mapping[str, float]]
    """Those that there are now, by name."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Events of the time line, which are to be no more frequent than a rate."""

    name: str
    """Their name in the time line."""
    title: str
    note: str
    limit: float
    """How much of it there may be in a second."""
