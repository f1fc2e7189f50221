"""`PoolSnapshot`: the state of a pool at one moment. `HierarchicalTaskPoolRunner.snapshot()` returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.capacity.node import CapacitySource
    from headrace.pool.config import Config
    from headrace.pool.run import Run


@dataclass(frozen=True, slots=True)
class NodeUse:
    """The usage of one node of the tree of capacities, by all its users."""

    name: str | None
    """The name of the node; None if it has no name."""
    limit: Any
    """The limit of the node."""
    held: Any
    """The amount held by the node and its descendants."""
    waiting: int
    """The number of waiters of the node and its descendants."""


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The counts of a runner's tasks by state, and the usage of its capacity."""

    queued: int
    """Tasks that the runner accepted but did not call yet: at most `lookahead` in a run."""
    running: int
    """Running tasks."""
    backing_off: int
    """Tasks in the delay before a retry."""
    done: int
    """Tasks that ended with a value, in all runs of this runner."""
    failed: int
    """Tasks that ended with an error, in all runs of this runner."""
    unread: int
    """Envelopes that the consumer has not read yet."""
    rate: float
    """Tasks that ended per second, over the last 10 seconds or, if shorter, the time since the first one."""
    paused: bool
    """Whether the runner is paused."""
    capacity: tuple[NodeUse, ...]
    """The usage of the runner's capacity and of its ancestors, up to the root."""


def snapshot_of(config: Config[Run]) -> PoolSnapshot:
    """Return a snapshot of a runner with these options and this state."""
    run = config.run
    return PoolSnapshot(
        queued=len(config.unstarted) + (0 if run is None else run.queued_tasks),
        running=0 if run is None else run.running_tasks,
        backing_off=0 if run is None else run.backing_off_tasks,
        done=config.throughput.done,
        failed=config.throughput.failed,
        unread=0 if run is None else len(run.events),
        rate=0.0 if run is None else config.throughput.rate(run.clock()),
        paused=config.paused,
        capacity=_uses(config.capacity),
    )


def _uses(capacity: CapacitySource) -> tuple[NodeUse, ...]:
    """Return the usage of a capacity and its ancestors."""
    found: list[NodeUse] = []
    node: CapacitySource | None = capacity
    while node is not None:
        found.append(NodeUse(node.name, node.limit, node.held, node.waiting))
        node = node.parent
    return tuple(found)
