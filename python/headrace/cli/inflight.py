"""`InFlight`: a bound on the number of records in flight, for `map` and `groups`."""

from __future__ import annotations

import asyncio


class InFlight:
    """Counts items in flight, up to a limit. Items are removed in any order and are not distinguished.

    A `CapacitySource` would keep a lease for each item, owned by the task that reads.

    Args:
        limit: the most items in flight, a positive number.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count: int = 0
        """Items in flight."""
        self._removed = asyncio.Event()

    async def wait_for_space(self) -> None:
        """Wait until one more item fits. At most one task may wait at a time."""
        while self.count >= self.limit:
            self._removed.clear()
            await self._removed.wait()

    def add(self) -> None:
        """Count one more item."""
        self.count += 1

    def remove(self) -> None:
        """Count one item less, and wake the task that waits for space."""
        self.count -= 1
        self._removed.set()
