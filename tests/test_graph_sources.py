"""Sources by priority and over a graph: the order of items, and the effects of cancellation, ends and failures."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    ClosedError,
    DependencyGraph,
    DependencySourceObj,
    HierarchicalTaskPoolRunner,
    PriorityDependencySourceObj,
    PrioritySourceObj,
    Task,
)
from headrace.testing import sweep, sweep_endings
from tests.graph_support import (
    ABORTED,
    COMPLETED,
    FAILED,
    PENDING,
    READY,
    RUNNING,
    completing,
    layers,
)
from tests.support import collect, quiet, until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import PullObj, TaskProgressEnvelope

KINDS = [DependencySourceObj, PriorityDependencySourceObj]
both = pytest.mark.parametrize("kind", KINDS)
where: ContextVar[str] = ContextVar("where", default="nowhere")


async def run(source: PullObj[Any]) -> dict[Any, TaskProgressEnvelope[Any]]:
    """Run a source to its end in a runner. Return the last envelope of each called task, by its key."""
    runner = HierarchicalTaskPoolRunner(source, CapacitySource(3))
    async with runner.run_tasks() as progress:
        return {envelope.key: envelope async for envelope in progress}


@both
async def test_runner_reports_outcomes_to_the_graph(
    kind: type[DependencySourceObj],
) -> None:
    graph = DependencyGraph()
    log: list[str] = []
    broken = OSError("broken")

    async def work(name: str) -> str:
        log.append(name)
        await asyncio.sleep(0)
        if name == "parse 1":
            raise broken
        return name.upper()

    for n in range(3):
        graph.add(f"fetch {n}", Task(work, f"fetch {n}", key=n))
        graph.add(f"parse {n}", Task(work, f"parse {n}"), [f"fetch {n}"])
        graph.add(f"store {n}", Task(work, f"store {n}"), [f"parse {n}"])
    graph.add("report", Task(work, "report"), ["store 0", "store 2"])
    graph.add("census", Task(work, "census"), [f"store {n}" for n in range(3)])
    envelopes = await run(kind(graph))
    assert envelopes[2].value == "FETCH 2"
    assert sorted(log[:3]) == ["fetch 0", "fetch 1", "fetch 2"]
    assert graph["report"].value == "REPORT"
    assert graph["parse 1"].state is FAILED
    for key in ("store 1", "census"):
        node = graph[key]
        assert (node.state, node.caused_by, node.error) == (ABORTED, "parse 1", broken)
    assert graph.closed


@both
async def test_task_may_add_nodes(kind: type[DependencySourceObj]) -> None:
    graph = DependencyGraph()
    found: list[int] = []

    async def visit(page: int) -> None:
        await asyncio.sleep(0)
        found.append(page)
        for link in (2 * page, 2 * page + 1):
            if link < 200:
                graph.add(link, Task(visit, link))
                graph.depend("report", link)

    async def report() -> int:
        return len(found)

    graph.add(1, Task(visit, 1))
    graph.add("report", report, [1])
    await run(kind(graph))
    assert sorted(found) == list(range(1, 200))
    assert graph["report"].value == 199


@both
async def test_failure_aborts_only_its_dependants(
    kind: type[DependencySourceObj],
) -> None:
    graph = DependencyGraph()
    broken = OSError("broken")

    async def visit(page: int) -> int:
        await asyncio.sleep(0)
        for link in (2 * page, 2 * page + 1):
            if link < 100:
                graph.add(link, Task(visit, link, key=link))
                graph.depend("report", link)
        if page == 7:
            raise broken
        return page

    graph.add(1, Task(visit, 1, key=1))
    graph.add("report", lambda: "never", [1])
    envelopes = await run(kind(graph))
    assert sorted(envelopes) == list(range(1, 100))
    assert [envelope.error for envelope in envelopes.values() if envelope.error] == [broken]
    assert (graph["report"].state, graph["report"].error) == (ABORTED, broken)


@both
async def test_only_called_tasks_fail_when_a_run_is_left(
    kind: type[DependencySourceObj],
) -> None:
    graph = DependencyGraph()
    graph.add_all([("a", asyncio.Event().wait), ("b", int, ["a"]), ("c", int)])
    runner = HierarchicalTaskPoolRunner(kind(graph), CapacitySource(1))
    async with runner.run_tasks():
        await until(lambda: graph.counts()[RUNNING] == 2)
    assert isinstance(graph["a"].error, asyncio.CancelledError)
    assert (graph["b"].state, graph["b"].caused_by) == (ABORTED, "a")
    assert graph["c"].state is RUNNING
    async with runner.run_tasks() as progress:
        assert [envelope.key async for envelope in progress] == ["c"]
    assert (graph["c"].state, graph["c"].value) == (COMPLETED, 0)


@both
async def test_node_that_cannot_run_fails(kind: type[DependencySourceObj]) -> None:
    graph = DependencyGraph()
    graph.add("number", 3)
    graph.add("over it", int, ["number"])
    (envelope,) = (await run(kind(graph))).values()
    assert isinstance(envelope.error, TypeError)
    assert graph["number"].error is envelope.error
    assert graph["over it"].state is ABORTED


@both
async def test_law_2_cancelled_pull_leaves_the_node_ready(
    kind: type[DependencySourceObj],
) -> None:
    graph = layers()
    source = kind(graph)
    assert await anext(source) == 1
    pull = asyncio.ensure_future(collect(source.take(1)))
    await quiet()
    # Both in one iteration: the pull may be woken already when it is cancelled.
    source.completed(1, None)
    pull.cancel()
    await asyncio.wait([pull])
    assert graph.counts()[RUNNING] == 0
    assert [await anext(source), await anext(source)] == [3, 2]


@both
async def test_law_2_swept(kind: type[DependencySourceObj], loop_kind: str) -> None:
    def build() -> PullObj[Any]:
        graph = layers()
        source = kind(graph)

        async def work(item: Any) -> Any:
            await yield_to_loop(item % 2)
            source.completed(item, None)
            return item

        return source.map(work, on_cancel="keep")

    await sweep(build, [1, 3, 2, 4])


@both
async def test_law_4_swept(kind: type[DependencySourceObj]) -> None:
    def build() -> PullObj[Any]:
        graph = layers()
        source = kind(graph)
        loop = asyncio.get_running_loop()

        def later(item: Any) -> Any:
            # Complete it later, so that the next pull waits.
            loop.call_soon(source.completed, item, None)
            return item

        return source.map(later)

    await sweep_endings(build)


@both
async def test_law_12_consumers_are_served_in_order(
    kind: type[DependencySourceObj],
) -> None:
    graph = DependencyGraph(keep_open=True)
    source, other = kind(graph), kind(graph)
    pulls: list[asyncio.Future[list[Any]]] = []
    for _ in range(3):
        pulls.append(asyncio.ensure_future(collect(source.take(1))))
        await quiet()  # until it is queued
    graph.add_all([(n, [n]) for n in range(5)])
    assert await asyncio.gather(*pulls) == [[[0]], [[1]], [[2]]]
    assert await anext(other) == [3]
    assert await anext(source) == [4]
    graph.close()
    waiting = [asyncio.ensure_future(collect(each)) for each in (source, other)]
    await quiet()
    assert not any(each.done() for each in waiting)
    for n in range(5):
        graph.complete(n)
    assert await asyncio.gather(*waiting) == [[], []]


@both
async def test_source_ends_and_closes_a_finished_graph(
    kind: type[DependencySourceObj],
) -> None:
    graph = layers()
    source = kind(graph)
    assert await collect(completing(source)) == [1, 3, 2, 4]
    with pytest.raises(StopAsyncIteration):
        await anext(source)
    with pytest.raises(ClosedError, match="no node can be added any more; keep_open=True"):
        graph.add("late")


@both
async def test_failure_of_the_last_node_ends_the_source(kind: type[DependencySourceObj]) -> None:
    graph = layers()
    source = kind(graph)
    assert await anext(source) == 1
    rest = asyncio.ensure_future(collect(source))
    await quiet()
    graph.fail("a", ValueError())
    assert await rest == []


@both
@pytest.mark.virtual
async def test_source_waits_for_a_graph_kept_open(kind: type[DependencySourceObj]) -> None:
    graph = DependencyGraph(keep_open=True)
    source = kind(graph)
    rest = asyncio.ensure_future(collect(completing(source)))
    for n in range(3):
        await asyncio.sleep(3600)
        graph.add(n)
    await asyncio.sleep(3600)
    assert not rest.done()
    graph.close()
    assert await rest == [0, 1, 2]


@both
async def test_law_1_source_does_nothing_before_a_pull(
    kind: type[DependencySourceObj],
) -> None:
    graph = DependencyGraph()
    source = kind(graph)
    await quiet()
    # The graph was empty at first, so an earlier look would have ended it.
    graph.add("a")
    assert await anext(source) == "a"
    graph.complete("a")
    assert not graph.closed


@both
async def test_closing_and_restarting_keep_the_graph(
    kind: type[DependencySourceObj],
) -> None:
    graph = layers()
    source = kind(graph)
    assert await anext(source) == 1
    await source.aclose()
    assert graph["a"].state is RUNNING
    graph.complete("a")
    with pytest.raises(StopAsyncIteration):
        await anext(source)
    assert graph.counts()[READY] == 2
    assert not graph.closed
    source.restart()
    assert await anext(source) == 3
    assert await anext(kind(graph)) == 2


@both
async def test_node_aborted_while_ready_is_not_yielded(
    kind: type[DependencySourceObj],
) -> None:
    graph = DependencyGraph()
    graph.add_all([(n, [n]) for n in range(4)])
    source = kind(graph)
    assert await anext(source) == [0]
    graph.abort(1)
    graph.depend(2, 3)
    assert await anext(source) == [3]
    graph.complete(3)
    assert await anext(source) == [2]


@both
async def test_late_outcome_of_a_finished_node_is_ignored(
    kind: type[DependencySourceObj],
) -> None:
    graph = layers()
    source = kind(graph)
    item = await anext(source)
    graph.complete("a", "by hand")
    source.completed(item, "by a runner")
    source.failed(item, ValueError())
    assert graph["a"].value == "by hand"


@pytest.mark.loops("asyncio")
async def test_failing_callback_does_not_fail_the_runner() -> None:
    graph = layers()
    source = DependencySourceObj(graph)
    assert await anext(source) == 1
    error = ValueError("callback")

    def fail(_: Any) -> None:
        raise error

    graph.on_ready(fail)
    handled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: handled.append(context))
    try:
        source.completed(1, None)
        graph.on_finished(lambda: fail(None))
        assert await anext(source) == 3
        graph.complete("b")
        source.failed(3, OSError())
    finally:
        loop.set_exception_handler(before)
    assert [type(context["exception"]) for context in handled] == [ExceptionGroup, ValueError]
    assert handled[0]["message"].startswith("a callback of <DependencyGraph")
    assert graph["a"].state is COMPLETED
    assert graph["c"].state is FAILED


async def test_callable_runs_in_the_context_of_the_pull() -> None:
    graph = DependencyGraph()
    where.set("added")
    graph.add("named", where.get)
    where.set("pulled")
    task = await anext(DependencySourceObj(graph))
    where.set("called")
    assert isinstance(task, Task)
    assert (task.key, task.context.run(task.fn)) == ("named", "pulled")


@both
async def test_law_9_node_may_become_ready_in_any_thread(kind: type[DependencySourceObj]) -> None:
    graph = DependencyGraph(keep_open=True)
    source = kind(graph)
    pull = asyncio.ensure_future(collect(completing(source)))
    await quiet()

    def grow() -> None:
        for n in range(100):
            graph.add(n, depends_on=[n - 1] if n else [])
        graph.close()

    thread = threading.Thread(target=grow)
    thread.start()
    assert await pull == list(range(100))
    thread.join()


@both
async def test_graph_does_not_keep_its_sources_alive(kind: type[DependencySourceObj]) -> None:
    graph = DependencyGraph(keep_open=True)
    graph.add("a")
    source = kind(graph)
    assert await anext(source) == "a"
    dropped = weakref.ref(source)
    del source
    gc.collect()
    assert dropped() is None
    graph.add("b")
    graph.add("c")
    assert await anext(kind(graph)) == "b"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: DependencySourceObj(wrong([])),
            TypeError,
            r"graph must be a .* got \[\] \(list\)",
        ),
        (lambda: PriorityDependencySourceObj(wrong(3)), TypeError, r"graph must .* got 3 \(int\)"),
        (
            lambda: PriorityDependencySourceObj(DependencyGraph(), priority=wrong(3)),
            TypeError,
            r"priority must be callable or None, got 3 \(int\)",
        ),
        (lambda: PrioritySourceObj(priority=wrong(3)), TypeError, "priority must be .* got 3"),
        (lambda: PrioritySourceObj(clock=wrong(3)), TypeError, "clock must be .* got 3"),
        (lambda: PrioritySourceObj(ageing=-1), ValueError, r"ageing must not be .* got -1 \(int\)"),
        (lambda: PrioritySourceObj(ageing=math.inf), ValueError, "ageing must be a finite .* inf"),
        (lambda: PrioritySourceObj(ageing=wrong("1")), TypeError, r"ageing must .* '1' \(str\)"),
        (lambda: PrioritySourceObj(maxsize=0), ValueError, "maxsize must be .* got 0"),
        (lambda: PrioritySourceObj(maxsize=wrong("1")), TypeError, "maxsize must be .* '1'"),
    ],
)
def test_law_14_bad_input_is_named(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@both
async def test_drained_run_continues_and_abandoned_run_fails(
    kind: type[DependencySourceObj],
) -> None:
    async def work(index: int) -> int:
        await quiet()
        return index

    for is_drained in (True, False):
        graph = DependencyGraph()

        def runs(graph: DependencyGraph = graph) -> bool:
            return graph[3].state is RUNNING

        graph.add_all(
            (index, Task(work, index, key=index), [index - 1] if index else [])
            for index in range(6)
        )
        runner = HierarchicalTaskPoolRunner(kind(graph), CapacitySource(2))
        async with runner.run_tasks() as progress:
            async for envelope in progress:
                if envelope.key == 2:
                    await until(runs)
                    if not is_drained:
                        break
                    await runner.drain()
        counts = graph.counts()
        if is_drained:
            assert (counts[COMPLETED], counts[READY], counts[PENDING]) == (4, 1, 1)
            assert await runner.run() == [4, 5]
            assert graph.counts()[COMPLETED] == 6
        else:
            assert isinstance(graph[3].error, asyncio.CancelledError)
            assert (counts[COMPLETED], counts[FAILED], counts[ABORTED]) == (3, 1, 2)
            assert await runner.run() == []
