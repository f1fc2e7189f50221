"""The warning of calls without progress, for a runner with `stall_after`. `Run` starts it.

One timer per run looks at all running tasks four times in each `stall_after`. So a task costs nothing, whether it stalls or not, and a
call is named at the latest a quarter of `stall_after` too late.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from headrace._core import engine_stalled
from headrace._internal.await_chain import chain_of, frames_of, position, thread_frames
from headrace._internal.idle_timer import call_later_idle
from headrace.errors import StallWarning
from headrace.pool._live import LiveTask

if TYPE_CHECKING:
    from headrace.pool._live import LiveRun


class StallWatch:
    """Warns of the calls of a run that make no progress.

    Args:
        run: The run, which has started.
        seconds: The time without progress.
    """

    def __init__(self, run: LiveRun, seconds: float) -> None:
        self._run = run
        self._seconds = seconds
        self._timer: Any = None
        self._set_timer()

    def _set_timer(self) -> None:
        self._timer = call_later_idle(self._run.loop, self._seconds / 4, self._look)

    def cancel(self) -> None:
        """End the watch."""
        self._timer.cancel()

    def _look(self) -> None:
        run = self._run
        if not run.running:
            return
        self._set_timer()
        threads = {name: thread for thread, name in run.executors.busy_threads()}
        for facts in engine_stalled(run.engine, self._seconds):
            one = LiveTask(*facts)
            name = run.config.name_of(one.id, one.key)
            if name in threads:
                frame = sys._current_frames().get(threads[name])  # pyright: ignore[reportPrivateUsage]
                where = position(thread_frames(frame))
            else:
                where = position(frames_of(chain_of(one.task)))
            described = run.config.describe_task(one.id, one.key)
            # The warning may be turned into an error, which the event loop reports.
            warnings.warn(
                f"{described} has made no progress for {self._seconds:g} s, and still runs{where and f', at {where}'}",
                StallWarning,
                stacklevel=2,
            )
