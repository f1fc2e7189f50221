"""Cases about tasks that yield values."""

from __future__ import annotations

import asyncio

from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._needs import (
    cancels,
    cooperates,
    remote,
    streams,
    two_at_once,
)
from headrace.testing.executors._setting import Setting, expect, expect_equal, expect_error
from headrace.testing.executors.case import CaseList

CASES = CaseList()


@CASES.case(streams)
async def values_precede_the_final_one(setting: Setting) -> None:
    """The listener gets the yielded values in their order, and then that of `Final`."""
    recorder = await setting.outcome(Task(_tasks.count, 5))
    expected = [("called", None), *(("emit", number) for number in range(5)), ("returned", "all")]
    expect_equal(recorder.calls, expected, "the events")


@CASES.case(streams)
async def stream_without_final_returns_none(setting: Setting) -> None:
    """A task that yields no `Final` has the result None, also if it yields nothing."""
    for number in (0, 3):
        recorder = await setting.outcome(Task(_tasks.count_plainly, 0, number))
        expect_equal(recorder.values, list(range(number)), "the values")
        expect_equal(recorder.calls[-1], ("returned", None), "the last event")


@CASES.case(streams)
async def long_stream_keeps_its_order(setting: Setting) -> None:
    """Each of 2,000 values arrives once and in order."""
    recorder = await setting.outcome(Task(_tasks.count_plainly, 0, 2000))
    expect_equal(recorder.values, list(range(2000)), "the values")


@CASES.case(streams, two_at_once)
async def streams_are_kept_apart(setting: Setting) -> None:
    """Two tasks that yield at the same time have their own values, each in order."""
    tasks = [Task(_tasks.count_plainly, start, start + 200) for start in (0, 1000)]
    recorders = [setting.submit(task)[1] for task in tasks]
    await setting.ended(*recorders)
    for start, recorder in zip((0, 1000), recorders, strict=True):
        expect_equal(recorder.values, list(range(start, start + 200)), "the values")


@CASES.case(streams)
async def error_follows_the_values(setting: Setting) -> None:
    """Values that were yielded before an error arrive before it."""
    recorder = await setting.outcome(Task(_tasks.yield_then_fail))
    expect_equal(recorder.events, ["called", "emit", "emit", "raised"], "the events")
    expect_error(recorder.last, ValueError)
    await setting.lives()


@CASES.case(streams)
async def value_after_the_final_one_is_an_error(setting: Setting) -> None:
    """A task that yields after its `Final` fails with a `RuntimeError`."""
    recorder = await setting.outcome(Task(_tasks.yield_after_final))
    expect_equal(recorder.events, ["called", "raised"], "the events")
    expect_error(recorder.last, RuntimeError)
    await setting.lives()


@CASES.case(streams, remote)
async def unsendable_value_is_an_error(setting: Setting) -> None:
    """A yielded value that does not pickle is an error of the task, and the worker lives on."""
    recorder = await setting.outcome(Task(_tasks.yield_unsendable))
    expect_equal(recorder.events, ["called", "emit", "raised"], "the events")
    expect_error(recorder.last, Exception)
    await setting.lives()


# Back-pressure.


@CASES.case(streams)
async def value_waits_until_the_previous_one_is_accepted(setting: Setting) -> None:
    """No value is emitted before the awaitable of the previous one is done."""
    room = asyncio.Event()
    _, recorder = setting.submit(Task(_tasks.count, 5), room.wait)
    await setting.until(lambda: recorder.values, "the first value")
    await setting.settle_down()
    expect_equal(recorder.values, [0], "the values without room")
    room.set()
    await setting.ended(recorder)
    expect_equal(recorder.values, list(range(5)), "the values")
    expect_equal(recorder.last, "all", "the result")


@CASES.case(streams)
async def stream_stays_within_the_window(setting: Setting) -> None:
    """A task has never yielded more values than the window that were not accepted."""
    window = setting.capabilities.window
    accepted = most = 0

    async def accept() -> None:
        nonlocal accepted, most
        # Time for the worker to go too far.
        for _ in range(3):
            await asyncio.sleep(0.001)
            most = max(most, len(setting.lines("log")) - accepted)
        accepted += 1

    _, recorder = setting.submit(Task(_tasks.count, 20 + window, setting.path("log")), accept)
    await setting.ended(recorder)
    expect_equal(recorder.values, list(range(20 + window)), "the values")
    expect(most <= window, f"{most} values were not accepted at a time; the window is {window}")


@CASES.case(streams, cancels)
async def listener_may_end_the_task(setting: Setting) -> None:
    """A task ends if the awaitable of `emit` raises `CancelledError`."""

    async def refuse() -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    _, recorder = setting.submit(Task(_tasks.count, 1000), refuse)
    await setting.ended(recorder)
    expect_error(recorder.last, asyncio.CancelledError)
    await setting.lives()


@CASES.case(streams, cancels)
async def cancelled_stream_ends_once(setting: Setting) -> None:
    """A task that waits for room can be cancelled, and then yields no more."""
    handle, recorder = setting.submit(Task(_tasks.count, 50), asyncio.Event().wait)
    await setting.until(lambda: recorder.values, "the first value")
    handle.cancel()
    await setting.ended(recorder)
    expect_equal(recorder.events, ["called", "emit", "raised"], "the events")
    expect_error(recorder.last, asyncio.CancelledError)
    await setting.lives()


@CASES.case(streams, cooperates)
async def cancelled_stream_is_closed(setting: Setting) -> None:
    """The clean-up of a cancelled async generator has run when its outcome is reported."""
    handle, recorder = setting.submit(
        Task(_tasks.count, 50, setting.path("log")), asyncio.Event().wait
    )
    await setting.until(lambda: recorder.values, "the first value")
    handle.cancel()
    await setting.ended(recorder)
    expect(setting.has("log.closed"), "the generator was not closed")


@CASES.case(streams)
async def submission_can_be_iterated(setting: Setting) -> None:
    """Without a listener, the values can be iterated; awaiting the result discards the others."""
    for number in (0, 1, 3):
        setting.waits_for = f"{number} values of a submission, and its result"
        work = setting.raw.submit(Task(_tasks.count, 3))
        for value in range(number):
            expect_equal(await anext(work), value, "the value")
        expect_equal(await work, "all", "the result")
        expect_equal([value async for value in work], [], "the values after the result")
