"""`RunnerOptions`: the type of the options of a runner, for functions that pass them on.

`PullMapPoolObj` and `RunOptions.runner_options` use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from headrace._internal.validate import Path
    from headrace.cache.cache import Cache
    from headrace.journal.journal import Journal
    from headrace.pool.executor.executor import Executor
    from headrace.task.retry import Retry


class RunnerOptions(TypedDict, total=False):
    """The keyword arguments of `HierarchicalTaskPoolRunner`; see there for their meaning."""

    name: str | None
    on_error: Literal["stop_if_fatal", "continue", "stop"]
    max_failures: float | None
    ordered: bool
    window: int | None
    lookahead: int
    max_buffered: int
    retry: Retry | int | None
    retry_budget: float | None
    timeout: float | None
    cooldown: bool | None
    max_cooldown: float
    executor: Executor | None
    stall_after: float | None
    journal: Journal | Path | None
    cache: Cache | None
