"""Cases about cancelling."""

from __future__ import annotations

import asyncio

from headrace.pool.executor.executor import CancelSupport
from headrace.pool.executor.handle import CancelResult
from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._needs import (
    beside_the_loop,
    cancels,
    cancels_nothing,
    cooperates,
    forces,
    streams,
    two_at_once,
)
from headrace.testing.executors._setting import Setting, expect, expect_equal, expect_error
from headrace.testing.executors.case import CaseList

CASES = CaseList()


@CASES.case()
async def cancel_at_once_ends_once(setting: Setting) -> None:
    """A task that is cancelled right after its submission has one outcome; without `called` it has not begun."""
    for number in range(10):
        handle, recorder = setting.submit(setting.gated(f"begun {number}"))
        handle.cancel()
        if setting.capabilities.cancel_support is CancelSupport.NONE:
            setting.open()
        await setting.ended(recorder)
        if "called" not in recorder.events:
            expect_error(recorder.last, asyncio.CancelledError)
            expect(not setting.has(f"begun {number}"), "the task began, and was not reported")
    await setting.lives()


@CASES.case(cancels, two_at_once)
async def cancelled_task_in_a_queue_never_begins(setting: Setting) -> None:
    """Of as many tasks as there are slots, all are cancelled that have not begun: these never begin."""
    slots = min(setting.capabilities.slots or 8, 64)
    submitted = [setting.submit(setting.gated(f"begun {number}")) for number in range(slots)]
    await setting.until(lambda: any("called" in one.events for _, one in submitted), "a call")
    queued = [number for number, (_, one) in enumerate(submitted) if not one.calls]
    for number in queued:
        submitted[number][0].cancel()
    await setting.ended(*(submitted[number][1] for number in queued))
    setting.open()
    await setting.ended(*(recorder for _, recorder in submitted))
    for number, (_, recorder) in enumerate(submitted):
        if "called" in recorder.events:
            continue
        expect_equal(recorder.events, ["raised"], "the events of a task that has not begun")
        expect(not setting.has(f"begun {number}"), "a task began, and was not reported")


@CASES.case(cancels, streams)
async def cancelled_async_function_ends_once(setting: Setting) -> None:
    """A running async function that is cancelled ends with `CancelledError`."""
    handle, recorder = setting.submit(setting.gated("begun"))
    await setting.marked("begun")
    for _ in range(3):
        handle.cancel()
    await setting.ended(recorder)
    expect_equal(recorder.events, ["called", "raised"], "the events")
    expect_error(recorder.last, asyncio.CancelledError)
    await setting.lives()


@CASES.case(cooperates, streams)
async def outcome_follows_the_clean_up(setting: Setting) -> None:
    """A cancelled task is reported when its clean-up has ended, and not before."""
    begun, cleaning, gate = map(setting.path, ("begun", "cleaning", "gate"))
    handle, recorder = setting.submit(Task(_tasks.clean_up, begun, cleaning, gate))
    await setting.marked("begun")
    expect(handle.cancel() is not CancelResult.STOPPED, "cancel() returned STOPPED")
    await setting.marked("cleaning")
    await setting.settle_down()
    expect(not recorder.ended, "the outcome was reported during the clean-up")
    setting.open()
    await setting.ended(recorder)
    expect_error(recorder.last, asyncio.CancelledError)


@CASES.case(cancels, streams)
async def swallowed_cancellation_has_one_outcome(setting: Setting) -> None:
    """A task that ignores a cancellation returns its value, unless the executor ends it by force."""
    handle, recorder = setting.submit(
        Task(_tasks.swallow, setting.path("begun"), setting.path("gate"))
    )
    await setting.marked("begun")
    handle.cancel()
    if setting.capabilities.cancel_support is CancelSupport.COOPERATIVE:
        await setting.marked("begun.ignored")
    setting.open()
    await setting.ended(recorder)
    if setting.capabilities.cancel_support is CancelSupport.COOPERATIVE:
        expect_equal(recorder.calls[1:], [("returned", "ignored")], "the outcome")
    elif recorder.events[-1] == "raised":
        expect_error(recorder.last, asyncio.CancelledError)
    await setting.lives()


@CASES.case(forces, streams)
async def task_that_refuses_is_ended_by_force(setting: Setting) -> None:
    """A task that ignores all cancellations is ended by force."""
    handle, recorder = setting.submit(
        Task(_tasks.swallow, setting.path("begun"), setting.path("gate"))
    )
    await setting.marked("begun")
    handle.cancel()
    await setting.ended(recorder)
    expect_equal(recorder.events, ["called", "raised"], "the events")
    expect_error(recorder.last, asyncio.CancelledError)
    await setting.lives()


@CASES.case(forces, beside_the_loop)
async def forced_end_is_a_real_end(setting: Setting) -> None:
    """When the outcome of a cancelled plain function is reported, no part of it runs."""
    handle, recorder = setting.submit(Task(_tasks.beat, setting.path("log"), setting.path("gate")))
    await setting.until(lambda: setting.lines("log"), "a beat of the task")
    handle.cancel()
    await setting.ended(recorder)
    beats = len(setting.lines("log"))
    expect_error(recorder.last, asyncio.CancelledError)
    await setting.lives()
    # Time for a task that still runs to show it.
    await asyncio.sleep(0.05)
    expect_equal(len(setting.lines("log")), beats, "the beats of the task after its outcome")


@CASES.case(beside_the_loop)
async def cancelled_plain_function_has_one_outcome(setting: Setting) -> None:
    """A running plain function ends by force, or runs to its end."""
    handle, recorder = setting.submit(
        Task(_tasks.wait, setting.path("begun"), setting.path("gate"))
    )
    await setting.marked("begun")
    handle.cancel()
    if setting.capabilities.cancel_support is not CancelSupport.FORCE:
        await setting.settle_down()
        setting.open()
    await setting.ended(recorder)
    is_cancelled = isinstance(recorder.last, asyncio.CancelledError)
    expect(is_cancelled or recorder.calls[1:] == [("returned", True)], f"found {recorder.calls}")
    await setting.lives()


@CASES.case(cancels_nothing)
async def executor_without_cancellation_runs_to_the_end(setting: Setting) -> None:
    """An executor that cannot cancel says that the task is running, until it has ended."""
    handle, recorder = setting.submit(setting.gated("begun"))
    await setting.marked("begun")
    expect_equal(handle.cancel(), CancelResult.RUNNING, "the result of cancel()")
    await setting.settle_down()
    expect(not recorder.ended, "the outcome was reported before the end")
    setting.open()
    await setting.ended(recorder)
    expect_equal(recorder.calls, [("called", None), ("returned", True)], "the events")


@CASES.case()
async def cancel_after_the_end_does_nothing(setting: Setting) -> None:
    """Cancelling a task that has ended returns STOPPED, and reports nothing."""
    handle, recorder = setting.submit(Task(_tasks.double, 1))
    await setting.ended(recorder)
    expect_equal(handle.cancel(), CancelResult.STOPPED, "the result of cancel()")
    await setting.lives()
    expect_equal(recorder.events, ["called", "returned"], "the events")


@CASES.case(cancels, two_at_once)
async def cancel_leaves_other_tasks_alone(setting: Setting) -> None:
    """Cancelling one task has no effect on another one that runs."""
    _, other = setting.submit(setting.gated("other", "gate"))
    handle, recorder = setting.submit(setting.gated("begun", "never"))
    await setting.marked("other")
    handle.cancel()
    await setting.ended(recorder)
    expect(not other.ended, "the other task has ended, too")
    setting.open()
    await setting.ended(other)
    expect_equal(other.calls, [("called", None), ("returned", True)], "the events of the other")
