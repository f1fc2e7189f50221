"""Whether nodes stand in an order, or in a circle.

A node depends on nodes that are there already, or that come in the same batch. Nobody depends on a new node yet. So no
cycle leads through an old node, and a batch is searched by itself: O(its nodes + their dependencies), whatever the size
of the graph. Only an edge between two old nodes can close a cycle through others; `path` looks for that one, and walks
no further than what depends on the node that gets the edge.
"""

from __future__ import annotations

from collections import deque
from reprlib import repr as shown
from typing import TYPE_CHECKING

from headrace.errors import CycleError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from headrace.graph.node import Node

_SHOWN = 12
"""How many keys of a cycle a message names."""


def check(batch: Mapping[Node, Sequence[Node]]) -> None:
    """Refuses a batch in which nodes depend on each other in a circle.

    Args:
        batch: Each new node with what it depends on, new or old.

    Raises:
        CycleError: There is no order in which each stands behind what it depends on.

    Cost: O(nodes + dependencies), without recursion.
    """
    dependants: dict[Node, list[Node]] = {node: [] for node in batch}
    missing = dict.fromkeys(batch, 0)
    for node, needs in batch.items():
        for need in needs:
            if need in dependants:
                dependants[need].append(node)
                missing[node] += 1
    free = [node for node, number in missing.items() if not number]
    left = len(batch)
    while free:
        left -= 1
        for dependant in dependants[free.pop()]:
            missing[dependant] -= 1
            if not missing[dependant]:
                free.append(dependant)
    if left:
        raise cycle_error(_cycle({node: batch[node] for node in batch if missing[node]}))


def _cycle(stuck: Mapping[Node, Sequence[Node]]) -> list[Hashable]:
    """A cycle among nodes of which each needs another one of them."""
    node = next(iter(stuck))
    walked: dict[Node, None] = {}
    while node not in walked:
        walked[node] = None
        node = next(need for need in stuck[node] if need in stuck)
    keys = [each.key for each in walked]
    return [*keys[list(walked).index(node) :], node.key]


def path(start: Node, goals: Sequence[Node]) -> list[Hashable] | None:
    """The keys from one of `goals` to `start`, each of which depends on the next; None if none depends on `start`.

    Cost: O(what depends on `start`, with its edges, and the goals), without recursion. A settled node has no edges left.
    """
    wanted = set(goals)
    came_from: dict[Node, Node | None] = {start: None}
    walking = deque([start])
    while walking:
        node = walking.popleft()
        if node in wanted:
            keys: list[Hashable] = []
            step: Node | None = node
            while step is not None:
                keys.append(step.key)
                step = came_from[step]
            return keys
        for dependant in node.dependants:
            if dependant not in came_from:
                came_from[dependant] = node
                walking.append(dependant)
    return None


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
