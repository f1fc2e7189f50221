"""`watched`: warnings about tasks that block the event loop, in asyncio's debug mode. `LoopExecutor` and `Policy` call it.

asyncio's own warning names the slow callback. The first step of an eagerly started task runs in a callback of other code,
so each step of the work is timed here.
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
    """Do the work, and log a warning for each step that takes longer than `limit` seconds."""
    # Create the coroutine here: if the wrapper is never started, no unawaited coroutine remains.
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
            # The step may hold an error that was thrown in, whose traceback refers to this frame.
            del step
        try:
            step = partial(work.send, (yield waits_for))
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            step = partial(work.throw, error)
