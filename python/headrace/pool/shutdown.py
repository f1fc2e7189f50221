"""`End`: the wait for the end of a run, used by `Run.close` and `Run.abort`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace._internal.tasks import wait_until_done
from headrace.pool.reentrancy import Inside

if TYPE_CHECKING:
    from contextvars import Context


class End:
    """The wait for the end of a run. A cancelled wait does not delay the end of the run.

    Args:
        context: The context of the run. Code that runs in it, or in a copy of it, is inside the run.
    """

    __slots__ = ("_left", "inside")

    def __init__(self, context: Context) -> None:
        self.inside: Inside = Inside()
        self.inside.mark(context)
        # Resolved when the consumer has left or the run has ended.
        self._left: asyncio.Future[None] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that the run starts."""
        self._left = loop.create_future()

    def leave(self) -> None:
        """Note that the consumer leaves or the run has ended."""
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    async def wait(
        self, feeder: asyncio.Task[None], *, leaving: bool
    ) -> asyncio.CancelledError | None:
        """Wait outside the run until its feeder has ended.

        Args:
            feeder: The feeder, which was cancelled.
            leaving: Whether the caller is the consumer.

        Returns:
            The first cancellation of the caller during the wait, which the caller must raise, or None.

        Raises:
            CancelledError: The caller, which is not the consumer, was cancelled after the consumer had left.
        """
        until = feeder if leaving or self._left is None else self._left
        cancellation = await wait_until_done(until, behind=feeder)
        if cancellation is None and not feeder.done():
            await asyncio.wait([feeder])
        return cancellation
