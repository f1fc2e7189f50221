"""`DependencyGraph`: states, transitions, refused input and callbacks."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ClosedError, CycleError, DependencyGraph, DependencyNode, OutcomeListener, Task
from tests.graph_support import (
    ABORTED,
    COMPLETED,
    DEPTH,
    FAILED,
    PENDING,
    READY,
    RUNNING,
    chain,
    diamond,
    states,
)
from tests.support import wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


def test_node_is_ready_once_all_dependencies_complete() -> None:
    graph = diamond()
    assert states(graph) == {"a": READY, "b": PENDING, "c": PENDING, "d": PENDING}
    assert graph.take("a") == "a"
    assert states(graph) == {"a": RUNNING, "b": PENDING, "c": PENDING, "d": PENDING}
    assert graph.complete("a", 1)
    assert graph.complete("b")
    assert states(graph) == {"a": COMPLETED, "b": COMPLETED, "c": READY, "d": PENDING}
    assert graph.complete("c")
    assert (graph["d"].state, graph.finished) == (READY, False)
    assert graph.complete("d")
    assert graph.finished
    assert graph["a"] == DependencyNode("a", "a", (), COMPLETED, 1, None, None)
    assert graph["d"].depends_on == ("b", "c")


def test_failure_aborts_dependants_with_its_cause() -> None:
    graph = diamond()
    graph.add("beside")
    graph.complete("a")
    error = ValueError("no")
    assert graph.fail("b", error)
    assert states(graph) == {
        "a": COMPLETED,
        "b": FAILED,
        "c": READY,
        "d": ABORTED,
        "beside": READY,
    }
    assert graph["b"].error is error
    assert graph["d"].error is error
    assert (graph["b"].caused_by, graph["d"].caused_by) == ("b", "b")
    # Completing the other dependency of an aborted node changes nothing.
    graph.complete("c")
    assert graph["d"].state is ABORTED


def test_abort_cascades_to_unfinished_nodes_only() -> None:
    graph = diamond()
    graph.complete("a")
    graph.complete("b")
    reason = TimeoutError()
    assert graph.abort("c", reason) == ("c", "d")
    assert states(graph) == {"a": COMPLETED, "b": COMPLETED, "c": ABORTED, "d": ABORTED}
    assert (graph["d"].error, graph["d"].caused_by) == (reason, "c")
    assert graph.abort("a") == ()
    assert graph["a"].state is COMPLETED
    assert graph.finished


def test_outcome_of_an_aborted_node_is_ignored() -> None:
    graph = diamond()
    item = graph.take("a")
    assert graph.abort("a") == ("a", "b", "c", "d")
    assert not graph.complete("a", 1)
    assert not graph.fail("a", ValueError())
    assert not graph.completed(item, 1)
    assert not graph.failed(item, ValueError())
    assert (graph["a"].value, graph["a"].error) == (None, None)


def test_new_node_follows_finished_dependencies() -> None:
    graph = DependencyGraph()
    graph.add("done")
    graph.add("broken")
    graph.complete("done")
    error = OSError("disk")
    graph.fail("broken", error)
    graph.add("next", depends_on=["done"])
    assert graph["next"].state is READY
    graph.add_all([("far", 2, ["near"]), ("near", 1, ["done", "broken"]), ("free", 3)])
    assert states(graph) == {
        "done": COMPLETED,
        "broken": FAILED,
        "next": READY,
        "far": ABORTED,
        "near": ABORTED,
        "free": READY,
    }
    assert (graph["far"].error, graph["far"].caused_by) == (error, "broken")


def test_batch_may_be_in_any_order() -> None:
    graph = DependencyGraph()
    graph.add_all([("c", 3, ["b", "a"]), ("b", 2, ["a"]), ("a", 1)])
    assert states(graph) == {"c": PENDING, "b": PENDING, "a": READY}
    assert [graph.take("a"), graph.completed(1, None), graph["b"].state] == [1, True, READY]


@pytest.mark.parametrize(
    ("nodes", "error", "message"),
    [
        ([("a", 1, ["a"])], CycleError, "'a' -> 'a', where each"),
        ([("a", 1, ["old", "b"]), ("b", 1, ["a"])], CycleError, "'a' -> 'b' -> 'a', where each"),
        ([("b", 1), ("a", 1, ["b", "x"])], ValueError, "depends_on of node 'a' names 'x', which"),
        ([("a", 1), ("b", 1), ("a", 2)], ValueError, "key must be a new one, got 'a'"),
        ([("a", 1), ("old", 2)], ValueError, "key must be a new one, got 'old'"),
        ([("b", 1), ([], 1)], TypeError, r"key: .* must be hashable, got \[\] \(list\)"),
        ([("b", 1), ("a", 1, [{}])], TypeError, r"depends_on: .* hashable, got {} \(dict\)"),
        ([("b", 1), ("a", 1, "old")], TypeError, r"got 'old' \(str\); write \['old'\]"),
        ([("b", 1), ("a", 1, 3)], TypeError, r"depends_on must be .* got 3 \(int\)"),
        ([("b", 1), "ab"], TypeError, r"nodes must be tuples .* got 'ab' \(str\)"),
        ([("b", 1), ("a",)], TypeError, r"nodes must be tuples .* got \('a',\) \(tuple\)"),
    ],
)
def test_invalid_batch_adds_nothing(nodes: Any, error: type[Exception], message: str) -> None:
    graph = DependencyGraph()
    graph.add("old")
    notified: list[Hashable] = []
    graph.on_ready(notified.append)
    with pytest.raises(error, match=message):
        graph.add_all(nodes)
    assert states(graph) == {"old": READY}
    assert notified == ["old"]
    assert (len(graph), "a" in graph, "old" in graph) == (1, False, True)
    graph.add("a", depends_on=["old"])


@pytest.mark.parametrize("kept", [0, 1, 7])
def test_cycle_error_names_exactly_the_cycle(kept: int) -> None:
    graph = DependencyGraph()
    graph.add("old")
    ring = [(n, n, [(n + 1) % 5, "old"]) for n in range(5)]
    # Nodes before and after the cycle are no part of it.
    tail = [(f"above {n}", n, [n % 5, "below"]) for n in range(kept)]
    with pytest.raises(CycleError) as caught:
        graph.add_all([("below", 0), *tail, *ring])
    cycle: tuple[Any, ...] = caught.value.cycle
    assert cycle[0] == cycle[-1]
    assert sorted(cycle[:-1], key=str) == [0, 1, 2, 3, 4]
    assert all((after - before) % 5 == 1 for before, after in itertools.pairwise(cycle))


def test_long_cycle_has_a_short_message() -> None:
    graph = DependencyGraph()
    with pytest.raises(CycleError) as caught:
        graph.add_all([(n, n, [(n + 1) % DEPTH]) for n in range(DEPTH)])
    assert len(caught.value.cycle) == DEPTH + 1
    message = str(caught.value)
    assert f"({DEPTH - 11} more)" in message
    assert len(message) < 300


@pytest.mark.parametrize("end", ["complete", "abort", "fail"])
def test_law_17_chain_of_10_000_needs_no_recursion(end: str) -> None:
    graph = DependencyGraph()
    chain(graph)
    graph.add("last", depends_on=[DEPTH - 1])
    if end == "complete":
        # Each completion happens in the callback of the one before.
        graph.on_ready(graph.complete)
        assert graph.counts()[COMPLETED] == DEPTH + 1
    elif end == "abort":
        assert len(graph.abort(0)) == DEPTH + 1
    else:
        graph.fail(0, ValueError())
        assert graph["last"].caused_by == 0
    assert graph.finished


def test_cost_is_linear_in_nodes_and_edges() -> None:
    def steps(width: int, depth: int) -> int:
        """Return the number of lines run for layers of nodes, each dependent on the whole layer before."""
        graph = DependencyGraph()
        lines = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal lines
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for layer in range(depth):
                needs = [(layer - 1, n) for n in range(width)] if layer else []
                graph.add_all([((layer, n), n, needs) for n in range(width)])
            for layer in range(depth):
                for n in range(width):
                    graph.complete((layer, n))
        finally:
            sys.settrace(before)
        assert graph.finished
        return lines

    assert steps(4, 100) <= 10.5 * steps(4, 10)
    # Five times the nodes have 25 times the edges.
    assert steps(20, 10) <= 26 * steps(4, 10)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda graph: graph.complete("b"), RuntimeError, "node 'b' is pending: only one"),
        (lambda graph: graph.fail("b", ValueError()), RuntimeError, "node 'b' is pending"),
        (lambda graph: graph.complete("done"), RuntimeError, "node 'done' is completed: only"),
        (lambda graph: graph.take("b"), RuntimeError, "node 'b' is pending: only one that is re"),
        (lambda graph: graph.take("x"), ValueError, "key must be that of a node .* got 'x'"),
        (lambda graph: graph.complete("x"), ValueError, "key must be .* got 'x'"),
        (lambda graph: graph.abort("x"), ValueError, "key must be .* got 'x'"),
        (lambda graph: graph["x"], KeyError, "'x'"),
        (lambda graph: graph.fail("a", "no"), TypeError, r"error must be .* got 'no' \(str\)"),
        (lambda graph: graph.failed(1, "no"), TypeError, r"error must be .* got 'no' \(str\)"),
        (lambda graph: graph.abort("a", "no"), TypeError, r"error must be .* got 'no' \(str\)"),
        (lambda graph: graph.on_ready(3), TypeError, r"callback must be .* got 3 \(int\)"),
        (lambda graph: graph.on_finished(3), TypeError, r"callback must be .* got 3 \(int\)"),
        (lambda graph: graph.nodes("ready"), TypeError, r"state must be .* got 'ready' \(str\)"),
        (lambda _: DependencyGraph(keep_open=wrong(1)), TypeError, r"keep_open .* got 1 \(int\)"),
    ],
)
def test_law_14_bad_input_is_named(
    use: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    graph = DependencyGraph()
    graph.add_all([("a", 1), ("b", 2, ["a"]), ("done", 3)])
    graph.complete("done")
    before = graph.nodes()
    with pytest.raises(error, match=message):
        use(graph)
    assert graph.nodes() == before


def test_take_returns_a_callable_as_a_task() -> None:
    graph = DependencyGraph()
    task = Task(len, "abc")
    graph.add("task", task)
    graph.add(len)
    taken = graph.take(len)
    assert isinstance(taken, Task)
    assert (taken.fn, taken.key) == (len, len)
    assert graph[len].item is len
    assert graph.take("task") is task
    assert isinstance(graph, OutcomeListener)


def test_two_unfinished_nodes_cannot_share_a_task() -> None:
    graph = DependencyGraph()
    task = Task(len, "abc")
    message = "item of node 'b' must be a Task of its own, got that of node 'a'"
    with pytest.raises(ValueError, match=message):
        graph.add_all([("a", task), ("b", task)])
    graph.add("a", task)
    with pytest.raises(ValueError, match=message):
        graph.add("b", task)
    graph.take("a")
    graph.completed(task, 3)
    graph.add("b", task)
    graph.take("b")
    graph.abort("b")
    graph.add("c", task)
    assert states(graph) == {"a": COMPLETED, "b": ABORTED, "c": READY}


def test_nodes_of_one_item_finish_in_order_of_takes() -> None:
    graph = DependencyGraph()
    value = object()
    for key in "abcd":
        graph.add(key, value)
    for key in "cabd":
        graph.take(key)
    graph.complete("a")
    assert graph.completed(value, 1)
    assert states(graph) == {"a": COMPLETED, "b": RUNNING, "c": COMPLETED, "d": RUNNING}
    assert graph.failed(value, ValueError())
    assert graph.completed(value, 2)
    assert not graph.completed(value, 3)
    assert states(graph) == {"a": COMPLETED, "b": FAILED, "c": COMPLETED, "d": COMPLETED}


def test_finished_node_drops_its_task() -> None:
    graph = DependencyGraph()
    taken_ids: list[int] = []
    ends: list[Callable[[Any], object]] = [
        graph.complete,
        lambda key: graph.fail(key, ValueError()),
        graph.abort,
    ]
    for key, end in enumerate(ends):
        graph.add(key, lambda: None)
        taken = graph.take(key)
        taken_ids.append(id(taken))
        del taken
        end(key)
    gc.collect()
    alive = {id(thing) for thing in gc.get_objects() if issubclass(type(thing), Task)}
    assert not alive & set(taken_ids)


def test_finalizer_may_use_the_graph() -> None:
    graph = DependencyGraph()
    notified: list[int] = []

    class Work:
        def __del__(self) -> None:
            notified.append(len(graph))
            notified.append(graph.counts()[COMPLETED])

        def __call__(self) -> None: ...

    graph.add("a", Work())
    graph.take("a")
    graph.complete("a")
    graph.forget()
    assert notified == [0, 0]


def test_closed_graph_refuses_nodes_and_finishes() -> None:
    graph = diamond()
    notified: list[None] = []
    graph.on_finished(lambda: notified.append(None))
    graph.close()
    graph.close()
    assert graph.closed
    with pytest.raises(ClosedError, match=r"the graph is closed: .*; keep_open=True leaves"):
        graph.add("e")
    for key in "abc":
        graph.complete(key)
    assert not graph.close_if_over()
    assert not notified
    graph.complete("d")
    assert graph.close_if_over()
    assert len(notified) == 1


def test_empty_graph_is_over_unless_kept_open() -> None:
    graph, kept = DependencyGraph(), DependencyGraph(keep_open=True)
    notified: list[None] = []
    kept.on_finished(lambda: notified.append(None))
    assert (graph.finished, graph.closed) == (True, False)
    assert graph.close_if_over()
    assert graph.closed
    assert not kept.close_if_over()
    kept.close()
    assert kept.close_if_over()
    assert len(notified) == 1


def test_finished_nodes_can_be_forgotten() -> None:
    graph = diamond()
    graph.complete("a")
    graph.fail("b", ValueError())
    assert graph.forget() == 3
    assert states(graph) == {"c": READY}
    assert graph.counts() == {
        PENDING: 0,
        READY: 1,
        RUNNING: 0,
        COMPLETED: 0,
        FAILED: 0,
        ABORTED: 0,
    }
    with pytest.raises(ValueError, match="names 'a', which is no node"):
        graph.add("e", depends_on=["a"])
    graph.add("a", depends_on=["c"])
    graph.complete("c")
    graph.complete("a")
    assert graph.forget() == 2
    assert graph.finished


def test_repr_shows_counts_and_closed() -> None:
    graph = DependencyGraph()
    assert repr(graph) == "<DependencyGraph: no nodes>"
    assert bool(graph)
    graph.add("a")
    graph.add("b", depends_on=["a"])
    graph.close()
    assert repr(graph) == "<DependencyGraph: 1 pending, 1 ready, closed>"
    assert [node.key for node in graph.nodes(READY)] == ["a"]


@pytest.mark.parametrize("run", range(3))
def test_law_9_many_threads_may_use_it(run: int) -> None:
    graph = DependencyGraph()
    threads, each = 4, 300
    done: list[Any] = []
    failures: list[BaseException] = []

    def work(key: Any) -> None:
        if graph.take(key, None) is not None:
            done.append(key)
            graph.complete(key)

    graph.on_ready(work)
    begin = threading.Barrier(threads)

    def grow(name: int) -> None:
        try:
            begin.wait()
            for n in range(each):
                graph.add((name, n), depends_on=[(name, n - 1)] if n else [])
                graph.add((name, n, "twin"), depends_on=[(name, n)])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=grow, args=[name]) for name in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert graph.finished
    assert len(done) == len(set(done)) == threads * each * 2
