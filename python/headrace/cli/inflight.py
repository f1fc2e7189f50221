"""A bound on what is under way."""

from __future__ import annotations

import asyncio


class Window:
    """Lets so many in. What was let in leaves when it is done, in any order, and need not be told apart.

    A `CapacitySource` would keep a lease for each, and count them as those of whoever reads.

    Args:
        limit: how many, a positive number.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: int = 0
        """How many are inside."""
        self._left = asyncio.Event()

    async def room(self) -> None:
        """Waits until one more may enter. For one that waits at a time."""
        while self.held >= self.limit:
            self._left.clear()
            await self._left.wait()

    def enter(self) -> None:
        """One is inside."""
        self.held += 1

    def leave(self) -> None:
        """One is done."""
        self.held -= 1
        self._left.set()
