"""The states of the nodes of a `DependencyGraph`, and the snapshot of a node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["DependencyNode", "DependencyState"]


class DependencyState(Enum):
    """How far a node is."""

    PENDING = "pending"
    """It waits for others."""
    READY = "ready"
    """All that it depends on is completed; nobody has taken it yet."""
    RUNNING = "running"
    """Somebody has taken it."""
    COMPLETED = "completed"
    """It has ended with a value."""
    FAILED = "failed"
    """It has ended with an error."""
    ABORTED = "aborted"
    """It will never count: something that it depends on failed or was aborted, or it was aborted itself."""

    @property
    def settled(self) -> bool:
        """Whether it is one of the last three, which no node ever leaves."""
        return self in _SETTLED


_SETTLED = frozenset({DependencyState.COMPLETED, DependencyState.FAILED, DependencyState.ABORTED})


@dataclass(frozen=True, slots=True)
class DependencyNode:
    """One node of a graph, as it was when the graph was asked."""

    key: Hashable
    """What names it."""
    item: Any
    """What it was added with."""
    depends_on: tuple[Hashable, ...]
    """The keys of the nodes that it depends on, each once."""
    state: DependencyState
    """How far it was."""
    value: Any
    """What it was completed with; None in every other state."""
    error: BaseException | None
    """What it failed with; if it is aborted, the error of what `caused_by` names. The very object. Else None."""
    caused_by: Hashable
    """The key of the node that failed or was aborted first, if this one is failed or aborted: perhaps its own. Else None."""
