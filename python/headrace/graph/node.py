"""The states of the nodes of a `DependencyGraph`, and the snapshot of a node. `DependencyGraph` returns them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable


class DependencyState(Enum):
    """The state of a node."""

    PENDING = "pending"
    """A dependency is not completed yet."""
    READY = "ready"
    """All dependencies are completed; the node has not been taken yet."""
    RUNNING = "running"
    """The node was taken, and its work is in progress."""
    COMPLETED = "completed"
    """The work ended with a value."""
    FAILED = "failed"
    """The work ended with an error."""
    ABORTED = "aborted"
    """The node was aborted, or a dependency failed or was aborted. Its result is ignored."""

    @property
    def settled(self) -> bool:
        """Whether the state is final: completed, failed or aborted."""
        return self in _SETTLED


_SETTLED = frozenset({DependencyState.COMPLETED, DependencyState.FAILED, DependencyState.ABORTED})


@dataclass(frozen=True, slots=True)
class DependencyNode:
    """An immutable snapshot of a node of a graph."""

    key: Hashable
    """The key of the node."""
    item: Any
    """The item that the node was added with."""
    depends_on: tuple[Hashable, ...]
    """The keys of the nodes that it depends on, each once."""
    state: DependencyState
    """The state of the node."""
    value: Any
    """The value that the node was completed with; None in every other state."""
    error: BaseException | None
    """The exception object that the node failed with; for an aborted node, that of the node `caused_by`. Otherwise None."""
    caused_by: Hashable
    """For a failed or aborted node, the key of the node that failed or was aborted first, perhaps its own. Otherwise None."""
