"""Who blocks the loop, under asyncio's debug mode.

asyncio's own warning names the callback that took long. For a task that is started eagerly that is somebody else's; so
here each step of the work is timed by itself.
"""

from __future__ import annotations

import logging
import time
import types
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

_logger = logging.getLogger("headrace.pool")


async def watched(
    work: Callable[[], Coroutine[Any, Any, object]], name: str, limit: float
) -> object:
    """Does the work, and warns of each of its steps that takes longer than `limit` seconds."""
    # Made here: before the first step there is nothing that would have to be awaited.
    return await _timed(work(), name, limit)


@types.coroutine
def _timed(
    work: Coroutine[Any, Any, object], name: str, limit: float
) -> Generator[Any, Any, object]:
    step: Callable[[], Any] = partial(work.send, None)
    while True:
        began = time.perf_counter()
        try:
            waits_for = step()
        except StopIteration as end:
            return end.value
        finally:
            took = time.perf_counter() - began
            if took > limit:
                _logger.warning(
                    "%s blocked the event loop for %.3f s; work that blocks takes Task(..., thread=True)",
                    name,
                    took,
                )
            # It may hold an error that was thrown in, whose traceback leads to this frame.
            del step
        try:
            step = partial(work.send, (yield waits_for))
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            step = partial(work.throw, error)
