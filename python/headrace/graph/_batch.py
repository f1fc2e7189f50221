"""Cycle detection in a batch of nodes before it is added to a `DependencyGraph`.

A new node depends on existing nodes or on nodes of the same batch. No existing node depends on a new one yet. So no cycle
contains an existing node, and it is enough to check the batch itself: O(its nodes + their dependencies), regardless of
the size of the graph. Only a dependency between two existing nodes can close a cycle through others. The core checks for
that cycle when the dependency is added.
"""

from __future__ import annotations

from reprlib import repr as shown
from typing import TYPE_CHECKING

from headrace.errors import CycleError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

_SHOWN = 12
"""The number of keys of a cycle that a message shows."""


def check(needs: Sequence[Sequence[int]], keys: Sequence[Hashable]) -> None:
    """Raise an error if the nodes of a batch depend on each other in a cycle.

    Args:
        needs: For each node, the indices of its dependencies in this batch.
        keys: The keys of the nodes.

    Raises:
        CycleError: The nodes have no topological order.

    Cost: O(nodes + dependencies), without recursion.
    """
    dependants: list[list[int]] = [[] for _ in needs]
    missing = [len(each) for each in needs]
    for node, each in enumerate(needs):
        for need in each:
            dependants[need].append(node)
    free = [node for node, number in enumerate(missing) if not number]
    left = len(needs)
    while free:
        left -= 1
        for dependant in dependants[free.pop()]:
            missing[dependant] -= 1
            if not missing[dependant]:
                free.append(dependant)
    if left:
        raise cycle_error([keys[node] for node in _cycle(needs, missing)])


def _cycle(needs: Sequence[Sequence[int]], missing: Sequence[int]) -> list[int]:
    """Return a cycle among the nodes with missing dependencies, each of which depends on another such node."""
    node = next(node for node, number in enumerate(missing) if number)
    walked: dict[int, None] = {}
    while node not in walked:
        walked[node] = None
        node = next(need for need in needs[node] if missing[need])
    nodes = list(walked)
    return [*nodes[nodes.index(node) :], node]


def cycle_error(cycle: Sequence[Hashable]) -> CycleError:
    """Return the error for a cycle, given with its first key repeated at the end."""
    names = [shown(key) for key in cycle]
    if len(names) > _SHOWN:
        left_out = len(names) - _SHOWN
        names[_SHOWN // 2 : -_SHOWN // 2] = [f"({left_out} more)"]
    return CycleError(
        f"depends_on must not close a cycle: {' -> '.join(names)}, where each depends on the next",
        cycle=tuple(cycle),
    )
