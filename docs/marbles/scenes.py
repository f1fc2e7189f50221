"""The scenes of all operators, in the order in which the table of operators has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marbles.scenes_merge import MERGE
from marbles.scenes_pull import PULL
from marbles.scenes_push import PUSH
from marbles.scenes_source import SOURCES

if TYPE_CHECKING:
    from marbles.scene import Scene

__all__ = ["SCENES"]

SCENES: tuple[Scene, ...] = (*SOURCES, *PULL, *MERGE, *PUSH)
