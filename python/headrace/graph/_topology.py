"""Cycles among the nodes of a batch that is to be added to a `DependencyGraph`.

A node depends on nodes that are there already, or that are in the same batch. No old node depends on a new one yet. So no
cycle contains an old node, and the batch is checked by itself: O(its nodes + their dependencies), whatever the size
of the graph. Only a dependency between two old nodes can close a cycle through others, which the core looks for when
that one is added.
"""

from __future__ import annotations

from reprlib import repr as shown
from typing import TYPE_CHECKING

from headrace.errors import CycleError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["check", "cycle_error"]

_SHOWN = 12
"""How many keys of a cycle a message names."""


def check(needs: Sequence[Sequence[int]], keys: Sequence[Hashable]) -> None:
    """Refuses a batch in which nodes depend on each other in a cycle.

    Args:
        needs: For each node the indices of those that it depends on, in this batch.
        keys: Their keys.

    Raises:
        CycleError: There is no order in which each node comes after those that it depends on.

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
    """A cycle among the nodes that still miss something, each of which depends on another one of them."""
    node = next(node for node, number in enumerate(missing) if number)
    walked: dict[int, None] = {}
    while node not in walked:
        walked[node] = None
        node = next(need for need in needs[node] if missing[need])
    nodes = list(walked)
    return [*nodes[nodes.index(node) :], node]


def cycle_error(cycle: Sequence[Hashable]) -> CycleError:
    """The error for a cycle, whose first key stands at its end again."""
    names = [shown(key) for key in cycle]
    if len(names) > _SHOWN:
        left_out = len(names) - _SHOWN
        names[_SHOWN // 2 : -_SHOWN // 2] = [f"({left_out} more)"]
    return CycleError(
        f"depends_on must not close a cycle: {' -> '.join(names)}, where each depends on the next",
        cycle=tuple(cycle),
    )
