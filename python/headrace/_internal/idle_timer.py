"""`call_later_idle`: timers for watching a program, which it does not wait for. The watches of the pool use it."""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def call_later_idle(
    loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]
) -> Any:
    """Call a function after a time on the clock of an event loop, in an empty context.

    A virtual loop has a method of its own for it: an ordinary timer that is set again and again would hide from it that nothing else
    can happen any more.

    Returns:
        A handle with a `cancel()` method.
    """
    idle = getattr(loop, "call_later_idle", None)
    if idle is not None:
        return idle(seconds, callback)
    return loop.call_later(seconds, callback, context=Context())
