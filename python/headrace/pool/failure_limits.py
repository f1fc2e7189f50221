"""`FailureLimits`: the limits on the failures of a run, beyond which the run stops or calls no failed task again. `Run` makes one.

There are three rules:

1. **Fatal errors.** An error that every later call would repeat, such as a refused key, stops the run (`headrace.classify`).
2. **`max_failures`.** The run stops when more tasks have failed, or a larger share of those that have ended. Cancelled tasks are not
   failures. A share is compared after 20 tasks have ended: the first two failures say little about the others.
3. **`retry_budget`.** A task that fails when the budget is used up is not called again.

The budget is a token bucket, as the `RetryBudget` of Finagle and the retry throttling of gRPC (proposal A6). The first call of each task
adds a share of a token, and each retry takes one, so that calls are at most `1 + share` a task. As in Finagle, a reserve lets the first
tasks of a run be retried. The saved tokens are bounded, as in gRPC: a long healthy run must not save up for a storm of retries. The bound
is the number of tasks under way, if that is larger, because one disturbance of the service may hit all of them.

Successful tasks cost nothing: the numbers of called and ended tasks are computed from counters of the engine when a task fails.

Several runs may share the limits, as those of the groups of `headrace map`. Their failures are counted together, and they stop together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from headrace._internal.reprs import safe_str
from headrace._internal.validate import check_int, check_positive
from headrace.errors import RunStopped

if TYPE_CHECKING:
    from collections.abc import Hashable

    from headrace.task.failure import Verdict

LEAST_ENDED = 20
"""The number of ended tasks from which a share of failures is compared."""

RESERVE = 10
"""The number of retries that a budget allows before the first calls have added any."""

MOST_SAVED = 100
"""The maximum number of retries that are saved for later, if fewer tasks are under way."""


class LimitedRun(Protocol):
    """The parts of a `Run` that are used here."""

    @property
    def ended_tasks(self) -> int:
        """The number of tasks that have ended in this run."""
        ...

    @property
    def tasks_under_way(self) -> int:
        """The number of tasks that were called and have not ended, apart from one that fails now."""
        ...

    def halt(self, error: RunStopped) -> None:
        """Call no more tasks, also none again, and raise the error to the consumer at the end."""
        ...


class FailureLimits:
    """The limits on the failures of one or several runs.

    Args:
        stops_if_fatal: Whether a fatal error stops the runs.
        max_failures: The number or the share of failures beyond which the runs stop; None for no limit.
        retry_budget: The number of retries for each first call; None for no limit.
        noun: The word for a task in messages, which then name it by its key; None for `task` and its whole name.
    """

    __slots__ = (
        "_ended",
        "_failed",
        "_first_calls",
        "_max_failures",
        "_noun",
        "_runs",
        "_saved",
        "_share",
        "_stop",
        "is_fatal",
        "stops_if_fatal",
    )

    def __init__(
        self,
        *,
        stops_if_fatal: bool,
        max_failures: float | None,
        retry_budget: float | None,
        noun: str | None = None,
    ) -> None:
        self.stops_if_fatal: bool = stops_if_fatal
        self.is_fatal: bool = False
        """Whether a fatal error has stopped the runs."""
        self._noun = noun
        self._max_failures = max_failures
        self._share = retry_budget
        self._runs: dict[LimitedRun, None] = {}
        # The ended tasks of runs that have ended.
        self._ended = 0
        self._failed = 0
        # The first calls that have added to the budget, and the retries that it covers now.
        self._first_calls = 0
        self._saved = float(RESERVE)
        # The message and the failure that stopped the runs.
        self._stop: tuple[str, BaseException] | None = None

    def add(self, run: LimitedRun) -> None:
        """Add a run that has started."""
        self._runs[run] = None
        if self._stop is not None:
            run.halt(_error(*self._stop))

    def remove(self, run: LimitedRun) -> None:
        """Remove a run that has ended."""
        if run in self._runs:
            del self._runs[run]
            self._ended += run.ended_tasks

    def allows_retry(self) -> bool:
        """Take a retry from the budget; return False if none is left."""
        if self._share is None:
            return True
        under_way = 1 + sum(run.tasks_under_way for run in self._runs)
        first_calls = self._ended_tasks() + under_way
        if first_calls > self._first_calls:
            earned = self._share * (first_calls - self._first_calls)
            self._saved = min(self._saved + earned, max(MOST_SAVED, under_way))
            self._first_calls = first_calls
        # Fifths and tenths add up to a little less than 1.
        if self._saved < 1 - 1e-9:
            return False
        self._saved -= 1
        return True

    def note_failure(
        self, name: str, key: Hashable, error: BaseException, verdict: Verdict | None
    ) -> None:
        """Count the failure of a task, and stop the runs if it is beyond a limit.

        Args:
            name: The name of the task.
            key: Its key.
            error: Its error.
            verdict: The verdict on the error; None if that does not matter.
        """
        if self._stop is not None or isinstance(error, asyncio.CancelledError):
            return
        self._failed += 1
        if self._noun is not None:
            name = f"{self._noun} {safe_str(key)}"
        if self.stops_if_fatal and verdict is not None and verdict.kind == "fatal":
            self.is_fatal = True
            reason = verdict.reason or type(error).__name__
            self._halt(f"{name} failed with a fatal error ({reason})", error)
        elif (excess := self._excess()) is not None:
            self._halt(f"{excess}; the last is {name} ({type(error).__name__})", error)

    def _excess(self) -> str | None:
        """Return in words by how much `max_failures` is exceeded, or None."""
        most, noun = self._max_failures, self._noun or "task"
        if most is None:
            return None
        if isinstance(most, int):
            if self._failed <= most:
                return None
            tasks = f"1 {noun}" if self._failed == 1 else f"{self._failed:,} {noun}s"
            return f"{tasks} failed, more than max_failures={most}"
        ended = self._ended_tasks()
        if ended < LEAST_ENDED or self._failed <= most * ended:
            return None
        return f"{self._failed:,} of {ended:,} {noun}s failed, more than max_failures={most:g}"

    def _ended_tasks(self) -> int:
        return self._ended + sum(run.ended_tasks for run in self._runs)

    def _halt(self, message: str, error: BaseException) -> None:
        self._stop = f"{message}, so no more {self._noun or 'task'}s were called", error
        for run in tuple(self._runs):
            run.halt(_error(*self._stop))


def _error(message: str, cause: BaseException) -> RunStopped:
    error = RunStopped(message)
    error.__cause__ = cause
    return error


def check_max_failures(value: object) -> float | None:
    """Return a number of failures, an int, or a share of them, a float, or None.

    Raises:
        TypeError: `value` is not a number.
        ValueError: The number is negative, or the share is not between 0 and 1.
    """
    if value is None:
        return None
    if not isinstance(value, float):
        return check_int("max_failures", 0, value)
    if not 0 < value < 1:
        raise ValueError(
            f"max_failures must be a whole number, or a share above 0.0 and below 1.0, got {value!r}"
        )
    return value


def check_retry_budget(value: object) -> float | None:
    """Return a share of retries or None.

    Raises:
        TypeError: `value` is not a number.
        ValueError: The number is not above 0 and at most 1.
    """
    if value is None:
        return None
    share = check_positive("retry_budget", value)
    if share > 1:
        raise ValueError(f"retry_budget must be a share of at most 1, got {value!r}")
    return share
