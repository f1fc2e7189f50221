"""Priorities and aging of sources over a graph."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from headrace import (
    ClosedError,
    DependencyGraph,
    PriorityDependencySourceObj,
    PrioritySourceObj,
    SourceIterObj,
    WouldBlock,
)
from tests.graph_support import completing
from tests.support import collect, quiet, until, wrong


@pytest.mark.virtual
async def test_ageing_prevents_starvation() -> None:
    loop = asyncio.get_running_loop()
    source = PrioritySourceObj[tuple[str, int]](
        priority=lambda item: item[1], ageing=10.0, clock=loop.time
    )
    await source.sink.next(("patient", 0))
    for n in range(30):
        await source.sink.next((f"urgent {n}", 2))
        await asyncio.sleep(1)
        if (await anext(source))[0] == "patient":
            # Ageing adds the two steps of priority in 20 seconds.
            assert n == 20
            break
    else:
        pytest.fail("it starved")
    assert source.peek() == ("urgent 20", 2)
    assert source.size == 1


async def test_default_priority_is_that_of_the_item() -> None:
    class Urgent:
        priority = 3

    source: PrioritySourceObj[Any] = PrioritySourceObj(maxsize=3)
    urgent = Urgent()
    await SourceIterObj([1, 2, urgent]).drain_to(source.sink)
    assert await source.collect() == [urgent, 1, 2]


async def test_source_is_bounded_and_checks_priorities() -> None:
    source = PrioritySourceObj[Any](priority=lambda item: item, maxsize=2)
    assert (source.maxsize, bool(source), source.size) == (2, True, 0)
    for bad, error in [("high", TypeError), (math.nan, ValueError), (True, TypeError)]:
        with pytest.raises(error, match=r"priority must be a (finite )?number, got"):
            source.sink.next_nowait(bad)
    source.sink.next_nowait(1)
    source.sink.next_nowait(2)
    with pytest.raises(WouldBlock):
        source.sink.next_nowait(3)
    push = asyncio.ensure_future(asyncio.wait_for(source.sink.next(3), None))
    await quiet()
    assert await anext(source) == 2
    await push
    assert [await anext(source), await anext(source)] == [3, 1]
    await source.aclose()
    with pytest.raises(ClosedError) as caught:
        source.sink.next_nowait(4)
    assert caught.value.item == 4


async def test_law_13_priority_and_ageing_are_live() -> None:
    time = [0.0]
    graph = DependencyGraph(keep_open=True)
    pushed = PrioritySourceObj[int](ageing=1.0, clock=lambda: time[0])
    from_graph = PriorityDependencySourceObj(graph, ageing=1.0, clock=lambda: time[0])
    graph.add("first")
    assert await anext(from_graph) == "first"

    def put(item: int) -> None:
        pushed.sink.next_nowait(item)
        graph.add(item)

    async def get() -> list[int]:
        return [await anext(pushed), await anext(from_graph)]

    assert (pushed.priority, from_graph.priority, pushed.ageing, from_graph.ageing) == (
        None,
        None,
        1.0,
        1.0,
    )
    put(1)
    put(2)
    assert await get() == [1, 1]
    assert await get() == [2, 2]
    pushed.priority = from_graph.priority = lambda item: item
    put(3)
    put(4)
    assert await get() == [4, 4]
    pushed.ageing = from_graph.ageing = 0
    put(5)
    assert await get() == [3, 3]
    assert await get() == [5, 5]
    with pytest.raises(ValueError, match="ageing must not be negative"):
        pushed.ageing = -1
    with pytest.raises(TypeError, match="priority must be callable"):
        from_graph.priority = wrong(1)


async def test_law_3_failing_priority_costs_its_node() -> None:
    graph = DependencyGraph()
    graph.add_all([(n, n) for n in range(3)])
    graph.add("over 1", depends_on=[1])
    error = ValueError("one")

    def priority(item: int) -> float:
        if item == 1:
            raise error
        return item

    source = PriorityDependencySourceObj(graph, priority=priority, ageing=1e6)
    with pytest.raises(ValueError, match="one") as caught:
        await anext(source)
    assert caught.value is error
    assert error.__notes__ == ["raised by priority of node 1"]
    assert await collect(completing(source)) == [2, 0]
    assert graph[1].error is error
    assert graph["over 1"].caused_by == 1


async def test_bad_priority_of_a_taken_node_is_ignored() -> None:
    graph = DependencyGraph()
    graph.add_all([(n, n) for n in range(2)])
    source = PriorityDependencySourceObj(graph, priority=lambda item: 1 / item)
    graph.take(0)
    assert await anext(source) == 1
    rest = asyncio.ensure_future(collect(source))
    graph.add(-1, 0)
    # The source is notified, but the node is taken and forgotten before it looks.
    graph.take(-1)
    graph.complete(-1)
    graph.complete(1)
    graph.forget()
    await quiet()
    assert not rest.done()
    graph.complete(0)
    await until(rest.done)
    assert rest.result() == []
