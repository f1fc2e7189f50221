"""The types that a checker infers for graphs and for a pool's sources. Checked, never run."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, assert_type

from headrace import (
    CapacitySource,
    CycleError,
    DependencyGraph,
    DependencyNode,
    DependencySourceObj,
    DependencyState,
    HierarchicalTaskPoolRunner,
    OutcomeListener,
    PriorityDependencySourceObj,
    PrioritySourceObj,
    SinkObj,
    SourceIterObj,
    Task,
)


async def fetch(url: str) -> bytes:
    return url.encode()


def graphs(graph: DependencyGraph) -> None:
    """Nodes that are added, and their results."""
    graph.add("page", Task(fetch, "url"))
    graph.add(("page", 1), depends_on=["page"])
    graph.add_all([("a", fetch), ("b", 3, ["a"])])
    graph.depend("a", "page", ("page", 1))
    assert_type(graph["a"], DependencyNode)
    assert_type(graph["a"].state, DependencyState)
    assert_type(graph["a"].error, BaseException | None)
    assert_type(graph.complete("a", 3), bool)
    assert_type(graph.abort("a"), tuple[Hashable, ...])
    assert_type(graph.counts(), dict[DependencyState, int])
    graph.on_ready(lambda key: assert_type(key, Hashable))()
    try:
        graph.add("x")
    except CycleError as error:
        assert_type(error.cycle, tuple[Hashable, ...])


async def sources(graph: DependencyGraph, capacity: CapacitySource) -> None:
    """Sources of a runner."""
    ready = DependencySourceObj(graph)
    urgent = PriorityDependencySourceObj(graph, priority=len, ageing=10)
    assert_type(await anext(ready), Any)
    settling: list[OutcomeListener] = [graph, ready, urgent]
    assert settling
    tasks: PrioritySourceObj[Task] = PrioritySourceObj(priority=lambda task: len(task.args))
    assert_type(await anext(tasks), Task)
    assert_type(tasks.sink, SinkObj[Task])
    for source in (ready, urgent, tasks):
        HierarchicalTaskPoolRunner(source, capacity)
    words = PrioritySourceObj[str](priority=len)
    await SourceIterObj(["a"]).drain_to(words.sink)
