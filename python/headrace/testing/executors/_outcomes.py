"""Cases about results, errors and submissions."""

from __future__ import annotations

import asyncio
import random
import traceback
from typing import Any

from headrace.errors import WorkerLost
from headrace.pool.executor.handle import CancelResult
from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._needs import (
    beside_the_loop,
    no_streaming,
    remote,
    streams,
    two_at_once,
)
from headrace.testing.executors._setting import Setting, expect, expect_equal, expect_error
from headrace.testing.executors.case import CaseList

CASES = CaseList()

_VALUES: list[Any] = [None, 0, "", b"\x00", [1, [2]], {"a": (1, 2.5)}, {3}, "x" * 1000]
_LARGE = 10_000_000


@CASES.case()
async def result_follows_the_call(setting: Setting) -> None:
    """The listener is notified of the call, and then of the result."""
    recorder = await setting.outcome(Task(_tasks.double, 5))
    expect_equal(recorder.calls, [("called", None), ("returned", 10)], "the events")


@CASES.case()
async def values_travel_both_ways(setting: Setting) -> None:
    """Arguments and results arrive as equal objects."""
    for value in _VALUES:
        recorder = await setting.outcome(Task(_tasks.identity, value))
        expect_equal(recorder.last, value, "the result")


@CASES.case()
async def large_values_travel_both_ways(setting: Setting) -> None:
    """An argument and a result of 10 MB arrive."""
    data = random.Random(1).randbytes(_LARGE)  # noqa: S311
    recorder = await setting.outcome(Task(_tasks.reverse, data))
    expect_equal(recorder.events, ["called", "returned"], "the events")
    expect(recorder.last == data[::-1], "the bytes differ")


@CASES.case(streams)
async def async_function_is_awaited(setting: Setting) -> None:
    """The result of an async function is its outcome."""
    recorder = await setting.outcome(Task(_tasks.double_async, 5))
    expect_equal(recorder.calls, [("called", None), ("returned", 10)], "the events")


@CASES.case(streams)
async def returned_awaitable_is_awaited(setting: Setting) -> None:
    """An awaitable that a plain function returns is awaited."""
    recorder = await setting.outcome(Task(_tasks.awaitable_double, 5))
    expect_equal(recorder.calls, [("called", None), ("returned", 10)], "the events")


@CASES.case(no_streaming)
async def async_function_is_refused_without_streaming(setting: Setting) -> None:
    """An executor that does not stream reports an async function as an error."""
    recorder = await setting.outcome(Task(_tasks.double_async, 5))
    expect_error(recorder.last, TypeError)
    await setting.lives()


# Errors.


async def _expect_failure(setting: Setting, task: Task[Any], kind: type[BaseException]) -> Any:
    recorder = await setting.outcome(task)
    expect_equal(recorder.events, ["called", "raised"], "the events")
    expect_error(recorder.last, kind)
    await setting.lives()
    return recorder.last


@CASES.case()
async def error_keeps_its_class_and_arguments(setting: Setting) -> None:
    """The listener gets the error that a function raised, or an equal one."""
    for kind in (ValueError, KeyError, LookupError, OSError):
        error = await _expect_failure(setting, Task(_tasks.fail, kind, "mine", 7), kind)
        expect_equal(repr(error), repr(kind("mine", 7)), "the error")


@CASES.case(streams)
async def error_of_async_function_keeps_its_class(setting: Setting) -> None:
    """The listener gets the error that an async function raised, or an equal one."""
    error = await _expect_failure(setting, Task(_tasks.fail_async, ValueError, "mine"), ValueError)
    expect_equal(repr(error), "ValueError('mine')", "the error")


@CASES.case()
async def error_names_the_function(setting: Setting) -> None:
    """The text of an error, with its traceback and notes, names the function that raised it."""
    error = await _expect_failure(setting, Task(_tasks.fail, ValueError, "mine"), ValueError)
    text = "".join(traceback.format_exception(error))
    expect("in fail" in text and "_tasks.py" in text, f"the function is not named in: {text}")


async def _interrupt(setting: Setting, name: str) -> None:
    recorder = await setting.outcome(Task(_tasks.interrupt, name))
    expect_equal(recorder.events, ["called", "raised"], "the events")
    kind, found = _tasks.INTERRUPTS[name], recorder.last
    if name == "StopIteration" and isinstance(found, RuntimeError):
        expect(name in str(found), f"found {found!r}")
    else:
        expect(isinstance(found, kind), f"found {found!r}")
    await setting.lives()


@CASES.case()
async def stop_iteration_is_an_error(setting: Setting) -> None:
    """`StopIteration` is reported, itself or as the `RuntimeError` that Python makes of it in a coroutine."""
    await _interrupt(setting, "StopIteration")


@CASES.case()
async def keyboard_interrupt_is_an_error(setting: Setting) -> None:
    """`KeyboardInterrupt` of a task is reported, and ends neither the event loop nor a worker."""
    await _interrupt(setting, "KeyboardInterrupt")


@CASES.case()
async def system_exit_is_an_error(setting: Setting) -> None:
    """`SystemExit` of a task is reported, and ends neither the event loop nor a worker."""
    await _interrupt(setting, "SystemExit")


@CASES.case()
async def raised_cancelled_error_is_an_error(setting: Setting) -> None:
    """A `CancelledError` that a task raises by itself is reported."""
    await _interrupt(setting, "CancelledError")


# Objects that cannot be sent.


@CASES.case()
async def error_with_other_arguments_is_reported(setting: Setting) -> None:
    """An error whose class takes other arguments than it stores is reported, with its class and text."""
    error = await _expect_failure(setting, Task(_tasks.fail_oddly), Exception)
    text = f"{type(error).__name__}: {error}"
    expect("TwoArgumentsError" in text and "odd (7)" in text, f"found {text}")


@CASES.case()
async def error_that_cannot_be_sent_is_reported(setting: Setting) -> None:
    """An error that does not pickle is reported, with its class and text."""
    error = await _expect_failure(setting, Task(_tasks.fail_unsendable), Exception)
    text = f"{type(error).__name__}: {error}"
    expect("UnsendableError" in text and "holds a function" in text, f"found {text}")


@CASES.case(remote)
async def unsendable_argument_is_refused(setting: Setting) -> None:
    """A task whose argument does not pickle never begins, and its error is no lost worker."""
    recorder = await setting.outcome(Task(_tasks.identity, _tasks.Unsendable()))
    expect_equal(recorder.events, ["raised"], "the events")
    expect_error(recorder.last, Exception)
    expect(not isinstance(recorder.last, WorkerLost), "the error is a WorkerLost")
    await setting.lives()


@CASES.case(remote)
async def unsendable_result_is_an_error(setting: Setting) -> None:
    """A result that does not pickle is an error of the task, and the worker lives on."""
    error = await _expect_failure(setting, Task(_tasks.return_unsendable), Exception)
    expect(not isinstance(error, WorkerLost), "the error is a WorkerLost")


# Many.


@CASES.case()
async def one_task_runs_many_times(setting: Setting) -> None:
    """The same task can be submitted while it runs, and each submission has its own outcome."""
    task, limit = Task(_tasks.double, 5), setting.capabilities.slots or 100
    for _ in range(100 // min(limit, 100)):
        recorders = [setting.submit(task)[1] for _ in range(min(limit, 100))]
        await setting.ended(*recorders)
        for recorder in recorders:
            expect_equal(recorder.calls, [("called", None), ("returned", 10)], "the events")


@CASES.case()
async def outcomes_belong_to_their_tasks(setting: Setting) -> None:
    """Tasks that end in another order than they began have their own results."""
    draw = random.Random(7)  # noqa: S311
    seconds = [draw.choice((0, 0, 0.002, 0.005)) for _ in range(300)]
    tasks = [setting.napping(number, delay) for number, delay in enumerate(seconds)]
    runner = setting.pool(tasks, 16, ordered=True)
    expect_equal(await runner.run(), list(range(300)), "the results in order")
    setting.released(runner)


@CASES.case()
async def listener_may_submit(setting: Setting) -> None:
    """A listener may submit a task when it is notified of an outcome."""
    later: list[Any] = []

    def submit() -> None:
        later.append(setting.submit(Task(_tasks.double, 2))[1])

    _, first = setting.submit(Task(_tasks.double, 1), on_end=submit)
    await setting.ended(first)
    await setting.until(lambda: later, "the submission by the listener")
    await setting.ended(*later)
    expect_equal(later[0].last, 4, "the result of the second task")


@CASES.case(beside_the_loop, two_at_once)
async def working_task_does_not_delay_another(setting: Setting) -> None:
    """While a function runs, another task can begin and end."""
    _, recorder = setting.submit(Task(_tasks.wait, setting.path("begun"), setting.path("gate")))
    await setting.marked("begun")
    await setting.lives()
    expect(not recorder.ended, "the first task has ended before its gate was open")
    setting.open()
    await setting.ended(recorder)
    expect_equal(recorder.last, True, "the result")


# Submissions without a listener.


@CASES.case()
async def submission_can_be_awaited(setting: Setting) -> None:
    """Without a listener, `submit` returns an object that can be awaited more than once."""
    work = setting.raw.submit(Task(_tasks.double, 5))
    setting.waits_for = "the result of a submission"
    expect_equal((await work, await work), (10, 10), "the results")
    expect_equal(work.cancel(), CancelResult.STOPPED, "the result of cancel()")
    failing = setting.raw.submit(Task(_tasks.fail, ValueError, "mine"))
    for _ in range(2):
        try:
            await failing
        except ValueError as error:
            expect_equal(error.args, ("mine",), "the arguments of the error")
        else:
            raise AssertionError("the error was not raised")


@CASES.case()
async def cancelled_await_leaves_the_work(setting: Setting) -> None:
    """Cancelling an `await` of a submission does not cancel the work."""
    work = setting.raw.submit(setting.gated("begun"))

    async def outcome() -> object:
        return await work

    waiting = asyncio.ensure_future(outcome())
    await setting.marked("begun")
    await setting.not_waiting(waiting)
    expect(waiting.cancelled(), "the await was not cancelled")
    setting.open()
    setting.waits_for = "the result of a submission"
    expect_equal(await work, True, "the result")
