"""What a pool calls besides its tasks may raise anything, and the run goes on or ends as it should."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    DependencyGraph,
    DependencySourceObj,
    DependencyState,
    HierarchicalTaskPoolRunner,
    PriorityDependencySourceObj,
    Retry,
    SourceBufferObj,
    Task,
)
from tests.pool_support import envelopes, one, pool, summarize

if TYPE_CHECKING:
    from collections.abc import Callable


class Raises:
    """Raises what it was given, with whatever it is called."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any) -> Any:
        raise self.error


class Reporting(SourceBufferObj[Any]):
    """A source of two tasks that is told of their ends by what raises."""

    def __init__(self, error: BaseException, first: Callable[[], Any]) -> None:
        super().__init__([first, one])
        self.completed = self.failed = Raises(error)


async def fails() -> None:
    raise OSError("no disk")


def case(name: str, error: BaseException) -> HierarchicalTaskPoolRunner:
    """A runner of two tasks, of which the first has a hook that raises."""
    hook = Raises(error)
    if name == "on_complete":
        return pool([Task(one, on_complete=hook), one])
    if name == "on_error":
        return pool([Task(fails, on_error=hook), one])
    if name == "on":
        return pool([Task(fails, retry=Retry(on=hook)), one])
    if name == "retry_after":
        return pool([Task(fails, retry=Retry(retry_after=hook)), one])
    if name == "completed":
        return pool(Reporting(error, one))
    if name == "failed":
        return pool(Reporting(error, fails))
    graph = DependencyGraph()
    graph.add("a", one)
    graph.add("b", one, ["a"])
    graph.on_ready(lambda key: hook() if key == "b" else None)
    return pool(DependencySourceObj(graph))


TOLD = ["on_complete", "on_error", "completed", "failed", "on_ready"]
"""Those whose errors go to the loop's exception handler."""


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, ValueError])
async def test_law_4_hook_that_raises_whatever_costs_its_task_nothing(
    name: str, error: type[BaseException]
) -> None:
    heard: list[BaseException] = []
    raised = error("of a hook")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
    runner = case(name, raised)
    async with asyncio.timeout(10):
        found = await envelopes(runner)
    assert len(found) == 2
    assert runner.capacity.held == 0
    assert raised in heard
    assert set(heard) == {raised}


@pytest.mark.parametrize("name", ["on", "retry_after"])
@pytest.mark.parametrize("error", [asyncio.CancelledError, ValueError])
async def test_law_4_what_says_whether_to_retry_may_raise_whatever(
    name: str, error: type[BaseException]
) -> None:
    raised = error("of a hook")
    runner = case(name, raised)
    async with asyncio.timeout(10):
        found = await envelopes(runner)
    assert sorted(summarize(found), key=str) == [1, error.__name__]
    [failed] = [envelope.error for envelope in found if envelope.error is not None]
    assert failed is raised
    assert isinstance(failed.__cause__, OSError)


@pytest.mark.parametrize("name", [*TOLD, "on", "retry_after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_law_4_hook_that_ends_the_program_has_everything_closed_first(
    name: str, error: type[BaseException]
) -> None:
    raised = error("of a hook")
    runner = case(name, raised)
    caught: BaseException | None = None
    async with asyncio.timeout(10):
        try:
            await envelopes(runner)
        except (KeyboardInterrupt, SystemExit) as told:
            caught = told
    assert caught is raised
    assert runner.capacity.held == 0
    assert runner.snapshot().running == 0


async def test_law_4_priority_that_raises_whatever_fails_its_node() -> None:
    graph = DependencyGraph()
    graph.add("a", one)
    graph.add("b", one)
    raised = asyncio.CancelledError("of a hook")
    first = graph["a"].item

    def priority(item: Any) -> int:
        if graph.counts()[DependencyState.FAILED] == 0 and item is first:
            raise raised
        return 0

    source = PriorityDependencySourceObj(graph, priority=priority)
    runner = HierarchicalTaskPoolRunner(source, CapacitySource(2))
    async with asyncio.timeout(10), runner.run_tasks() as progress:
        with pytest.raises(asyncio.CancelledError):
            await anext(source)
        assert [envelope.value async for envelope in progress] == [1]
    assert graph["a"].error is raised
    assert graph.finished


def test_every_callback_of_a_graph_is_told_whatever_another_raises() -> None:
    for error in (asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()):
        graph = DependencyGraph()
        told: list[Any] = []
        graph.on_ready(Raises(error))
        graph.on_ready(told.append)
        with pytest.raises(type(error)):
            graph.add("a", one)
        assert told == ["a"]
        # And whoever comes next is told.
        with pytest.raises(type(error)):
            graph.add("b", one)
        assert told == ["a", "b"]
