"""How a pool stands, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.capacity.node import CapacitySource


@dataclass(frozen=True, slots=True)
class NodeUse:
    """The use of one node of the tree of capacities, by whoever uses it."""

    name: str | None
    """What it is called; None if it has no name."""
    limit: Any
    """How much there is."""
    held: Any
    """How much is held, here and below."""
    waiting: int
    """How many wait, here and below."""


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """What the tasks of a runner are doing, and what became of them so far."""

    queued: int
    """Tasks that the runner took up and did not call yet: at most `lookahead` in a run."""
    running: int
    """Tasks that run."""
    backing_off: int
    """Tasks that wait to be called again after an error."""
    done: int
    """Tasks that ended with a value, in all runs of this runner."""
    failed: int
    """Tasks that ended with an error, in all runs of this runner."""
    unread: int
    """Envelopes that the consumer has not read."""
    rate: float
    """Tasks that ended a second, over the last 10 seconds, or since the first if that is less."""
    paused: bool
    """Whether the runner is paused."""
    capacity: tuple[NodeUse, ...]
    """The runner's capacity, then the node above it, and so on up to the root."""


def uses(capacity: CapacitySource) -> tuple[NodeUse, ...]:
    """The use of a capacity and of all above it."""
    found: list[NodeUse] = []
    node: CapacitySource | None = capacity
    while node is not None:
        found.append(NodeUse(node.name, node.limit, node.held, node.waiting))
        node = node.parent
    return tuple(found)
