"""`outcome_of`: the outcome of a call that raised an error, as an adaptive limit counts it. The native core calls it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from headrace.task.failure import classify

Outcome: TypeAlias = Literal["throttled", "timed_out", "failed"]


def outcome_of(error: BaseException) -> Outcome:
    """Return whether an error means that the server refuses more calls for now, or that it did not answer in time.

    The timeouts of clients are known by the names of their classes, such as `httpx.ReadTimeout` and `openai.APITimeoutError`.
    """
    if classify(error).kind == "throttled":
        return "throttled"
    is_timeout = any("Timeout" in base.__name__ for base in type(error).__mro__)
    return "timed_out" if is_timeout else "failed"
