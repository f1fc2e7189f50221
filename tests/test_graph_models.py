"""Random operations on random graphs, compared with a model that applies the rules naively.

A failure prints a blob: put `@reproduce_failure(...)` with it over the test to run it again.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from headrace import (
    CycleError,
    DependencyGraph,
    DependencySourceObj,
    DependencyState,
    PriorityDependencySourceObj,
    PrioritySourceObj,
)
from tests.graph_support import ABORTED, COMPLETED, FAILED, PENDING, READY, RUNNING
from tests.test_pull_models import PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLED = {COMPLETED, FAILED, ABORTED}


class CycleInModelError(ValueError):
    """The model found a cycle."""


@dataclass
class Model:
    """A graph that searches all its nodes after each step."""

    needs: dict[int, list[int]] = field(default_factory=dict)
    states: dict[int, DependencyState] = field(default_factory=dict)
    errors: dict[int, BaseException | None] = field(default_factory=dict)
    causes: dict[int, int | None] = field(default_factory=dict)

    def below(self, key: int, needs: dict[int, list[int]]) -> set[int]:
        """Return all nodes that a node depends on, directly or indirectly."""
        found: set[int] = set()
        left = list(needs.get(key, []))
        while left:
            need = left.pop()
            if need not in found:
                found.add(need)
                left += needs.get(need, [])
        return found

    def add_all(self, batch: list[tuple[int, list[int]]]) -> None:
        after = dict(self.needs)
        for key, needs in batch:
            if key in after:
                raise ValueError(key)
            after[key] = needs
        if any(need not in after for _, needs in batch for need in needs):
            raise ValueError(batch)
        if any(key in self.below(key, after) for key, _ in batch):
            raise CycleInModelError
        self.needs = after
        for key, _ in batch:
            self.states[key], self.errors[key], self.causes[key] = PENDING, None, None
        self.settle()

    def depend(self, key: int, needs: list[int]) -> None:
        if key not in self.states:
            raise ValueError(key)
        if self.states[key] is ABORTED:
            return
        if self.states[key] not in (PENDING, READY):
            raise RuntimeError(key)
        if any(need not in self.states for need in needs):
            raise ValueError(needs)
        after = {**self.needs, key: [*self.needs[key], *needs]}
        if key in self.below(key, after):
            raise CycleInModelError
        self.needs = after
        self.states[key] = PENDING
        self.settle()

    def take(self, key: int) -> None:
        if key not in self.states:
            raise ValueError(key)
        if self.states[key] is not READY:
            raise RuntimeError(key)
        self.states[key] = RUNNING

    def end(self, key: int, state: DependencyState, error: BaseException | None) -> None:
        if key not in self.states:
            raise ValueError(key)
        if state is ABORTED and self.states[key] in SETTLED:
            return
        if state is not ABORTED:
            if self.states[key] is ABORTED:
                return
            if self.states[key] not in (READY, RUNNING):
                raise RuntimeError(key)
        self.states[key] = state
        if state is not COMPLETED:
            self.errors[key], self.causes[key] = error, key
        self.settle()

    def settle(self) -> None:
        """Apply the rules until nothing changes."""
        while True:
            before = dict(self.states)
            for key, needs in self.needs.items():
                if self.states[key] is not PENDING:
                    continue
                if any(self.states[need] in (FAILED, ABORTED) for need in needs):
                    self.states[key] = ABORTED
                elif all(self.states[need] is COMPLETED for need in needs):
                    self.states[key] = READY
            if self.states == before:
                return

    def is_reason(self, key: Any, cause: Any, error: BaseException | None) -> bool:
        """Return whether `cause` and `error` can explain the failure or abort of a node."""
        if self.causes[key] is not None:
            return (cause, error) == (key, self.errors[key])
        return (
            cause in self.below(key, self.needs)
            and self.causes[cause] == cause
            and self.errors[cause] is error
        )


KEYS = st.integers(0, 11)
BATCHES = st.lists(st.tuples(KEYS, st.lists(KEYS, max_size=3)), max_size=5)
STEPS = st.one_of(
    st.tuples(st.just("add_all"), BATCHES),
    st.tuples(st.just("add_all"), BATCHES),
    st.tuples(st.just("depend"), st.tuples(KEYS, st.lists(KEYS, max_size=3))),
    st.tuples(st.sampled_from(["take", "complete", "complete", "fail", "abort"]), KEYS),
)


def outcome(step: Callable[[], Any]) -> str:
    """Return the outcome of a call as a word."""
    try:
        step()
    except (CycleInModelError, CycleError):
        return "cycle"
    except (ValueError, RuntimeError) as error:
        return type(error).__name__
    return "done"


@PROFILE
@given(st.lists(STEPS, max_size=30))
def test_random_operations_match_the_model(steps: list[tuple[str, Any]]) -> None:
    graph, model = DependencyGraph(), Model()
    notified: list[Any] = []
    ends: list[None] = []
    graph.on_ready(notified.append)
    graph.on_finished(lambda: ends.append(None))
    for name, argument in steps:
        error = ValueError(name)
        real: Callable[[], Any]
        ideal: Callable[[], Any]
        before, was_finished = dict(model.states), graph.finished
        notified.clear()
        ends.clear()
        match name:
            case "add_all":
                real = partial(graph.add_all, [(key, [key], needs) for key, needs in argument])
                ideal = partial(model.add_all, argument)
            case "depend":
                real = partial(graph.depend, argument[0], *argument[1])
                ideal = partial(model.depend, *argument)
            case "take":
                real, ideal = partial(graph.take, argument), partial(model.take, argument)
            case "complete":
                real = partial(graph.complete, argument, argument)
                ideal = partial(model.end, argument, COMPLETED, None)
            case "fail":
                real = partial(graph.fail, argument, error)
                ideal = partial(model.end, argument, FAILED, error)
            case _:
                real = partial(graph.abort, argument, error)
                ideal = partial(model.end, argument, ABORTED, error)
        assert outcome(real) == outcome(ideal), (name, argument)
        nodes = graph.nodes()
        assert {node.key: node.state for node in nodes} == model.states
        for node in nodes:
            key: Any = node.key
            assert node.depends_on == tuple(dict.fromkeys(model.needs[key]))
            assert node.value == (node.key if node.state is COMPLETED else None)
            if node.state in (FAILED, ABORTED):
                assert model.is_reason(node.key, node.caused_by, node.error)
            else:
                assert (node.caused_by, node.error) == (None, None)
        # The callback ran once for each node that became ready.
        became_ready = [
            key for key, state in model.states.items() if state is READY != before.get(key, PENDING)
        ]
        assert sorted(notified) == sorted(became_ready)
        unsettled = sum(state not in SETTLED for state in model.states.values())
        assert graph.finished == (unsettled == 0)
        if unsettled or model.states == before:
            assert not ends
        elif not was_finished:
            assert len(ends) == 1


@PROFILE
@given(st.integers(0, 2**32), st.integers(0, 25))
def test_each_node_is_yielded_once_to_any_consumers(seed: int, size: int) -> None:
    """Run several consumers over several sources. Nodes end at random, and some add nodes while they run."""
    rng = random.Random(seed)

    async def main() -> None:
        graph = DependencyGraph()
        needs = {
            n: sorted({rng.randrange(n) for _ in range(rng.randrange(3))} if n else ())
            for n in range(size)
        }
        batch = [(n, [n], needs[n]) for n in range(size)]
        rng.shuffle(batch)
        graph.add_all(batch)
        yielded: list[int] = []
        completed: set[int] = set()

        async def consume(source: DependencySourceObj) -> None:
            async for (n,) in source:
                assert set(needs[n]) <= completed
                yielded.append(n)
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                if len(needs) < 2 * size and rng.random() < 0.5:
                    new = len(needs)
                    needs[new] = [n]
                    graph.add(new, [new], [n])
                match rng.randrange(6):
                    case 0:
                        source.failed(graph[n].item, ValueError(n))
                    case 1:
                        graph.abort(n)
                        source.completed(graph[n].item, n)
                    case _:
                        completed.add(n)
                        source.completed(graph[n].item, n)

        sources = [DependencySourceObj(graph), PriorityDependencySourceObj(graph)]
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for n in range(4):
                group.create_task(consume(sources[n % 2]))
        assert graph.finished
        assert graph.closed
        assert len(yielded) == len(set(yielded))
        for node in graph.nodes():
            assert (node.key in yielded) == (node.caused_by in (None, node.key))
            assert (node.state is COMPLETED) == (node.key in completed)

    asyncio.run(main())


@dataclass
class Clock:
    """A clock that the test advances."""

    time: float = 0.0

    def __call__(self) -> float:
        return self.time


ARRIVALS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(-3, 3)),
        st.tuples(st.just("wait"), st.integers(0, 20)),
        st.tuples(st.just("pull"), st.just(0)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", ["pushed", "graph"])
@PROFILE
@given(ARRIVALS, st.sampled_from([0, 1, 5, 1e6]))
def test_priority_order_includes_aging(
    kind: str, steps: list[tuple[str, int]], ageing: float
) -> None:
    async def main() -> None:
        clock = Clock()
        graph = DependencyGraph(keep_open=True)
        pushed = PrioritySourceObj[tuple[int, int]](
            priority=lambda item: item[1], ageing=ageing, clock=clock
        )
        from_graph = PriorityDependencySourceObj(
            graph, priority=lambda item: item[1], ageing=ageing, clock=clock
        )
        source = pushed if kind == "pushed" else from_graph
        waiting: list[tuple[float, int, tuple[int, int]]] = []
        number = 0

        async def pull() -> None:
            assert await anext(source) == heapq.heappop(waiting)[2]

        # The source follows the graph from its first pull on.
        for name, amount in [("push", 0), ("pull", 0), *steps]:
            match name:
                case "push":
                    number += 1
                    item = (number, amount)
                    heapq.heappush(waiting, (clock.time - amount * ageing, number, item))
                    if kind == "pushed":
                        pushed.sink.next_nowait(item)
                    else:
                        graph.add(number, item)
                case "wait":
                    clock.time += amount
                case _:
                    if waiting:
                        await pull()
        while waiting:
            await pull()

    asyncio.run(main())
