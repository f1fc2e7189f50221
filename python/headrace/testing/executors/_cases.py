"""`CASES`: all cases of the suite, and `cases_for`: those that apply to an executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.testing.executors import (
    _cancellation,
    _contexts,
    _lifecycle,
    _outcomes,
    _runs,
    _sharing,
    _streams,
    _verdicts,
    _workers,
)

if TYPE_CHECKING:
    from headrace.testing.executors._setting import MakeExecutor
    from headrace.testing.executors.case import Case

CASES: tuple[Case, ...] = (
    *_outcomes.CASES,
    *_streams.CASES,
    *_cancellation.CASES,
    *_contexts.CASES,
    *_lifecycle.CASES,
    *_runs.CASES,
    *_sharing.CASES,
    *_verdicts.CASES,
    *_workers.CASES,
)
"""All cases, in the order of their modules."""


def cases_for(make_executor: MakeExecutor) -> list[Case]:
    """Return the cases that apply to an executor, by its capabilities.

    Args:
        make_executor: Returns a new executor. It is called once, and the executor is not started.
    """
    capabilities = make_executor(carry=()).capabilities
    return [case for case in CASES if not case.missing(capabilities)]
