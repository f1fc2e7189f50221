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
from headrace.pool.failure_limits import FailureLimits

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.capacity.node import CapacitySource
    from headrace.pool.cache_use import CacheUse
    from headrace.pool.executor.executor import Executor
    from headrace.pool.journal_pass import JournalPass
    from headrace.pull.base import PullObj
    from headrace.task.retry import Retry

R = TypeVar("R")


@dataclass(slots=True)
class Config(Generic[R]):
    """The options of a runner, and the state that outlives its runs."""

    name: str
    source: PullObj[Any]
    capacity: CapacitySource
    on_error: Literal["stop_if_fatal", "continue", "stop"]
    max_failures: float | None
    """The number of failed tasks (an int), or their share (a float), beyond which a run stops."""
    window: int | None
    """In an ordered run, the number of tasks between the first that has not ended and the last that was called; otherwise None."""
    lookahead: int
    max_buffered: int
    retry: Retry | None
    retry_budget: float | None
    """The maximum number of retries for each first call."""
    timeout: float | None
    max_cooldown: float | None
    """The maximum delay of a task after throttled answers, in seconds; None if they cool nothing down."""
    executor: Executor | None
    stall_after: float | None
    journal: JournalPass | None = None
    """The use of a journal; None for a run without one."""
    cache: CacheUse | None = None
    """The use of a cache; None for a run without one."""
    shared_limits: FailureLimits | None = None
    """The limits on failures that this runner shares with others."""
    noun: str = "task"
    """The word for a task in its name and in messages."""
    show_item: Callable[[object], str | None] | None = None
    """Returns a short form of the item of the task with a key, for messages."""
    names_items: bool = False
    """Whether each task is a call for an item, which the note on its error names."""
    given: object = None
    """The source as the user has passed it: a plain iterable is not yet a pull object."""
    outcome_listener: OutcomeListener | None = field(init=False)
    """The given source, if it is notified of the outcome of its items."""
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
        source: object = self.source if self.given is None else self.given
        self.outcome_listener = source if isinstance(source, OutcomeListener) else None

    @property
    def task_prefix(self) -> str:
        """The beginning of the name of each task, before its key or its number."""
        return f"{self.name}: {self.noun} "

    def name_of(self, task_id: int, key: object) -> str:
        """Return the name of a task, as the engine gives it to the asyncio task."""
        return f"{self.task_prefix}{task_id if key is None else safe_str(key)}"

    def describe_task(self, task_id: int, key: object, name: str | None = None) -> str:
        """Return the name of a task for messages, with a short form of its item if that is known."""
        shown = None if self.show_item is None else self.show_item(key)
        name = self.name_of(task_id, key) if name is None else name
        return name if shown is None else f"{name} ({shown})"

    def failure_limits(self) -> FailureLimits:
        """Return the limits on the failures of the next run."""
        return self.shared_limits or FailureLimits(
            stops_if_fatal=self.on_error == "stop_if_fatal",
            max_failures=self.max_failures,
            retry_budget=self.retry_budget,
        )

    def check_idle(self) -> None:
        """Raise RuntimeError if a run is active."""
        if self.run is not None:
            raise RuntimeError(f"{self.name}: this runner is running already; leave that run first")
