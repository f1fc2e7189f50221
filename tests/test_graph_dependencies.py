"""Dependencies that are added to nodes of a `DependencyGraph`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace import CycleError, DependencyGraph, DependencyNode
from tests.graph_support import ABORTED, PENDING, READY, states

if TYPE_CHECKING:
    from collections.abc import Hashable


def test_dependency_can_be_added_until_node_is_taken() -> None:
    graph = DependencyGraph()
    notified: list[Hashable] = []
    graph.on_ready(notified.append)
    graph.add("report")
    graph.add("done")
    graph.complete("done")
    graph.depend("report", "done")
    assert graph["report"].state is READY
    for page in range(3):
        graph.add(page)
    graph.depend("report", 0, 1, 0)
    graph.depend("report", 1, 2)
    assert graph["report"] == DependencyNode(
        "report", "report", ("done", 0, 1, 2), PENDING, None, None, None
    )
    assert graph.take("report", None) is None
    for page in range(3):
        assert graph["report"].state is PENDING
        graph.complete(page)
    assert notified == ["report", "done", 0, 1, 2, "report"]
    assert graph.take("report") == "report"
    graph.add("late")
    with pytest.raises(RuntimeError, match="'report' is running: only one that was not taken yet"):
        graph.depend("report", "late")


def test_dependency_on_an_aborted_node_aborts() -> None:
    graph = DependencyGraph()
    graph.add_all([("a", 1), ("b", 1, ["a"]), ("dead", 1)])
    graph.abort("dead")
    graph.depend("a", "dead")
    assert states(graph) == {"a": ABORTED, "b": ABORTED, "dead": ABORTED}
    assert graph["b"].caused_by == "dead"
    assert graph.finished


def test_aborted_node_accepts_no_dependency() -> None:
    graph = DependencyGraph()
    graph.add_all([("page", 1), ("link", 2), ("report", 3, ["page", "link"])])
    assert graph.depend("report", "page")
    graph.fail("link", ValueError())
    graph.add("found by the page")
    assert not graph.depend("report", "found by the page")
    assert graph["report"].depends_on == ("page", "link")
    assert graph["report"].caused_by == "link"


@pytest.mark.parametrize(
    ("key", "needs", "error", "message"),
    [
        ("a", ["a"], CycleError, "'a' -> 'a', where each"),
        ("a", ["e", "c"], CycleError, "'a' -> 'c' -> 'b' -> 'a', where each"),
        ("a", ["e", "x"], ValueError, "depends_on of node 'a' names 'x', which is no node"),
        ("x", ["e"], ValueError, r"key must be that of a node of this graph, got 'x' \(str\)"),
        ("a", ["e", []], TypeError, r"depends_on: .* must be hashable, got \[\] \(list\)"),
    ],
)
def test_invalid_dependency_changes_nothing(
    key: str, needs: Any, error: type[Exception], message: str
) -> None:
    graph = DependencyGraph()
    graph.add_all([("a", 1), ("b", 1, ["a"]), ("c", 1, ["b"]), ("d", 1, ["c"]), ("e", 1)])
    before = graph.nodes()
    with pytest.raises(error, match=message):
        graph.depend(key, *needs)
    assert graph.nodes() == before
