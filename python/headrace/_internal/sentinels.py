"""`SKIP`: nothing, where an item is expected."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["SKIP", "Skip"]


class Skip(Enum):
    """The type of `SKIP`, for annotations; an enum, so that checkers narrow by `is SKIP`."""

    SKIP = "SKIP"

    def __repr__(self) -> str:
        return "SKIP"


SKIP: Final = Skip.SKIP
"""What the handler of `catch` returns to have nothing in the place of an error."""
