"""`isolate=False`: tasks share asyncio tasks, the workers."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, PushPullBufferObj, Task
from tests.pool_support import ERROR, FINAL, NO_FAST_PATH, envelopes, one, pool, quiet, summarize
from tests.support import until, wrong

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headrace.pool.progress import TaskRun

pytestmark = pytest.mark.skipif(
    NO_FAST_PATH, reason="in asyncio's debug mode no task of a pool shares an asyncio task"
)

variable: ContextVar[str] = ContextVar("seen", default="nothing")


def shared(tasks: Any, limit: int = 4, **options: Any) -> HierarchicalTaskPoolRunner:
    return pool(tasks, limit, isolate=False, name="mill", **options)


def this_task() -> asyncio.Task[Any]:
    current = asyncio.current_task()
    assert current is not None
    return current


async def yield_once() -> None:
    await asyncio.sleep(0)


async def wait_for_future() -> None:
    """Wait for a future, and so for more than one event-loop iteration."""
    waits = asyncio.get_running_loop().create_future()
    waits.get_loop().call_soon(waits.set_result, None)
    await waits


async def nothing() -> None: ...


every_wait = pytest.mark.parametrize("wait", [nothing, yield_once, wait_for_future])


@every_wait
async def test_asyncio_tasks_are_reused(wait: Callable[[], Awaitable[None]]) -> None:
    async def work() -> asyncio.Task[Any]:
        await wait()
        return this_task()

    found = await envelopes(shared([work] * 100, 3))
    tasks = {envelope.value for envelope in found}
    assert len(found) == 100
    assert {task.get_name() for task in tasks} <= {f"mill: worker {n}" for n in (1, 2, 3)}
    assert all(task.done() for task in tasks)


@every_wait
async def test_each_task_has_its_own_copy_of_its_context(
    wait: Callable[[], Awaitable[None]],
) -> None:
    async def work(value: str) -> tuple[str, str]:
        before = variable.get()
        token = variable.set(value)
        await wait()
        after = variable.get()
        variable.reset(token)
        variable.set(value)
        return before, after

    token = variable.set("there")
    tasks = [Task(work, str(number)) for number in range(6)]
    variable.reset(token)
    tasks.append(Task(work, "last"))
    found = await envelopes(shared(tasks, 2))
    values = {envelope.task_id: envelope.value for envelope in found}
    assert [values[number] for number in range(1, 7)] == [("there", str(n)) for n in range(6)]
    assert values[7] == ("nothing", "last")
    assert variable.get() == "nothing"


@every_wait
@pytest.mark.parametrize("is_undone", [False, True])
@pytest.mark.parametrize("preceding", [0, 1, 2])
async def test_leftover_cancellation_stays_with_its_task(
    wait: Callable[[], Awaitable[None]], is_undone: bool, preceding: int
) -> None:
    async def cancels() -> str:
        await wait()
        this_task().cancel()
        if is_undone:
            this_task().uncancel()
        return "cancelled itself"

    async def next_one() -> int:
        count = this_task().cancelling()
        await yield_once()
        await wait_for_future()
        return count

    # `ahead` tasks run first: without one the worker is new, otherwise it is parked.
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 1).run_tasks() as progress:
        for _ in range(preceding):
            await queue.sink.next(one)
            assert (await anext(progress)).value == 1
            await yield_once()
        await queue.sink.next(cancels)
        for _ in range(3):
            await queue.sink.next(next_one)
        await queue.sink.return_()
        found = [envelope async for envelope in progress]
    # As for any asyncio task: before 3.13, a requested cancellation cannot be undone.
    expected = "cancelled itself" if is_undone and sys.version_info >= (3, 13) else "CancelledError"
    assert summarize(found) == [expected, 0, 0, 0]


@every_wait
async def test_swallowed_cancellation_is_forgotten(
    wait: Callable[[], Awaitable[None]],
) -> None:
    async def swallows() -> str:
        await wait()
        this_task().cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return "swallowed"

    async def next_one() -> int:
        await yield_once()
        return this_task().cancelling()

    assert summarize(await envelopes(shared([swallows, next_one, next_one], 1))) == [
        "swallowed",
        0,
        0,
    ]


@pytest.mark.virtual
async def test_timeouts_and_groups_belong_to_their_task() -> None:
    async def times_out() -> str:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(60)
        except TimeoutError:
            return "late"
        return "in time"

    async def group() -> int:
        async with asyncio.TaskGroup() as children:
            first, second = children.create_task(one()), children.create_task(one())
        return first.result() + second.result()

    async def breaks() -> None:
        async with asyncio.TaskGroup() as children:
            children.create_task(asyncio.sleep(60))
            raise ValueError("broken")

    found = summarize(await envelopes(shared([times_out, group, breaks, group] * 5, 2)))
    assert sorted(map(str, found)) == ["2"] * 10 + ["ExceptionGroup"] * 5 + ["late"] * 5


async def test_task_with_options_has_its_own_asyncio_task() -> None:
    async def name() -> str:
        return this_task().get_name()

    tasks = [name, Task(name, key="k"), Task(name, timeout=60), Task(name, on_complete=id, key="c")]
    assert summarize(await envelopes(shared(tasks))) == [
        "mill: worker 1",
        "mill: worker 1",
        "mill: task 3",
        "mill: task c",
    ]
    assert summarize(await envelopes(shared([name], ordered=True))) == ["mill: task 1"]


async def test_busy_worker_survives_outside_cancellation() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> None:
        tasks.append(this_task())
        await asyncio.Event().wait()

    async def next_one() -> asyncio.Task[Any]:
        await yield_once()
        return this_task()

    async with shared([work, next_one], 1).run_tasks() as progress:
        await until(lambda: tasks)
        tasks[0].cancel("from outside")
        first, second = [envelope async for envelope in progress]
    assert isinstance(first.error, asyncio.CancelledError)
    assert first.error.args == ("from outside",)
    assert second.value is tasks[0]


async def test_cancelled_idle_worker_is_replaced() -> None:
    async def work() -> asyncio.Task[Any]:
        await yield_once()
        return this_task()

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 1).run_tasks() as progress:
        await queue.sink.next(work)
        first = (await anext(progress)).value
        await quiet()
        first.cancel()
        await quiet()
        assert first.cancelled()
        for _ in range(2):
            await queue.sink.next(work)
        second, third = (await anext(progress)).value, (await anext(progress)).value
    assert first is not second
    assert second is third


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
@every_wait
async def test_exceptions_do_not_end_the_worker(
    wait: Callable[[], Awaitable[None]], kind: type[BaseException]
) -> None:
    def raises() -> Any:
        raise kind

    async def work() -> None:
        await wait()
        raises()

    capacity = CapacitySource(1)
    runner = HierarchicalTaskPoolRunner([work, one], capacity, isolate=False)
    if issubclass(kind, (KeyboardInterrupt, SystemExit)):
        with pytest.raises(kind):
            await envelopes(runner)
    else:
        assert summarize(await envelopes(runner)) == ["RuntimeError", 1]
    assert capacity.held == 0


@every_wait
async def test_leaving_ends_the_workers(wait: Callable[[], Awaitable[None]]) -> None:
    async def work() -> None:
        await wait()
        await asyncio.Event().wait()

    async with shared([work] * 6, 3).run_tasks():
        await until(lambda: len(asyncio.all_tasks()) >= 4)
    # The conftest checks after each test that no task is left running.
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def create_workers(queue: PushPullBufferObj[Any], progress: TaskRun, workers: int) -> None:
    """Create this many workers, which then wait for tasks."""
    for _ in range(workers):
        await queue.sink.next(wait_for_future)
    for _ in range(workers):
        await anext(progress)
    await quiet()


@pytest.mark.parametrize("workers", [0, 1, 3])
async def test_sleep_0_is_one_loop_iteration(workers: int) -> None:
    iterations = 0

    def count() -> None:
        nonlocal iterations
        iterations += 1
        if iterations < 1_000:
            loop.call_soon(count)

    async def work() -> list[int]:
        found = []
        task = this_task()
        for _ in range(10):
            found.append(iterations)
            await yield_once()
            assert this_task() is task
        return [after - before for before, after in pairwise(found)]

    loop = asyncio.get_running_loop()
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 3).run_tasks() as progress:
        await create_workers(queue, progress, workers)
        count()
        for _ in range(3):
            await queue.sink.next(work)
        await queue.sink.return_()
        found = [envelope.value async for envelope in progress]
        iterations = 1_000
    # If a task starts together with its worker, it shares the worker's first iteration.
    assert found == [[1] * 9] * 3


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
async def test_cancelled_task_gets_no_further_iteration(first: bool, workers: int) -> None:
    steps: list[str] = []
    ids: dict[str, int] = {}

    async def cancels() -> str:
        await yield_once()
        await yield_once()
        steps.append("cancels")
        assert runner.cancel(ids["victim"])
        return "cancels"

    async def victim() -> None:
        try:
            while True:
                steps.append("victim")
                await yield_once()
        finally:
            steps.append("end")

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    runner = shared(queue.source, 2)
    async with runner.run_tasks() as progress:
        await create_workers(queue, progress, workers)
        ids["victim"] = workers + (2 if first else 1)
        for work in (cancels, victim) if first else (victim, cancels):
            await queue.sink.next(work)
        await queue.sink.return_()
        found = [envelope async for envelope in progress]
    assert sorted(summarize(found)) == ["CancelledError", "cancels"]
    assert steps[steps.index("cancels") :] == ["cancels", "end"]


async def test_failing_task_does_not_stop_the_others() -> None:
    async def work(number: int) -> int:
        await yield_once()
        if number % 2:
            raise ValueError(number)
        await yield_once()
        return number

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 6).run_tasks() as progress:
        await create_workers(queue, progress, 6)
        for number in range(6):
            await queue.sink.next(Task(work, number))
        await queue.sink.return_()
        found = [envelope async for envelope in progress]
    # On a busy machine, some may start and end before the others.
    assert Counter(summarize(found)) == {"ValueError": 3, 0: 1, 2: 1, 4: 1}


@pytest.mark.parametrize("workers", [0, 1])
async def test_timeout_reaches_a_yielding_task(workers: int) -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                while True:
                    await yield_once()
        except TimeoutError:
            return f"too long, {this_task().cancelling()}"

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 1).run_tasks() as progress:
        await create_workers(queue, progress, workers)
        for _ in range(3):
            await queue.sink.next(work)
        await queue.sink.return_()
        assert summarize([e async for e in progress]) == ["too long, 0"] * 3


async def test_cancel_in_first_step_is_raised_at_next_await() -> None:
    async def work() -> str:
        assert runner.cancel(2)
        try:
            await yield_once()
        except asyncio.CancelledError:
            return "heard"
        return "missed"

    runner = shared([one, work, one], 1)
    async with runner.run_tasks() as progress:
        assert summarize([envelope async for envelope in progress]) == [1, "heard", 1]


async def test_yielded_values_are_received() -> None:
    async def count() -> Any:
        for number in range(3):
            yield number
            await yield_once()

    found = await envelopes(shared([count, count], 1))
    assert [(e.task_id, e.type is FINAL, e.value) for e in found] == [
        (task, last, value)
        for task in (1, 2)
        for last, value in ((False, 0), (False, 1), (False, 2), (True, None))
    ]


async def test_worker_keeps_no_objects_of_its_tasks() -> None:
    class Thing:
        extra = 0

    def count() -> int:
        return sum(type(thing) is Thing for thing in gc.get_objects())

    async def work() -> int:
        thing = Thing()
        await wait_for_future()
        return count() + thing.extra

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 1).run_tasks() as progress:
        for _ in range(3):
            await queue.sink.next(work)
            assert (await anext(progress)).value == 1
        await quiet()
        assert count() == 0


async def test_errors_are_counted_and_stop_the_run() -> None:
    async def fails() -> None:
        await yield_once()
        raise ValueError

    runner = shared([fails, one, one], 1, on_error="stop")
    [found] = await envelopes(runner)
    assert found.type is ERROR
    assert runner.snapshot().failed == 1


def test_isolate_is_a_flag() -> None:
    with pytest.raises(TypeError, match="isolate must be True or False, got 1 "):
        pool([], isolate=wrong(1))
