"""Sentinels: `SKIP` in place of an item, `NOTHING` for an absent value.

`pull.transform` uses `SKIP`; `pull._methods`, `push.builder` and `graph.graph` use `NOTHING`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Skip(Enum):
    """The type of `SKIP`, for annotations; an enum, so that checkers narrow by `is SKIP`."""

    SKIP = "SKIP"

    def __repr__(self) -> str:
        return "SKIP"


SKIP: Final = Skip.SKIP
"""Returned by the handler of `catch` to drop the failed item."""


class _Nothing:
    """The type of `NOTHING`."""

    def __repr__(self) -> str:
        return "NOTHING"

    def __reduce__(self) -> str:
        # By its name, so that a copy is the one object that it is compared with.
        return "NOTHING"


NOTHING: Final = _Nothing()
"""An absent value, where None may be an item."""
