"""`End`: the end of a run, for those who wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace._internal.tasks import wait_until_done
from headrace.pool.reentrancy import Inside

if TYPE_CHECKING:
    from contextvars import Context


class End:
    """Who waits for the end is not held up by a cancellation, and does not hold up the end.

    Args:
        context: that of the run: what runs in it, or in a copy, is inside of the run.
    """

    __slots__ = ("_left", "inside")

    def __init__(self, context: Context) -> None:
        self.inside: Inside = Inside()
        self.inside.mark(context)
        # Done as soon as the consumer has left, or the run has ended.
        self._left: asyncio.Future[None] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The run starts."""
        self._left = loop.create_future()

    def leave(self) -> None:
        """The consumer leaves, or the run has ended."""
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    async def wait(
        self, feeder: asyncio.Task[None], *, leaving: bool
    ) -> asyncio.CancelledError | None:
        """Waits until the feeder of the run has ended.

        Args:
            feeder: it was told to end.
            leaving: whether it is the consumer who waits.

        Returns:
            the first cancellation that struck meanwhile, to be raised; else None.

        Raises:
            CancelledError: at once, in code that runs inside of the run: a task that the end has to wait for may wait for it. And
                once the consumer has left, for all but the consumer.
        """
        cancellation: asyncio.CancelledError | None = None
        if not self.inside.is_here():
            until = feeder if leaving or self._left is None else self._left
            cancellation = await wait_until_done(until, behind=feeder)
        if cancellation is None and not feeder.done():
            await asyncio.wait([feeder])
        return cancellation
