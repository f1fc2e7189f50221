"""Callbacks of a `DependencyGraph`: their order, re-entrant changes and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace import DependencyGraph
from tests.graph_support import COMPLETED, diamond

if TYPE_CHECKING:
    from collections.abc import Hashable


def test_callbacks_run_in_order_of_readiness() -> None:
    graph = diamond()
    notified: list[tuple[str, Any]] = []
    stop = graph.on_ready(lambda key: notified.append(("first", key)))
    graph.on_finished(lambda: notified.append(("over", None)))
    graph.complete("a")
    graph.on_ready(lambda key: notified.append(("second", key)))
    stop()
    stop()
    graph.complete("c")
    graph.complete("b")
    assert notified == [
        ("first", "a"),
        ("first", "b"),
        ("first", "c"),
        ("second", "b"),
        ("second", "c"),
        ("second", "d"),
    ]
    graph.complete("d")
    graph.add("e")
    graph.abort("e")
    assert notified[6:] == [("over", None), ("second", "e"), ("over", None)]


def test_callback_may_change_the_graph() -> None:
    graph = DependencyGraph()
    notified: list[int] = []

    def grow(key: Any) -> None:
        notified.append(key)
        if key < 100:
            graph.add_all([(key * 2, 0, [key]), (key * 2 + 1, 0, [key])])
        graph.complete(key)
        assert graph[key].state is COMPLETED

    graph.on_ready(grow)
    graph.add(1)
    assert notified == list(range(1, 200))
    assert graph.finished


def test_callback_errors_are_raised_after_all_callbacks() -> None:
    graph = diamond()
    errors = [ValueError("b"), OSError("c")]
    notified: list[Hashable] = []

    def fail(key: Hashable) -> None:
        if key in ("b", "c"):
            raise errors["bc".index(str(key))]

    graph.on_ready(fail)
    graph.on_ready(notified.append)
    with pytest.raises(ExceptionGroup) as caught:
        graph.complete("a")
    assert caught.value.exceptions == tuple(errors)
    assert errors[0].__notes__ == ["raised by a callback of DependencyGraph"]
    assert notified == ["a", "b", "c"]
    assert graph["a"].state is COMPLETED
    graph.complete("b")
    graph.complete("c")
    assert notified == ["a", "b", "c", "d"]
