"""What every room that owns asyncio tasks does with them.

A task that is being closed must be waited for until it has really ended, even if the one who waits is cancelled again
and again; only then may the cancellation go on its way.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["settled", "waits_for"]

_awaited: dict[asyncio.Task[Any], tuple[asyncio.Task[Any], ...]] = {}
"""Which tasks a task waits for in `settled`, in order to close something."""


async def settled(
    *owned: asyncio.Future[Any], behind: asyncio.Task[Any] | None = None
) -> asyncio.CancelledError | None:
    """Waits until all of `owned` are done, whatever cancels the caller meanwhile.

    Nothing of `owned` is cancelled or read here. Returns without a turn of the loop if all are done already.

    Args:
        owned: tasks or futures of the running loop.
        behind: the task that will resolve a future among them, for `waits_for`.

    Returns:
        The first cancellation that struck during the wait, for the caller to raise once its own clean-up is done; else
        None.

    Cancel safety: a cancellation is kept, not raised, and the wait goes on.
    """
    struck: asyncio.CancelledError | None = None
    if all(future.done() for future in owned):
        return struck
    waiting = asyncio.current_task()
    if waiting is not None:
        tasks = [future for future in owned if isinstance(future, asyncio.Task)]
        _awaited[waiting] = (*tasks, *(() if behind is None else (behind,)))
    try:
        while pending := [future for future in owned if not future.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as cancelled:
                # Without the way that it came: that leads here, to what is kept, and to all who wait for this.
                struck = struck or cancelled.with_traceback(None)
    finally:
        if waiting is not None:
            _awaited.pop(waiting, None)
    return struck


def waits_for(task: asyncio.Task[Any], awaited: asyncio.Task[Any] | None) -> bool:
    """Whether a task is another one, or waits for it in `settled`, directly or through others.

    Cost: O(n) in the tasks that are on the way.
    """
    seen: set[asyncio.Task[Any]] = set()
    left = [task]
    while left:
        if (one := left.pop()) is awaited:
            return True
        if one not in seen:
            seen.add(one)
            left.extend(_awaited.get(one, ()))
    return False
