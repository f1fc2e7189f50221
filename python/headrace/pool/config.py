"""`Config`: the options of a runner, and the state that its runs share.

`HierarchicalTaskPoolRunner` makes it; `Run`, `TaskRun` and `Policy` read it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from headrace._core import TaskIds, Throughput
from headrace._internal.reprs import safe_str
from headrace.graph.outcome_listener import OutcomeListener

if TYPE_CHECKING:
    from headrace.capacity.node import CapacitySource
    from headrace.pool.executor.executor import Executor
    from headrace.pull.base import PullObj
    from headrace.task.retry import Retry

R = TypeVar("R")


@dataclass(slots=True)
class Config(Generic[R]):
    """The options of a runner, and the state that outlives its runs."""

    name: str
    source: PullObj[Any]
    capacity: CapacitySource
    on_error: Literal["continue", "stop"]
    ordered: bool
    window: int
    lookahead: int
    max_buffered: int
    retry: Retry | None
    timeout: float | None
    executor: Executor | None
    stall_after: float | None
    outcome_listener: OutcomeListener | None = field(init=False)
    """The source, if it is notified of the outcome of its items."""
    ids: TaskIds = field(default_factory=TaskIds)
    """The ids of tasks, in the order in which they are accepted."""
    unstarted: deque[object] = field(default_factory=deque[object])
    """The items that an earlier run pulled and whose tasks it did not call: at most `lookahead`."""
    throughput: Throughput = field(default_factory=Throughput)
    paused: bool = False
    paused_at: float | None = None
    """The time of `pause()`, on the clock of the machine."""
    run: R | None = None
    """The active run."""

    def __post_init__(self) -> None:
        source: object = self.source
        self.outcome_listener = source if isinstance(source, OutcomeListener) else None

    def name_of(self, task_id: int, key: object) -> str:
        """Return the name of a task, for its asyncio task and for messages."""
        return f"{self.name}: task {task_id if key is None else safe_str(key)}"

    def check_idle(self) -> None:
        """Raise RuntimeError if a run is active."""
        if self.run is not None:
            raise RuntimeError(f"{self.name}: this runner is running already; leave that run first")
