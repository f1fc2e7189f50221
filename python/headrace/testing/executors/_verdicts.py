"""Cases about the verdicts of `classify` on errors that tasks raise."""

from __future__ import annotations

from typing import Any

from headrace.errors import RunStopped
from headrace.task.failure import classify
from headrace.task.retry import Retry
from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._setting import Setting, expect_equal, expect_error
from headrace.testing.executors.case import CaseList

CASES = CaseList()

_ANSWERS: list[tuple[Any, ...]] = [
    (400,),
    (401,),
    (404,),
    (408,),
    (409,),
    (429,),
    (429, "insufficient_quota"),
    (429, "rate_limit_exceeded", "7"),
    (400, "ThrottlingException"),
    (500,),
    (503, "", "2"),
    (529,),
]


@CASES.case()
async def answers_keep_their_verdict(setting: Setting) -> None:
    """`classify` finds the same in the answer of a service that a task raises as where it was raised."""
    for answer in _ANSWERS:
        recorder = await setting.outcome(Task(_tasks.fail, _tasks.AnswerError, *answer))
        expect_equal(
            classify(recorder.last),
            classify(_tasks.AnswerError(*answer)),
            f"the verdict on {answer}",
        )


@CASES.case()
async def exceptions_keep_their_verdict(setting: Setting) -> None:
    """`classify` finds the same in an exception of Python that a task raises."""
    for kind in (TypeError, NameError, ValueError, OSError, TimeoutError, ConnectionError):
        recorder = await setting.outcome(Task(_tasks.fail, kind, "mine"))
        expect_equal(classify(recorder.last), classify(kind("mine")), f"the verdict on {kind}")


@CASES.case()
async def answers_that_cannot_be_sent_keep_their_verdict(setting: Setting) -> None:
    """The kind of the verdict travels with an answer whose class does not unpickle."""
    for status in (401, 404, 429, 500):
        recorder = await setting.outcome(Task(_tasks.answer_unsendable, status))
        expected = classify(_tasks.UnsendableAnswerError(status=status)).kind
        expect_equal(classify(recorder.last).kind, expected, f"the verdict on {status}")


async def _outcome(setting: Setting, *answer: Any) -> tuple[Any, int, int]:
    """Return the value or error, the attempt and the calls of a task that fails once with an answer."""
    task = Task(_tasks.fail_at_first, setting.path("log"), 1, *answer)
    [event] = await setting.events(setting.pool([task], retry=Retry(2, backoff=0.001)))
    calls = len(setting.lines("log"))
    return (event.value if event.error is None else event.error), event.attempt, calls


@CASES.case()
async def transient_answer_is_retried(setting: Setting) -> None:
    """A task is called again after a 500."""
    expect_equal(await _outcome(setting, 500), (2, 2, 2), "the value, the attempt, the calls")


@CASES.case()
async def permanent_answer_is_not_retried(setting: Setting) -> None:
    """A task is not called again after a 404."""
    error, *counts = await _outcome(setting, 404)
    expect_error(error, Exception)
    expect_equal(counts, [1, 1], "the attempt and the calls")


@CASES.case()
async def throttled_answer_costs_no_attempt(setting: Setting) -> None:
    """A task is called again after a 429, and that counts no attempt."""
    found = await _outcome(setting, 429, "", "0.02")
    expect_equal(found, (2, 1, 2), "the value, the attempt, the calls")


@CASES.case()
async def fatal_answer_stops_the_run(setting: Setting) -> None:
    """A 401 stops the run, which hands back the tasks that were not called."""
    doubles = [Task(_tasks.double, number) for number in range(50)]
    tasks = [Task(_tasks.fail, _tasks.AnswerError, 401), *doubles]
    runner = setting.pool(tasks, 1)
    try:
        async with runner.run_tasks() as progress:
            async for _ in progress:
                pass
    except RunStopped as stopped:
        expect_error(stopped.__cause__, Exception)
    else:
        raise AssertionError("the run was not stopped")
    setting.released(runner)
    called = {work.task for work in setting.executor.works}
    returned = set(await runner.drain())
    expect_equal(len(called & returned), 0, "the tasks that were called and handed back")
