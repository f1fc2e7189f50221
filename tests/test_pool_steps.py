"""The steps that a loop owes to new asyncio tasks, before 3.12: it is asked for all of a turn at once, and of nothing else."""

from __future__ import annotations

import asyncio
import sys
from asyncio import tasks
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from headrace.testing import shuffled_loop
from tests.pool_support import ALL_THE_LONG_WAY, envelopes, pool, shown

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.loops("asyncio"),
    pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio tasks begin at once there"),
    pytest.mark.skipif(ALL_THE_LONG_WAY, reason="it is the core that begins them ahead"),
]

NAME = "call_soon"


def while_tasks_are_made(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[asyncio.Task[Any]], object]
) -> None:
    """Has something done inside of each constructor of an asyncio task from now on, as a finaliser might."""
    known: Any = tasks._all_tasks  # type: ignore[attr-defined]
    add = known.add

    def added(task: asyncio.Task[Any]) -> None:
        add(task)
        action(task)

    monkeypatch.setattr(known, "add", added)


async def test_steps_of_a_turn_take_one_handle() -> None:
    loop = asyncio.get_running_loop()
    handles: list[int] = []

    async def work() -> int:
        before = len(loop._ready)  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        handles.append(before)
        return 1

    assert shown(await envelopes(pool([work] * 50, 50))) == [1] * 50
    # All of them began in one turn, and none found more handles than the first.
    assert len(set(handles)) == 1


async def test_loop_has_its_own_call_soon_whenever_a_task_runs() -> None:
    loop = asyncio.get_running_loop()
    found: list[bool] = []

    async def work() -> None:
        found.append(NAME in vars(loop))
        await asyncio.sleep(0)
        found.append(NAME in vars(loop))

    def fails() -> None:
        found.append(NAME in vars(loop))
        raise ValueError

    await envelopes(pool([work, fails] * 20, 8))
    assert NAME not in vars(loop)
    assert found == [False] * 60


async def test_whatever_else_is_called_soon_meanwhile_goes_to_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    where: ContextVar[str] = ContextVar("where", default="nowhere")
    elsewhere = copy_context()
    elsewhere.run(where.set, "elsewhere")
    called: list[str] = []
    kept = 0

    def call(word: str) -> None:
        called.append(f"{word} {where.get()}")

    def action(task: asyncio.Task[Any]) -> None:
        nonlocal kept
        if "task" in task.get_name():
            kept += NAME in vars(loop)
            loop.call_soon(call, "here")
            handle = loop.call_soon(call, "there", context=elsewhere)
            loop.call_soon(call, "never").cancel()
            assert isinstance(handle, asyncio.Handle)

    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    while_tasks_are_made(monkeypatch, action)
    assert shown(await envelopes(pool([work] * 3))) == [1] * 3
    await asyncio.sleep(0)
    assert kept == 3
    assert called == ["here nowhere", "there elsewhere"] * 3


def test_a_loop_that_shuffles_has_each_step_to_shuffle(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []

    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    async def run() -> None:
        loop = asyncio.get_running_loop()
        while_tasks_are_made(monkeypatch, lambda _: found.append(NAME in vars(loop)))
        assert shown(await envelopes(pool([work] * 3))) == [1] * 3

    with asyncio.Runner(loop_factory=shuffled_loop(1)) as runner:
        runner.run(run())
    assert len(found) >= 3
    assert not any(found)


async def test_call_soon_that_somebody_else_replaced_is_left_alone() -> None:
    loop: Any = asyncio.get_running_loop()
    asked: list[str] = []
    own = loop.call_soon

    def theirs(callback: Any, *args: Any, context: Any = None) -> Any:
        # The feeder is stepped now and then too.
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task) and "task" in owner.get_name():
            asked.append(owner.get_name())
        return own(callback, *args, context=context)

    async def replaces() -> int:
        loop.call_soon = theirs
        return 1

    async def work() -> int:
        return 2

    runner = pool([replaces, work, work], name="mill")
    try:
        assert shown(await envelopes(runner)) == [1, 2, 2]
        assert loop.call_soon is theirs
    finally:
        del loop.call_soon
    assert asked == ["mill: task 2", "mill: task 3"]


async def test_step_that_cannot_be_taken_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    heard: list[str] = []
    loop.set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
    made: list[asyncio.Task[Any]] = []
    steps: list[Any] = []

    def action(task: asyncio.Task[Any]) -> None:
        if "task" in task.get_name():
            made.append(task)
            if len(made) == 2:
                keep = vars(loop)[NAME]
                # A step that is taken in a context that is entered already, that of the callback that takes it.
                keep(steps[0], context=progress._run.context)

    async def spare() -> None:
        pass

    class Catches:
        def get_debug(self) -> bool:
            return False

        def call_soon(self, callback: Any, **_: Any) -> None:
            steps.append(callback)

    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    unstarted = spare()
    begun = asyncio.Task(unstarted, loop=Catches())  # type: ignore[arg-type]
    while_tasks_are_made(monkeypatch, action)
    async with pool([work] * 4).run_tasks() as progress:
        assert shown([envelope async for envelope in progress]) == [1] * 4
    loop.set_exception_handler(None)
    assert not begun.done()
    unstarted.close()
    assert [task.done() for task in made] == [True] * 4
    assert len(heard) == 1
    assert "is already entered" in heard[0]
