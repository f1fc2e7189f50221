"""What the time line of a report looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
