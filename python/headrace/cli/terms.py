"""What records are called under: the limit, and what a call that fails or takes too long means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headrace.cli.failure import UnretriedError
from headrace.pool import Retry

if TYPE_CHECKING:
    from headrace.pool import RunnerOptions


def runner_options(retries: int, timeout: float | None) -> RunnerOptions:
    """What every runner is told.

    Args:
        retries: how often a record that fails is called again.
        timeout: how many seconds a call may take; None for any time.
    """
    retry = Retry(retries + 1, _may_be_retried, retry_after=_asked_delay) if retries else None
    return {"name": "headrace map", "timeout": timeout, "retry": retry}


def _may_be_retried(error: Exception) -> bool:
    return not isinstance(error, UnretriedError)


def _asked_delay(error: Exception) -> float | None:
    """The seconds that an error asks for itself, in its attribute `retry_after`."""
    asked = getattr(error, "retry_after", None)
    if isinstance(asked, (int, float)) and not isinstance(asked, bool) and 0 <= asked < math.inf:
        return asked
    return None
