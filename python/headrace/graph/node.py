"""The nodes of a `DependencyGraph`: what the graph keeps of each, and what it tells about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable


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


class Node:
    """What a graph keeps of one node. Compared and hashed as an object; only the graph changes it, under its lock."""

    __slots__ = (
        "caused_by",
        "dependants",
        "depends_on",
        "error",
        "given",
        "item",
        "key",
        "state",
        "value",
        "waits_for",
    )

    def __init__(self, key: Hashable, item: Any, depends_on: list[Hashable]) -> None:
        self.key: Hashable = key
        self.item: Any = item
        self.depends_on: list[Hashable] = depends_on
        """The keys; one that was named again later stands there again."""
        self.state: DependencyState = DependencyState.PENDING
        self.waits_for: int = 0
        """How many of those that it depends on are not completed."""
        self.dependants: list[Node] = []
        """Those that depend on it, oldest first; empty as soon as it is settled, so that each edge is walked once."""
        self.given: object = None
        """While it is running, what was given out for it, which keeps the `id` of that alive."""
        self.value: Any = None
        self.error: BaseException | None = None
        self.caused_by: Hashable = None

    def snapshot(self) -> DependencyNode:
        """What may be told about it."""
        return DependencyNode(
            self.key,
            self.item,
            tuple(dict.fromkeys(self.depends_on)),
            self.state,
            self.value,
            self.error,
            self.caused_by,
        )
