"""The events at one place of a run, in order."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Kind", "Mark", "Track", "written"]


class Kind(Enum):
    """The kind of a mark."""

    ITEM = "item"
    ERROR = "error"
    END = "end"
    # An item of a script that was never pulled.
    LEFT = "left"


class Mark(NamedTuple):
    """One event."""

    frame: int
    kind: Kind
    text: str = ""


@dataclass
class Track:
    """One row of a picture.

    Attributes:
        name: The label in front of it.
        began: The loop time of frame 0. A frame is a second.
        marks: The events. Their frames never decrease.
        held: The first and last frame of a hold, if the track shows a state instead of a stream.
        task: A background task that records events here.
    """

    name: str
    began: float
    marks: list[Mark] = field(default_factory=list)
    held: tuple[int, int] | None = None
    task: asyncio.Task[None] | None = None

    def now(self) -> int:
        """Return the current frame."""
        # Sums of floats fall slightly short of the intended frame.
        return math.floor(asyncio.get_running_loop().time() - self.began + 1e-6)

    def item(self, item: Any) -> None:
        """Record an item at the current frame."""
        self.marks.append(Mark(self.now(), Kind.ITEM, written(item)))

    def error(self) -> None:
        """Record an error at the current frame."""
        self.marks.append(Mark(self.now(), Kind.ERROR))

    def end(self) -> None:
        """Record the end at the current frame."""
        self.marks.append(Mark(self.now(), Kind.END))

    def line(self) -> str:
        """Return the track as a marble string: the text alternative of the picture."""
        if self.held is not None:
            return f"held from {self.held[0]} s to {self.held[1]} s"
        signs = {Kind.ERROR: "#", Kind.END: "|"}
        seen: list[list[str]] = []
        for frame, kind, text in self.marks:
            if kind is not Kind.LEFT:
                seen.extend([] for _ in range(frame + 1 - len(seen)))
                seen[frame].append(signs.get(kind, text))
        return "".join(
            "-" if not frame else frame[0] if len("".join(frame)) == 1 else f"({' '.join(frame)})"
            for frame in seen
        )


def written(item: Any) -> str:
    """Format an item as a reader would write it: `[a, 1]`, without quotes."""
    within: Iterable[Any] = item
    if isinstance(item, list):
        return f"[{', '.join(map(written, within))}]"
    if isinstance(item, tuple):
        return f"({', '.join(map(written, within))})"
    return str(item)
