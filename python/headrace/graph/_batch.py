"""Checks of a batch of nodes before it is added to a `DependencyGraph`: the shape of its entries, and cycles.

`DependencyGraph` calls it when nodes are added.

A new node depends on existing nodes or on nodes of the same batch. No existing node depends on a new one yet. So no cycle
contains an existing node, and it is enough to check the batch itself: O(its nodes + their dependencies), regardless of
the size of the graph. Only a dependency between two existing nodes can close a cycle through others. The core checks for
that cycle when the dependency is added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import describe_value
from headrace._internal.sentinels import NOTHING
from headrace.graph._errors import cycle_error

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


def parse_entry(entry: tuple[Any, ...]) -> tuple[Hashable, Any, list[Hashable]]:
    """Check the shape of an entry of `add_all` without looking at the graph."""
    kind = type(cast("object", entry))
    if not issubclass(kind, tuple) or len(entry) not in (2, 3):
        raise TypeError(
            f"nodes must be tuples (key, item) or (key, item, depends_on), got {describe_value(entry)}"
        )
    key, item, *rest = entry
    depends_on = rest[0] if rest else ()
    _check_hash("key", key)
    return key, key if item is NOTHING else item, parse_keys(depends_on)


def parse_keys(depends_on: Any) -> list[Hashable]:
    """Return the keys of the dependencies of a node, each once."""
    kind = type(cast("object", depends_on))
    is_text = issubclass(kind, (str, bytes))
    if is_text or not hasattr(kind, "__iter__"):
        hint = f"; write [{depends_on!r}]" if is_text else ""
        raise TypeError(
            f"depends_on must be an iterable of keys, got {describe_value(depends_on)}{hint}"
        )
    keys: list[Any] = list(depends_on)
    for key in keys:
        _check_hash("depends_on", key)
    return list(dict.fromkeys(keys))


def _check_hash(parameter: str, key: Any) -> None:
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(
            f"{parameter}: a key must be hashable, got {describe_value(key)}"
        ) from error


def check_acyclic(dependencies: Sequence[Sequence[int]], keys: Sequence[Hashable]) -> None:
    """Raise an error if the nodes of a batch depend on each other in a cycle.

    Args:
        dependencies: For each node, the indices of its dependencies in this batch.
        keys: The keys of the nodes.

    Raises:
        CycleError: The nodes have no topological order.

    Cost: O(nodes + dependencies), without recursion.
    """
    dependants: list[list[int]] = [[] for _ in dependencies]
    missing = [len(each) for each in dependencies]
    for node, each in enumerate(dependencies):
        for other in each:
            dependants[other].append(node)
    free = [node for node, number in enumerate(missing) if not number]
    left = len(dependencies)
    while free:
        left -= 1
        for dependant in dependants[free.pop()]:
            missing[dependant] -= 1
            if not missing[dependant]:
                free.append(dependant)
    if left:
        raise cycle_error([keys[node] for node in _cycle(dependencies, missing)])


def _cycle(dependencies: Sequence[Sequence[int]], missing: Sequence[int]) -> list[int]:
    """Return a cycle among the nodes with missing dependencies, each of which depends on another such node."""
    node = next(node for node, number in enumerate(missing) if number)
    walked: dict[int, None] = {}
    while node not in walked:
        walked[node] = None
        node = next(other for other in dependencies[node] if missing[other])
    nodes = list(walked)
    return [*nodes[nodes.index(node) :], node]


def check_callback(callback: Callable[..., object]) -> None:
    """Raise TypeError unless `callback` is callable."""
    if not callable(cast("object", callback)):
        raise TypeError(f"callback must be callable, got {describe_value(callback)}")


def check_error(error: BaseException) -> None:
    """Raise TypeError unless `error` is an exception."""
    if not isinstance(cast("object", error), BaseException):
        raise TypeError(f"error must be an exception, got {describe_value(error)}")
