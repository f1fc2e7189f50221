"""Cases about starting, closing and the protocol's small parts."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._needs import beside_the_loop, cancels_nothing
from headrace.testing.executors._observed import Recorder
from headrace.testing.executors._setting import Setting, expect, expect_equal
from headrace.testing.executors.case import CaseList

if TYPE_CHECKING:
    from headrace.testing.executors._observed import Observed

CASES = CaseList()


@CASES.case()
async def capabilities_are_consistent(setting: Setting) -> None:
    """The slots are None or a number, the window is 1 or more, and `watch` returns a function that ends it."""
    found = setting.capabilities
    expect(found.slots is None or found.slots >= 0, f"slots: {found.slots}")
    expect(found.window >= 1, f"window: {found.window}")
    setting.raw.watch(lambda: None)()


@CASES.case()
async def start_is_idempotent(setting: Setting) -> None:
    """Each run starts the executor; that may happen while it works."""
    await setting.executor.start()
    _, recorder = setting.submit(setting.gated("begun"))
    await setting.marked("begun")
    await setting.executor.start()
    setting.open()
    await setting.ended(recorder)
    expect_equal(recorder.calls, [("called", None), ("returned", True)], "the events")


@CASES.case()
async def closing_is_idempotent(setting: Setting) -> None:
    """The executor can be closed more than once, used or not."""
    await setting.lives()
    for _ in range(2):
        await setting.executor.aclose()
    unused = setting.make()
    await unused.start()
    for _ in range(2):
        await unused.aclose()


@CASES.case()
async def submission_after_closing_ends(setting: Setting) -> None:
    """A submission to a closed executor raises, or has one outcome."""
    await setting.lives()
    await setting.executor.aclose()
    recorder = Recorder(Task(_tasks.double, 1))
    try:
        setting.raw.submit(Task(_tasks.double, 1), recorder)
    except Exception:  # any error says that it is closed
        return
    await setting.ended(recorder)


def _descriptors() -> int:
    """Return the number of open file descriptors; 0 where it is not known."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        if Path(directory).is_dir():
            return len(list(Path(directory).iterdir()))
    return 0


def _resources() -> tuple[int, int, int]:
    return threading.active_count(), len(asyncio.all_tasks()), _descriptors()


@CASES.case()
async def closed_executor_leaves_nothing(setting: Setting) -> None:
    """A closed executor leaves no thread, asyncio task or open file, beyond those that the first one left."""

    async def use() -> None:
        executor: Observed = setting.make()
        await executor.start()
        recorders = [Recorder(Task(_tasks.double, number)) for number in range(2)]
        for number, recorder in enumerate(recorders):
            executor.submit(Task(_tasks.double, number), recorder)
            await setting.ended(recorder)
        await executor.aclose()
        await setting.settle_down()

    await use()
    before = _resources()
    await use()

    def is_clean() -> bool:
        return all(now <= then for now, then in zip(_resources(), before, strict=True))

    await setting.until(
        is_clean,
        f"the end of threads, asyncio tasks and files: {before} before, {_resources()} now",
    )


@CASES.case()
async def caller_is_outside_of_the_work(setting: Setting) -> None:
    """`inside()` is False for the code that has submitted the task."""
    handle, recorder = setting.submit(setting.gated("begun"))
    await setting.marked("begun")
    expect_equal(handle.inside(), False, "the result of inside()")
    setting.open()
    await setting.ended(recorder)
    expect_equal(handle.inside(), False, "the result of inside() after the outcome")


@CASES.case(cancels_nothing, beside_the_loop)
async def left_work_reports_only_its_stop(setting: Setting) -> None:
    """`leave` ends the notifications; its callback is called when the work has stopped, also of a closed executor."""
    stopped = threading.Event()
    handle, recorder = setting.submit(setting.gated("begun"))
    await setting.marked("begun")
    handle.leave(cast("Any", stopped.set))
    await setting.executor.aclose()
    expect(not stopped.is_set(), "the stop was reported before the work has stopped")
    setting.open()
    await setting.until(stopped.is_set, "the call of `stopped`")
    expect_equal(recorder.events, ["called"], "the events")


@CASES.case(cancels_nothing, beside_the_loop)
async def leaving_stopped_work_reports_at_once(setting: Setting) -> None:
    """`leave` calls its callback if the work has already stopped."""
    stopped = threading.Event()
    handle, recorder = setting.submit(Task(_tasks.mark, setting.path("ended")))
    await setting.marked("ended")
    await setting.until(lambda: recorder.ended, "the outcome")
    handle.leave(cast("Any", stopped.set))
    await setting.until(stopped.is_set, "the call of `stopped`")
    expect_equal(recorder.events, ["called", "returned"], "the events")
