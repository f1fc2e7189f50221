"""Cases about contexts and leases."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from headrace.capacity.node import CapacitySource
from headrace.task.task import Task
from headrace.testing.executors import _needs, _tasks
from headrace.testing.executors._needs import local, remote
from headrace.testing.executors._setting import Setting, expect, expect_equal
from headrace.testing.executors.case import CaseList

CASES = CaseList()


def _task_in_context() -> Task[Any]:
    """Return a task whose context has values of both variables."""

    def make() -> Task[Any]:
        _tasks.CARRIED.set("carried")
        _tasks.LEFT.set("left")
        return Task[Any](_tasks.read_context)

    return copy_context().run(make)


@CASES.case(local)
async def work_runs_in_a_copy_of_the_context(setting: Setting) -> None:
    """Each call sees the context of the task, and changes only its own copy."""
    task = _task_in_context()
    for _ in range(2):
        recorder = await setting.outcome(task)
        expect_equal(recorder.last, ("carried", "left"), "the values of the variables")
    expect_equal(_tasks.CARRIED.get(), "nowhere", "the value outside of the task")


@CASES.case(remote)
async def only_named_variables_travel(setting: Setting) -> None:
    """A worker calls the task in a new context with the variables of `carry`, and keeps no change of it."""
    executor = setting.make(carry=(_tasks.CARRIED,))
    await executor.start()
    for task, expected in [
        (_task_in_context(), ("carried", "nowhere")),
        (Task(_tasks.read_context), ("nowhere", "nowhere")),
        (_task_in_context(), ("carried", "nowhere")),
    ]:
        found = await setting.pool([task], executor=executor).run()
        expect_equal(found, [expected], "the values of the variables")


@CASES.case()
async def lease_can_be_settled(setting: Setting) -> None:
    """`current_lease().settle()` in a task changes the amounts that it holds, while it runs."""
    is_async = _needs.streams(setting.capabilities)
    function = _tasks.settle_and_wait_async if is_async else _tasks.settle_and_wait
    capacity = CapacitySource({"slots": 2, "tokens": 100})
    arguments = setting.path("settled"), setting.path("gate"), {"tokens": 30.0}
    task = Task[Any](function, *arguments, cost={"slots": 1, "tokens": 60})
    async with setting.pool([task], capacity).run_tasks() as progress:
        await setting.marked("settled")
        await setting.until(
            lambda: capacity.snapshot().held == {"slots": 1, "tokens": 30}, "the settled amounts"
        )
        setting.open()
        setting.waits_for = "the event of the task"
        found = [event.value async for event in progress]
    expect_equal(found, [True], "the results")
    expect_equal(capacity.snapshot().held, {"slots": 0, "tokens": 0}, "the capacity that is held")


@CASES.case(remote)
async def remote_lease_cannot_be_suspended(setting: Setting) -> None:
    """`current_lease().suspended()` raises a `RuntimeError` in a remote task."""
    task = Task(_tasks.suspend, cost={"slots": 1})
    [found] = await setting.pool([task], CapacitySource({"slots": 2})).run()
    expect("suspended" in found, f"the error was {found!r}")


@CASES.case()
async def wrong_settlement_is_no_lost_work(setting: Setting) -> None:
    """A task that settles a resource that it does not hold has one outcome, and the executor lives on."""
    capacity = CapacitySource({"slots": 2, "tokens": 100})
    task = Task(_tasks.settle, setting.path("settled"), {"dollars": 1.0}, cost={"slots": 1})
    runner = setting.pool([task], capacity)
    events = await setting.events(runner)
    expect_equal(len(events), 1, "the number of events")
    await setting.lives()
