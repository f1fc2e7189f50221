"""Helpers for the tests of dependency graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace import DependencyGraph, DependencySourceObj, DependencyState

if TYPE_CHECKING:
    from headrace import PullObj

PENDING, READY, RUNNING, COMPLETED, FAILED, ABORTED = DependencyState


DEPTH = 10_000


def states(graph: DependencyGraph) -> dict[Any, DependencyState]:
    return {node.key: node.state for node in graph.nodes()}


def diamond() -> DependencyGraph:
    """Return a graph where `b` and `c` depend on `a`, and `d` depends on both."""
    graph = DependencyGraph()
    graph.add("a")
    graph.add("b", depends_on=["a"])
    graph.add("c", depends_on=["a"])
    graph.add("d", depends_on=["b", "c"])
    return graph


def chain(graph: DependencyGraph, length: int = DEPTH) -> None:
    """Add nodes from 0, each dependent on the one before, in the worst order."""
    graph.add_all([(n, n, [n - 1] if n else []) for n in reversed(range(length))])


def layers() -> DependencyGraph:
    """Return a graph with two paths from `a` to `d`."""
    graph = DependencyGraph()
    graph.add_all([("d", 4, ["b", "c"]), ("c", 3, ["a"]), ("b", 2, ["a"]), ("a", 1)])
    return graph


def completing(source: DependencySourceObj) -> PullObj[Any]:
    """Complete each node of a source when it is pulled."""
    return source.tap(lambda item: source.completed(item, None))
