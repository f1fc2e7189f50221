"""What every room that owns asyncio tasks does with them.

A task that is being closed must be waited for until it has really ended, even if the one who waits is cancelled again
and again; only then may the cancellation go on its way.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["settled"]


async def settled(*owned: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Waits until all of `owned` are done, whatever cancels the caller meanwhile.

    Nothing of `owned` is cancelled or read here. Returns without a turn of the loop if all are done already.

    Args:
        owned: tasks or futures of the running loop.

    Returns:
        The first cancellation that struck during the wait, for the caller to raise once its own clean-up is done; else
        None.

    Cancel safety: a cancellation is kept, not raised, and the wait goes on.
    """
    struck: asyncio.CancelledError | None = None
    while pending := [future for future in owned if not future.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as cancelled:
            struck = struck or cancelled
    return struck
