"""`outcome_of`: the outcome of a call that raised an error, for adaptive limits and breakers. The native core calls these functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from headrace.errors import WorkerLost
from headrace.task._current_lease import variable
from headrace.task.failure import classify

if TYPE_CHECKING:
    from headrace._core import Lease
    from headrace.task.retry import Retry

Outcome: TypeAlias = Literal["throttled", "timed_out", "rejected", "failed", "unknown"]


def outcome_of(error: BaseException, retry: Retry | None) -> Outcome:
    """Return whether an error means that the server refuses more calls for now, did not answer in time, refused this call, or failed.

    The `classify` of a `Retry` decides in place of the default one. The timeouts of clients are known by the names of their classes,
    such as `httpx.ReadTimeout` and `openai.APITimeoutError`.
    """
    if isinstance(error, WorkerLost):
        # The end of a worker says nothing about a server.
        return "unknown"
    try:
        kind = (classify(error) if retry is None else retry.verdict(error)).kind
    except Exception:
        # The pool calls it once more, and reports that.
        return "unknown"
    if kind == "throttled":
        return "throttled"
    if any("Timeout" in base.__name__ for base in type(error).__mro__):
        return "timed_out"
    return "rejected" if kind == "permanent" else "failed"


def is_current(lease: Lease) -> bool:
    """Return whether a lease is that of the current task of a pool."""
    return variable.get() is lease
