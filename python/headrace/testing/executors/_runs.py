"""Cases about runs of a pool that use the executor."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from headrace.capacity.node import CapacitySource
from headrace.pool.events import EnvelopeType
from headrace.pull.source import SourceIterObj
from headrace.task.retry import Retry
from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._needs import (
    beside_the_loop,
    cancels,
    has_slots,
    streams,
    two_at_once,
)
from headrace.testing.executors._setting import Setting, expect, expect_equal, expect_error
from headrace.testing.executors.case import CaseList

if TYPE_CHECKING:
    from headrace.pool.progress import TaskRun

CASES = CaseList()

_DOUBLES = [2 * number for number in range(40)]


def _doubles(**options: Any) -> list[Task[int]]:
    return [Task(_tasks.double, number, **options) for number in range(40)]


@CASES.case()
async def run_returns_each_result_once(setting: Setting) -> None:
    """A run delivers the result of each task once, and releases its capacity."""
    runner = setting.pool(_doubles())
    events = await setting.events(runner)
    expect_equal(sorted(event.value for event in events), _DOUBLES, "the results")
    expect_equal({event.attempt for event in events}, {1}, "the attempts")


@CASES.case()
async def ordered_run_keeps_the_order(setting: Setting) -> None:
    """An ordered run delivers the results in the order of its source, whatever the order of the ends."""
    tasks = [setting.napping(number, 0.01 if number % 5 == 0 else 0) for number in range(40)]
    found = await setting.pool(tasks, 4, ordered=True).run()
    expect_equal(found, list(range(40)), "the results")


@CASES.case()
async def lookahead_and_priorities_lose_nothing(setting: Setting) -> None:
    """Tasks with priorities, which a run requests several at a time, each run once."""
    tasks = [Task(_tasks.double, number, priority=number % 3) for number in range(40)]
    events = await setting.events(setting.pool(tasks, 2, lookahead=5))
    expect_equal(sorted(event.value for event in events), _DOUBLES, "the results")


@CASES.case()
async def errors_and_results_are_told_apart(setting: Setting) -> None:
    """Each task of a run has its own outcome, among tasks that fail."""
    tasks = [
        Task(_tasks.fail, ValueError, number) if number % 3 else Task(_tasks.identity, number)
        for number in range(30)
    ]
    events = await setting.events(setting.pool(tasks, on_error="continue"))
    expect_equal(sorted(event.task_id for event in events), list(range(1, 31)), "the tasks")
    for event in events:
        number = event.task_id - 1
        expect_equal(event.type is EnvelopeType.ERROR, number % 3 != 0, f"the failure of {number}")
        found = event.value if event.error is None else event.error.args[0]
        expect_equal(found, number, "the outcome")


@CASES.case()
async def capacity_bounds_the_running_tasks(setting: Setting) -> None:
    """Never more tasks run at a time than the capacity allows."""
    tasks = [Task(_tasks.count_in, setting.path("log"), 0.001) for _ in range(40)]
    await setting.events(setting.pool(tasks, 2))
    changes = [1 if line == "+" else -1 for line in setting.lines("log")]
    expect_equal((len(changes), sum(changes)), (80, 0), "the begins and ends")
    expect(max(accumulate(changes)) <= 2, f"{max(accumulate(changes))} tasks ran at a time")
    expect(setting.executor.most <= 2, f"{setting.executor.most} tasks were submitted at a time")


@CASES.case(has_slots)
async def slots_bound_the_submitted_tasks(setting: Setting) -> None:
    """A run submits at most as many tasks as there are slots, and the others hold no capacity."""
    # Workers that start add slots meanwhile.
    await setting.until(lambda: setting.capabilities.slots, "slots")
    count = 4 * (setting.capabilities.slots or 0) + 10
    capacity = CapacitySource(count)
    tasks = [setting.gated(f"begun {number}") for number in range(count)]
    runner = setting.pool(tasks, capacity)
    running = asyncio.ensure_future(runner.run())
    await setting.until(
        lambda: setting.executor.live == capacity.held == (setting.capabilities.slots or count),
        "as many submissions as slots, which alone hold capacity",
    )
    await setting.settle_down()
    most = setting.capabilities.slots or count
    expect(setting.executor.live <= most, "more tasks were submitted than there are slots")
    setting.open()
    found = await setting.result(running, "the end of a run")
    expect_equal(found, [True] * count, "the results")
    expect_equal(capacity.held, 0, "held")


@CASES.case()
async def runs_share_the_executor(setting: Setting) -> None:
    """Two runs can use the executor at the same time, and others after them."""
    for _ in range(2):
        runners = [setting.pool(_doubles(), 3) for _ in range(2)]
        setting.waits_for = "the end of two runs"
        for found in await asyncio.gather(*(runner.run() for runner in runners)):
            expect_equal(sorted(found), _DOUBLES, "the results")
        for runner in runners:
            setting.released(runner)
    await setting.lives()


@CASES.case()
async def map_pool_uses_the_executor(setting: Setting) -> None:
    """`map_pool` runs its function in the executor, in order."""
    async with SourceIterObj(range(40)).map_pool(
        _tasks.double, CapacitySource(3), ordered=True, executor=setting.executor
    ) as doubled:
        expect_equal(await doubled.collect(), _DOUBLES, "the results")
    expect_equal(len(setting.executor.works), 40, "the tasks that the executor has run")


# Retries.


@CASES.case()
async def retries_count_attempts(setting: Setting) -> None:
    """A task that fails is submitted again, and its event has the number of its calls."""
    tasks = [Task(_tasks.fail_at_first, setting.path(f"log {n}"), n) for n in range(3)]
    events = await setting.events(setting.pool(tasks, retry=Retry(2, backoff=0.001)))
    found = {event.task_id - 1: (event.value, event.attempt) for event in events}
    expect_equal(found, {n: (n + 1, n + 1) for n in range(3)}, "the values and attempts")


@CASES.case()
async def last_error_follows_the_last_attempt(setting: Setting) -> None:
    """When all attempts have failed, the event has the last error."""
    task = Task(_tasks.fail_at_first, setting.path("log"), 5)
    [event] = await setting.events(setting.pool([task], retry=Retry(2, backoff=0.001)))
    expect_error(event.error, ValueError)
    expect_equal((event.attempt, str(event.error)), (3, "call 3"), "the attempt and the error")


@CASES.case(streams)
async def values_carry_their_attempt(setting: Setting) -> None:
    """Each value of a task that yields carries the number of the attempt that yielded it."""
    task = Task(_tasks.fail_after_values_at_first, setting.path("log"))
    events = await setting.events(setting.pool([task], retry=Retry(1, backoff=0.001)))
    found = [(event.value, event.attempt) for event in events]
    expect_equal(found, [("a", 1), ("a", 2), ("b", 2), ("c", 2)], "the values and attempts")


# Timeouts and cancellation.


@CASES.case(cancels, streams)
async def timeout_ends_a_task(setting: Setting) -> None:
    """A task that takes too long ends with a `TimeoutError`, counted from the call, and releases its capacity."""
    runner = setting.pool([setting.gated("begun", timeout=0.2)])
    [event] = await setting.events(runner)
    expect_error(event.error, TimeoutError)
    expect_equal(event.attempt, 1, "the attempt")
    [work] = setting.executor.works
    took = (work.ended_at or 0.0) - (work.called_at or 0.0)
    # The timer of an event loop may be early by its resolution.
    expect(took >= 0.18, f"the task was ended {took:.3f} s after its call")
    await setting.lives()


@CASES.case(cancels, streams)
async def timeout_excludes_the_wait_for_a_worker(setting: Setting) -> None:
    """A task that waits behind others, in the run or in the executor, has its whole timeout after its call."""
    slow = [setting.napping(number, 0.02, timeout=1000) for number in range(8)]
    quick = [setting.napping(number, 0, timeout=1000) for number in range(8, 16)]
    events = await setting.events(setting.pool([*slow, *quick], 8))
    for event in events:
        expect(event.error is None, f"found {event.error!r}")
    calls = {work.called_at for work in setting.executor.works}
    for event in events:
        expect(
            event.started is not None and min(abs(event.started - (at or 0)) for at in calls) < 0.1,
            "the start in an event is not the time of the call",
        )


@CASES.case(beside_the_loop)
async def late_task_holds_its_capacity(setting: Setting) -> None:
    """A plain function that exceeds its timeout holds its capacity until it has stopped, and its event is an error."""
    arguments = setting.path("begun"), setting.path("gate")
    runner = setting.pool([Task(_tasks.wait, *arguments, timeout=0.05)])
    async with runner.run_tasks() as progress:
        await setting.marked("begun")
        work = setting.executor.works[0]
        if not cancels(setting.capabilities):
            await asyncio.sleep(0.1)
            expect_equal(runner.capacity.held, 1, "the capacity that is held after the timeout")
        expect_equal(runner.capacity.held, 0 if work.has_ended else 1, "the capacity that is held")
        setting.open()
        setting.waits_for = "the event of the task"
        [event] = [event async for event in progress]
    if event.error is not None:
        expect_error(event.error, TimeoutError)
    setting.released(runner)


@CASES.case(cancels, streams)
async def cancelled_task_holds_its_capacity_until_it_stops(setting: Setting) -> None:
    """The capacity of a cancelled task is released with its outcome, and not before."""
    runner = setting.pool([setting.gated("begun")])
    async with runner.run_tasks() as progress:
        await setting.marked("begun")
        expect(runner.cancel(1), "the task was not found")
        [work] = setting.executor.works
        while not work.has_ended:
            expect_equal(runner.capacity.held, 1, "the capacity that is held before the outcome")
            await asyncio.sleep(0)
        setting.waits_for = "the event of the task"
        [event] = [event async for event in progress]
    expect_error(event.error, asyncio.CancelledError)
    setting.released(runner)


# The ends of a run.


async def _begun(setting: Setting, progress: TaskRun[Any]) -> asyncio.Future[list[Any]]:
    """Read a run whose tasks are gated, and wait until two of them have begun."""

    async def read() -> list[Any]:
        return [event async for event in progress]

    reading = asyncio.ensure_future(read())
    await setting.until(
        lambda: sum(work.called_at is not None for work in setting.executor.works) == 2, "two calls"
    )
    return reading


@CASES.case(two_at_once)
async def drain_waits_for_running_tasks(setting: Setting) -> None:
    """`drain()` lets the tasks that were called end, and returns the others."""
    tasks = [setting.gated(f"begun {number}") for number in range(6)]
    runner = setting.pool(tasks, 2)
    async with runner.run_tasks() as progress:
        reading = await _begun(setting, progress)
        draining = asyncio.ensure_future(runner.drain())
        await setting.settle_down()
        expect(not draining.done(), "drain() has not waited")
        setting.open()
        rest = await setting.result(draining, "the end of drain()")
        events = await setting.result(reading, "the end of the events")
    expect_equal([event.value for event in events], [True, True], "the results")
    called = [number for number in range(6) if setting.has(f"begun {number}")]
    expect_equal(called, [0, 1], "the tasks that were called")
    # The others are returned, or were not pulled from the source.
    expect_equal(rest, tasks[2 : 2 + len(rest)], "the tasks that were not called")
    setting.released(runner)


@CASES.case(two_at_once)
async def abort_stops_running_tasks(setting: Setting) -> None:
    """`abort()` returns when no work runs any more; each task that was called has one event."""
    tasks = [setting.gated(f"begun {number}") for number in range(6)]
    runner = setting.pool(tasks, 2)
    async with runner.run_tasks() as progress:
        reading = await _begun(setting, progress)
        aborting = asyncio.ensure_future(runner.abort())
        if not cancels(setting.capabilities):
            await setting.settle_down()
            setting.open()
        await setting.result(aborting, "the end of abort()")
        expect_equal(setting.executor.live, 0, "the work that runs after abort()")
        events = await setting.result(reading, "the end of the events")
    expect_equal(sorted(event.task_id for event in events), [1, 2], "the tasks with an event")
    setting.released(runner)
    await setting.lives()


@CASES.case()
async def run_that_is_left_leaves_nothing(setting: Setting) -> None:
    """A run whose block is left early has stopped all of its work, and the executor lives on."""
    runner = setting.pool([setting.napping(number, 0.005) for number in range(40)], 4)
    async with runner.run_tasks() as progress:
        setting.waits_for = "the first event"
        await anext(progress)
    expect_equal(setting.executor.live, 0, "the work that runs after the run")
    setting.released(runner)
    await setting.lives()


@CASES.case()
async def error_that_stops_a_run_leaves_nothing(setting: Setting) -> None:
    """A run that stops at the first error has stopped all of its work."""
    tasks = [setting.napping(number, 0.005) for number in range(40)]
    tasks.insert(5, Task(_tasks.fail, ValueError, "mine"))
    runner = setting.pool(tasks, 4, on_error="stop")
    try:
        await runner.run()
    except ValueError as error:
        expect_equal(error.args, ("mine",), "the arguments of the error")
    else:
        raise AssertionError("the error was not raised")
    expect_equal(setting.executor.live, 0, "the work that runs after the run")
    setting.released(runner)
