"""`RecordPool`: the runner of the records, or of those of a group. `map` and `groups` make one for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.cli.record_task import show_record
from headrace.pool.runner import HierarchicalTaskPoolRunner

if TYPE_CHECKING:
    from headrace.capacity.node import CapacitySource
    from headrace.pool.failure_limits import FailureLimits
    from headrace.pool.options import RunnerOptions
    from headrace.pull.base import PullObj


class RecordPool(HierarchicalTaskPoolRunner):
    """Runs tasks of records, under limits on failures that several runners may share, as those of the groups do."""

    def __init__(
        self,
        source: PullObj[Any],
        capacity: CapacitySource,
        limits: FailureLimits,
        options: RunnerOptions,
    ) -> None:
        super().__init__(source, capacity, **options)
        self._config.shared_limits = limits
        self._config.noun = "record"
        self._config.show_item = show_record
