"""Cases about lost workers. They hold for executors whose workers are other processes; a worker in this process is never ended."""

from __future__ import annotations

import os
from typing import Any

from headrace.errors import WorkerLost
from headrace.pool.events import EnvelopeType
from headrace.task.retry import Retry
from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._needs import remote, two_at_once
from headrace.testing.executors._setting import Setting, expect, expect_equal, expect_error
from headrace.testing.executors.case import CaseList

CASES = CaseList()


async def _is_elsewhere(setting: Setting) -> bool:
    """Return whether tasks run in another process, which may be ended."""
    recorder = await setting.outcome(Task(_tasks.process))
    return bool(recorder.last != os.getpid())


@CASES.case(remote)
async def lost_worker_is_an_error_of_its_task(setting: Setting) -> None:
    """A task whose worker ends fails with a `WorkerLost` that says it had started; a new worker serves the next task."""
    if not await _is_elsewhere(setting):
        return
    recorder = await setting.outcome(Task(_tasks.end_worker))
    expect_equal(recorder.events[-1], "raised", "the last event")
    expect_error(recorder.last, WorkerLost)
    expect(recorder.last.started, "the error says that the task had not started")
    await setting.lives()


@CASES.case(remote, two_at_once)
async def lost_worker_costs_only_what_it_ran(setting: Setting) -> None:
    """A lost worker ends no task that had not begun in it: a run gets the results of all other tasks."""
    if not await _is_elsewhere(setting):
        return
    tasks: list[Task[Any]] = [Task(_tasks.double, number) for number in range(20)]
    tasks.insert(10, Task[Any](_tasks.end_worker))
    events = await setting.events(setting.pool(tasks, 1))
    failed = [event.task_id for event in events if event.type is EnvelopeType.ERROR]
    expect_equal(failed, [11], "the tasks that failed")


@CASES.case(remote)
async def lost_work_is_retried(setting: Setting) -> None:
    """A task whose worker ends is called again by its `Retry`, and each value arrives once."""
    if not await _is_elsewhere(setting):
        return
    retry = Retry(2, on=WorkerLost, backoff=0.001)
    tasks = [Task(_tasks.double, number) for number in range(20)]
    lost = Task(_tasks.end_worker_at_first, setting.path("log"), key="lost")
    events = await setting.events(setting.pool([*tasks[:10], lost, *tasks[10:]], 2, retry=retry))
    expect_equal(
        sorted(event.value for event in events if event.key is None),
        [2 * number for number in range(20)],
        "the values",
    )
    found = [(event.value, event.attempt) for event in events if event.key == "lost"]
    expect_equal(found, [(2, 2)], "the value and the attempt of the task that was lost")
