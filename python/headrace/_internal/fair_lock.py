"""`FairLock`: an asyncio lock that is handed over in FIFO order. Sinks and push operators serialise their pushes with it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class FairLock:
    """A lock for `async with`, handed from holder to waiter in FIFO order.

    No task overtakes the waiters. An `asyncio.Lock` does the same, but removes a cancelled waiter in O(n).

    Cost: O(1), whatever the number of waiters, also when one of them is cancelled.
    Cancel safety: a cancelled waiter leaves the wait queue.
    """

    __slots__ = ("_is_locked", "_loop", "_waiters")

    def __init__(self) -> None:
        self._is_locked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def locked(self) -> bool:
        """Return whether a task holds the lock."""
        return self._is_locked

    async def __aenter__(self) -> None:
        """Acquire the lock.

        Raises:
            RuntimeError: It would have to wait on another loop than an earlier waiter.
        """
        if not self._is_locked:
            self._is_locked = True
            return
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(f"{self!r} is bound to a different event loop")
        waiter = loop.create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        except BaseException:
            if waiter in self._waiters:
                del self._waiters[waiter]
            elif not waiter.cancelled():
                # The lock was handed over in the same loop iteration.
                self._hand_over()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Hand the lock to the next waiter, or release it."""
        self._hand_over()

    def _hand_over(self) -> None:
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            # A cancelled waiter is done already and does not take the lock.
            if not waiter.done():
                waiter.set_result(None)
                return
        self._is_locked = False
