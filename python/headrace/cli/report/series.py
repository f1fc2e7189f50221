"""Definitions of the levels and rates in the time line of a report. `map` makes them, the collector samples them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Series:
    """A level that is sampled during a run, and its presentation."""

    name: str
    """Its name in the time line."""
    title: str
    note: str
    """A short description of the unit."""
    limit: float | None
    """The maximum of the level; None if it has none."""
    read: Callable[[], float]
    """Returns the current level."""


@dataclass(frozen=True, slots=True)
class SeriesFamily:
    """Levels of one kind, whose names may appear and disappear during a run."""

    title: str
    note: str
    limit: float | None
    """The maximum of each level; None if there is none."""
    read: Callable[[], Mapping[str, float]]
    """Returns the current levels by name."""


@dataclass(frozen=True, slots=True)
class RateSeries:
    """Events of the time line that have a maximum rate."""

    name: str
    """Their name in the time line."""
    title: str
    note: str
    limit: float
    """The maximum amount per second."""
