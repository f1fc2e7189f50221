"""Waiting for owned tasks to end, and the warning about objects dropped while their tasks run.

Used by `pull._background`, `pull._concurrent_map`, `push.fanout` and `pool.run`, and by the asyncio tasks that the core makes.

A task that is being closed must be awaited until it has ended, even if the waiting task is cancelled repeatedly. The
cancellation is raised only then.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

_awaited: dict[asyncio.Task[Any], tuple[asyncio.Task[Any], ...]] = {}
"""The tasks that each task awaits in `wait_until_done`."""


async def wait_until_done(
    *owned: asyncio.Future[Any], behind: asyncio.Task[Any] | None = None
) -> asyncio.CancelledError | None:
    """Wait until all of `owned` are done, also while the caller is cancelled.

    It neither cancels `owned` nor reads their results. If all are done already, it returns without suspending.

    Args:
        owned: Tasks or futures of the running loop.
        behind: The task that will resolve one of the futures, for `waits_for`.

    Returns:
        The first cancellation during the wait, for the caller to raise after its own clean-up; otherwise None.

    Cancel safety: a cancellation is returned, not raised, and the wait continues.
    """
    cancellation: asyncio.CancelledError | None = None
    if all(future.done() for future in owned):
        return cancellation
    waiting = asyncio.current_task()
    tasks = [future for future in owned if isinstance(future, asyncio.Task)]
    awaited = (*tasks, *(() if behind is None else (behind,)))
    # A plain future is not registered: if its event loop is closed meanwhile, the waiting task must not be kept alive.
    if waiting is not None and awaited:
        _awaited[waiting] = awaited
    try:
        while pending := [future for future in owned if not future.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as cancelled:
                # Drop the traceback: it would create a reference cycle through this frame.
                cancellation = cancellation or cancelled.with_traceback(None)
    finally:
        if waiting is not None:
            _awaited.pop(waiting, None)
    return cancellation


def waits_for(task: asyncio.Task[Any], awaited: asyncio.Task[Any] | None) -> bool:
    """Return whether a task is `awaited`, or awaits it in `wait_until_done`, directly or through others.

    Cost: O(n) in the tasks between the two.
    """
    seen: set[asyncio.Task[Any]] = set()
    pending = [task]
    while pending:
        if (current := pending.pop()) is awaited:
            return True
        if current not in seen:
            seen.add(current)
            pending.extend(_awaited.get(current, ()))
    return False


def cancelling() -> int:
    """Return the number of pending cancellation requests of the running task; 0 outside of one.

    A `CancelledError` is a cancellation only if this number rose; otherwise it is an error like any other.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        # `next_nowait` works without an event loop.
        return 0
    return 0 if task is None else task.cancelling()


def is_cancellation(error: BaseException, before: int) -> bool:
    """Return whether an error cancels or closes the running coroutine, rather than being raised by a callable.

    Args:
        error: The error.
        before: The result of `cancelling` before the call that raised it.
    """
    if isinstance(error, asyncio.CancelledError):
        return cancelling() > before
    return isinstance(error, GeneratorExit)


def mark_retrieved(done: asyncio.Future[Any]) -> None:
    """Mark the error of a task as retrieved, so that asyncio does not log it; it is reported in another way."""
    if not done.cancelled():
        done.exception()


def warn_unclosed(owner: object) -> None:
    """Warn that `owner` was dropped while its tasks run, and name the remedy. Called by its `__del__`."""
    warnings.warn(
        f"unclosed {owner!r}; leave it with `async with`, or await its aclose()",
        ResourceWarning,
        stacklevel=2,
        source=owner,
    )
