"""What happened at one place, in the order in which it happened."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Kind", "Lane", "Mark", "written"]


class Kind(Enum):
    """What a mark stands for."""

    ITEM = "item"
    ERROR = "error"
    END = "end"
    # An item of a script that nobody asked for.
    LEFT = "left"


class Mark(NamedTuple):
    """One thing that happened."""

    frame: int
    kind: Kind
    text: str = ""


@dataclass
class Lane:
    """One line of a picture.

    Attributes:
        name: What stands in front of it.
        began: The time of the loop at frame 0. A frame is a second.
        marks: What happened. Frames never fall.
        held: From which frame to which something was held, if it is a state and no stream.
        task: What notes things here on its own.
    """

    name: str
    began: float
    marks: list[Mark] = field(default_factory=list)
    held: tuple[int, int] | None = None
    task: asyncio.Task[None] | None = None

    def now(self) -> int:
        """The frame of this moment."""
        # Sums of floats fall a hair short of the frame that they mean.
        return math.floor(asyncio.get_running_loop().time() - self.began + 1e-6)

    def item(self, item: Any) -> None:
        """Notes an item, now."""
        self.marks.append(Mark(self.now(), Kind.ITEM, written(item)))

    def error(self) -> None:
        """Notes an error, now."""
        self.marks.append(Mark(self.now(), Kind.ERROR))

    def end(self) -> None:
        """Notes the end, now."""
        self.marks.append(Mark(self.now(), Kind.END))

    def line(self) -> str:
        """The lane as a line of marbles, for those who cannot see the picture."""
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
    """An item as a reader would write it: `[a, 1]`, without quotes."""
    within: Iterable[Any] = item
    if isinstance(item, list):
        return f"[{', '.join(map(written, within))}]"
    if isinstance(item, tuple):
        return f"({', '.join(map(written, within))})"
    return str(item)
