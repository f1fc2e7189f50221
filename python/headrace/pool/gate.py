"""`Gate`: where the feeder of a run waits until something of the run is so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Gate:
    """Lets one through as soon as what it waits for is so: there is one feeder to a run."""

    __slots__ = ("_ready", "_turn")

    def __init__(self) -> None:
        # What is waited for, and how whoever waits is woken.
        self._ready: Callable[[], bool] | None = None
        self._turn: asyncio.Future[None] | None = None

    async def until(self, ready: Callable[[], bool]) -> None:
        """Waits until something is so; only what `look` follows can make it so.

        Without a turn of the loop if it is so already. When this returns, it is so.
        """
        while not ready():
            self._ready = ready
            self._turn = asyncio.get_running_loop().create_future()
            try:
                await self._turn
            finally:
                self._ready = self._turn = None

    def look(self) -> None:
        """Something has changed: whoever waits goes on if it is so now."""
        turn, ready = self._turn, self._ready
        if turn is not None and ready is not None and not turn.done() and ready():
            turn.set_result(None)
