"""What a runner hands to each of its runs, and what they leave to the next."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from headrace._core import Ids, Meter
from headrace._internal.reprs import safe_str
from headrace.graph.outcome_listener import OutcomeListener

if TYPE_CHECKING:
    from headrace.capacity.node import CapacitySource
    from headrace.pull.base import PullObj
    from headrace.task.retry import Retry

R = TypeVar("R")


@dataclass(slots=True)
class Plan(Generic[R]):
    """The options of a runner, and its memory."""

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
    outcome_listener: OutcomeListener | None = field(init=False)
    """The source, if it wants to know what became of its items."""
    ids: Ids = field(default_factory=Ids)
    """The numbers of tasks, in the order in which they are taken up."""
    kept: deque[object] = field(default_factory=deque[object])
    """What was pulled and not called in an earlier run: `lookahead` items at most."""
    meter: Meter = field(default_factory=Meter)
    paused: bool = False
    run: R | None = None
    """The active run."""

    def __post_init__(self) -> None:
        source: object = self.source
        self.outcome_listener = source if isinstance(source, OutcomeListener) else None

    @property
    def is_plain(self) -> bool:
        """Whether nothing stands against the short way for tasks that ask for nothing special."""
        return (
            not self.ordered
            and self.lookahead == 1
            and self.outcome_listener is None
            and self.retry is None
            and self.timeout is None
        )

    def name_of(self, task_id: int, key: object) -> str:
        """What a task is called in the name of its asyncio task, and in messages."""
        return f"{self.name}: task {task_id if key is None else safe_str(key)}"

    def check_idle(self) -> None:
        """Raises RuntimeError if a run is under way."""
        if self.run is not None:
            raise RuntimeError(f"{self.name}: this runner is running already; leave that run first")
