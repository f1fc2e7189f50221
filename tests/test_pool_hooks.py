"""The user's callbacks of a pool may raise any error; the run continues or ends correctly."""

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
    """Raises the given error, whatever its arguments."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any) -> Any:
        raise self.error


class Reporting(SourceBufferObj[Any]):
    """A source of two tasks whose `completed` and `failed` raise an error."""

    def __init__(self, error: BaseException, first: Callable[[], Any]) -> None:
        super().__init__([first, one])
        self.completed = self.failed = Raises(error)


async def fails() -> None:
    raise OSError("no disk")


def case(name: str, error: BaseException) -> HierarchicalTaskPoolRunner:
    """Create a runner of two tasks, the first of which has a callback that raises."""
    hook = Raises(error)
    if name == "on_complete":
        return pool([Task(one, on_complete=hook), one])
    if name == "on_error":
        return pool([Task(fails, on_error=hook), one])
    if name == "on":
        return pool([Task(fails, retry=Retry(on=hook)), one])
    if name == "classify":
        return pool([Task(fails, retry=Retry(classify=hook)), one])
    if name == "completed":
        return pool(Reporting(error, one))
    if name == "failed":
        return pool(Reporting(error, fails))
    graph = DependencyGraph()
    graph.add("a", one)
    graph.add("b", one, ["a"])
    graph.on_ready(lambda key: hook() if key == "b" else None)
    return pool(DependencySourceObj(graph))


NOTIFIED = ["on_complete", "on_error", "completed", "failed", "on_ready"]
"""The callbacks whose errors go to the loop's exception handler."""


@pytest.mark.parametrize("name", NOTIFIED)
@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, ValueError])
async def test_law_4_raising_callback_costs_its_task_nothing(
    name: str, error: type[BaseException]
) -> None:
    reported: list[BaseException] = []
    raised = error("of a hook")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    runner = case(name, raised)
    async with asyncio.timeout(10):
        found = await envelopes(runner)
    assert len(found) == 2
    assert runner.capacity.held == 0
    assert raised in reported
    assert set(reported) == {raised}


@pytest.mark.parametrize("name", ["on", "classify"])
@pytest.mark.parametrize("error", [asyncio.CancelledError, ValueError])
async def test_law_4_raising_retry_callback_fails_its_task(
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


@pytest.mark.parametrize("name", [*NOTIFIED, "on", "classify"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_law_4_exit_exception_of_callback_closes_run(
    name: str, error: type[BaseException]
) -> None:
    raised = error("of a hook")
    runner = case(name, raised)
    caught: BaseException | None = None
    async with asyncio.timeout(10):
        try:
            await envelopes(runner)
        except (KeyboardInterrupt, SystemExit) as received:
            caught = received
    assert caught is raised
    assert runner.capacity.held == 0
    assert runner.snapshot().running == 0


async def test_law_4_raising_priority_fails_its_node() -> None:
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


def test_raising_callback_of_graph_stops_no_other() -> None:
    for error in (asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()):
        graph = DependencyGraph()
        received: list[Any] = []
        graph.on_ready(Raises(error))
        graph.on_ready(received.append)
        with pytest.raises(type(error)):
            graph.add("a", one)
        assert received == ["a"]
        # The same applies to the next node.
        with pytest.raises(type(error)):
            graph.add("b", one)
        assert received == ["a", "b"]
