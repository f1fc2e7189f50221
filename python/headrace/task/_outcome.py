"""`outcome_of`: the outcome of a call that raised an error, as an adaptive limit counts it. The native core calls these functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from headrace.task._current_lease import variable
from headrace.task.failure import classify

if TYPE_CHECKING:
    from headrace._core import Lease

Outcome: TypeAlias = Literal["throttled", "timed_out", "failed"]


def outcome_of(error: BaseException) -> Outcome:
    """Return whether an error means that the server refuses more calls for now, or that it did not answer in time.

    The timeouts of clients are known by the names of their classes, such as `httpx.ReadTimeout` and `openai.APITimeoutError`.
    """
    if classify(error).kind == "throttled":
        return "throttled"
    is_timeout = any("Timeout" in base.__name__ for base in type(error).__mro__)
    return "timed_out" if is_timeout else "failed"


def is_current(lease: Lease) -> bool:
    """Return whether a lease is that of the current task of a pool."""
    return variable.get() is lease
