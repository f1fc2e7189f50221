"""`Turn`: one at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Turn"]


class Turn:
    """What is entered by one at a time, `async with turn:`; the others wait in their order.

    It is handed from one to the next, so that nobody overtakes those who wait. An `asyncio.Lock` does the same, but looks for one who
    is cancelled among all who wait.

    Cost: O(1), whatever the number of those who wait, also for one who leaves from among them.
    Cancel safety: one who is cancelled while it waits gives up its place.
    """

    __slots__ = ("_is_taken", "_loop", "_waiting")

    def __init__(self) -> None:
        self._is_taken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def locked(self) -> bool:
        """Whether it is somebody's turn."""
        return self._is_taken

    async def __aenter__(self) -> None:
        """Waits until it is the caller's turn.

        Raises:
            RuntimeError: It would have to wait on another loop than others did.
        """
        if not self._is_taken:
            self._is_taken = True
            return
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(f"{self!r} is bound to a different event loop")
        turn = loop.create_future()
        self._waiting[turn] = None
        try:
            await turn
        except BaseException:
            if turn in self._waiting:
                del self._waiting[turn]
            elif not turn.cancelled():
                # It was handed the turn in that very moment.
                self._hand_on()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hands it on."""
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
            # It was cancelled, and will not have it.
        self._is_taken = False
