"""`isolate=False`: asyncio tasks that are used again."""

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

seen: ContextVar[str] = ContextVar("seen", default="nothing")


def shared(tasks: Any, limit: int = 4, **options: Any) -> HierarchicalTaskPoolRunner:
    return pool(tasks, limit, isolate=False, name="mill", **options)


def me() -> asyncio.Task[Any]:
    current = asyncio.current_task()
    assert current is not None
    return current


async def turn() -> None:
    await asyncio.sleep(0)


async def future() -> None:
    """Waits for a future, and so longer than one turn of the loop."""
    waits = asyncio.get_running_loop().create_future()
    waits.get_loop().call_soon(waits.set_result, None)
    await waits


async def nothing() -> None: ...


WAITS = pytest.mark.parametrize("wait", [nothing, turn, future])


@WAITS
async def test_asyncio_tasks_are_used_again(wait: Callable[[], Awaitable[None]]) -> None:
    async def work() -> asyncio.Task[Any]:
        await wait()
        return me()

    found = await envelopes(shared([work] * 100, 3))
    tasks = {envelope.value for envelope in found}
    assert len(found) == 100
    assert {task.get_name() for task in tasks} <= {f"mill: worker {n}" for n in (1, 2, 3)}
    assert all(task.done() for task in tasks)


@WAITS
async def test_each_task_has_its_own_copy_of_its_context(
    wait: Callable[[], Awaitable[None]],
) -> None:
    async def work(value: str) -> tuple[str, str]:
        before = seen.get()
        token = seen.set(value)
        await wait()
        after = seen.get()
        seen.reset(token)
        seen.set(value)
        return before, after

    token = seen.set("there")
    tasks = [Task(work, str(number)) for number in range(6)]
    seen.reset(token)
    tasks.append(Task(work, "last"))
    found = await envelopes(shared(tasks, 2))
    told = {envelope.task_id: envelope.value for envelope in found}
    assert [told[number] for number in range(1, 7)] == [("there", str(n)) for n in range(6)]
    assert told[7] == ("nothing", "last")
    assert seen.get() == "nothing"


@WAITS
@pytest.mark.parametrize("undone", [False, True])
@pytest.mark.parametrize("ahead", [0, 1, 2])
async def test_cancellation_that_is_left_behind_does_not_reach_the_next(
    wait: Callable[[], Awaitable[None]], undone: bool, ahead: int
) -> None:
    async def cancels() -> str:
        await wait()
        me().cancel()
        if undone:
            me().uncancel()
        return "cancelled itself"

    async def next_one() -> int:
        count = me().cancelling()
        await turn()
        await future()
        return count

    # With as many before as make it a worker that is new, or one that waits to be used again.
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 1).run_tasks() as progress:
        for _ in range(ahead):
            await queue.sink.next(one)
            assert (await anext(progress)).value == 1
            await turn()
        await queue.sink.next(cancels)
        for _ in range(3):
            await queue.sink.next(next_one)
        await queue.sink.return_()
        found = [envelope async for envelope in progress]
    # As asyncio has it of any task: before 3.13 what was asked for cannot be undone.
    ends = "cancelled itself" if undone and sys.version_info >= (3, 13) else "CancelledError"
    assert summarize(found) == [ends, 0, 0, 0]


@WAITS
async def test_cancellation_that_was_swallowed_is_forgotten(
    wait: Callable[[], Awaitable[None]],
) -> None:
    async def swallows() -> str:
        await wait()
        me().cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return "swallowed"

    async def next_one() -> int:
        await turn()
        return me().cancelling()

    assert summarize(await envelopes(shared([swallows, next_one, next_one], 1))) == [
        "swallowed",
        0,
        0,
    ]


@pytest.mark.virtual
async def test_timeouts_and_groups_belong_to_their_task() -> None:
    async def late() -> str:
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

    found = summarize(await envelopes(shared([late, group, breaks, group] * 5, 2)))
    assert sorted(map(str, found)) == ["2"] * 10 + ["ExceptionGroup"] * 5 + ["late"] * 5


async def test_who_asks_for_more_has_an_asyncio_task_of_its_own() -> None:
    async def name() -> str:
        return me().get_name()

    tasks = [name, Task(name, key="k"), Task(name, timeout=60), Task(name, on_complete=id, key="c")]
    assert summarize(await envelopes(shared(tasks))) == [
        "mill: worker 1",
        "mill: worker 1",
        "mill: task 3",
        "mill: task c",
    ]
    assert summarize(await envelopes(shared([name], ordered=True))) == ["mill: task 1"]


async def test_worker_that_somebody_cancels_while_it_works_goes_on_with_the_next() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> None:
        tasks.append(me())
        await asyncio.Event().wait()

    async def next_one() -> asyncio.Task[Any]:
        await turn()
        return me()

    async with shared([work, next_one], 1).run_tasks() as progress:
        await until(lambda: tasks)
        tasks[0].cancel("from outside")
        first, second = [envelope async for envelope in progress]
    assert isinstance(first.error, asyncio.CancelledError)
    assert first.error.args == ("from outside",)
    assert second.value is tasks[0]


async def test_worker_that_somebody_cancels_while_it_rests_is_replaced() -> None:
    async def work() -> asyncio.Task[Any]:
        await turn()
        return me()

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
@WAITS
async def test_what_is_raised_does_not_end_the_worker(
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


@WAITS
async def test_leaving_ends_the_workers(wait: Callable[[], Awaitable[None]]) -> None:
    async def work() -> None:
        await wait()
        await asyncio.Event().wait()

    async with shared([work] * 6, 3).run_tasks():
        await until(lambda: len(asyncio.all_tasks()) >= 4)
    # That nothing is left running is asked after each test.
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def warm(queue: PushPullBufferObj[Any], progress: TaskRun, workers: int) -> None:
    """Has so many asyncio tasks made, which then wait to be used again."""
    for _ in range(workers):
        await queue.sink.next(future)
    for _ in range(workers):
        await anext(progress)
    await quiet()


@pytest.mark.parametrize("workers", [0, 1, 3])
async def test_turn_is_a_turn_of_the_loop(workers: int) -> None:
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        if turns < 1_000:
            loop.call_soon(count)

    async def work() -> list[int]:
        found = []
        task = me()
        for _ in range(10):
            found.append(turns)
            await turn()
            assert me() is task
        return [after - before for before, after in pairwise(found)]

    loop = asyncio.get_running_loop()
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 3).run_tasks() as progress:
        await warm(queue, progress, workers)
        count()
        for _ in range(3):
            await queue.sink.next(work)
        await queue.sink.return_()
        found = [envelope.value async for envelope in progress]
        turns = 1_000
    # The one that begins with its asyncio task has that task's first turn.
    assert found == [[1] * 9] * 3


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
async def test_who_is_cancelled_between_two_turns_has_no_other(first: bool, workers: int) -> None:
    steps: list[str] = []
    ids: dict[str, int] = {}

    async def cancels() -> str:
        await turn()
        await turn()
        steps.append("cancels")
        assert runner.cancel(ids["victim"])
        return "cancels"

    async def victim() -> None:
        try:
            while True:
                steps.append("victim")
                await turn()
        finally:
            steps.append("end")

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    runner = shared(queue.source, 2)
    async with runner.run_tasks() as progress:
        await warm(queue, progress, workers)
        ids["victim"] = workers + (2 if first else 1)
        for work in (cancels, victim) if first else (victim, cancels):
            await queue.sink.next(work)
        await queue.sink.return_()
        found = [envelope async for envelope in progress]
    assert sorted(summarize(found)) == ["CancelledError", "cancels"]
    assert steps[steps.index("cancels") :] == ["cancels", "end"]


async def test_one_that_fails_in_a_turn_does_not_stop_the_others() -> None:
    async def work(number: int) -> int:
        await turn()
        if number % 2:
            raise ValueError(number)
        await turn()
        return number

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 6).run_tasks() as progress:
        await warm(queue, progress, 6)
        for number in range(6):
            await queue.sink.next(Task(work, number))
        await queue.sink.return_()
        found = [envelope async for envelope in progress]
    # On a busy machine some may have begun, and ended, before the others.
    assert Counter(summarize(found)) == {"ValueError": 3, 0: 1, 2: 1, 4: 1}


@pytest.mark.parametrize("workers", [0, 1])
async def test_timeout_reaches_one_that_takes_turns(workers: int) -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                while True:
                    await turn()
        except TimeoutError:
            return f"too long, {me().cancelling()}"

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 1).run_tasks() as progress:
        await warm(queue, progress, workers)
        for _ in range(3):
            await queue.sink.next(work)
        await queue.sink.return_()
        assert summarize([e async for e in progress]) == ["too long, 0"] * 3


async def test_task_that_is_cancelled_in_its_first_step_hears_of_it_at_its_next() -> None:
    async def work() -> str:
        assert runner.cancel(2)
        try:
            await turn()
        except asyncio.CancelledError:
            return "heard"
        return "missed"

    runner = shared([one, work, one], 1)
    async with runner.run_tasks() as progress:
        assert summarize([envelope async for envelope in progress]) == [1, "heard", 1]


async def test_values_that_are_yielded_arrive() -> None:
    async def count() -> Any:
        for number in range(3):
            yield number
            await turn()

    found = await envelopes(shared([count, count], 1))
    assert [(e.task_id, e.type is FINAL, e.value) for e in found] == [
        (task, last, value)
        for task in (1, 2)
        for last, value in ((False, 0), (False, 1), (False, 2), (True, None))
    ]


async def test_nothing_is_kept_of_what_a_worker_did() -> None:
    class Thing:
        extra = 0

    def count() -> int:
        return sum(type(thing) is Thing for thing in gc.get_objects())

    async def work() -> int:
        thing = Thing()
        await future()
        return count() + thing.extra

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with shared(queue.source, 1).run_tasks() as progress:
        for _ in range(3):
            await queue.sink.next(work)
            assert (await anext(progress)).value == 1
        await quiet()
        assert count() == 0


async def test_errors_count_and_stop_the_run() -> None:
    async def fails() -> None:
        await turn()
        raise ValueError

    runner = shared([fails, one, one], 1, on_error="stop")
    [found] = await envelopes(runner)
    assert found.type is ERROR
    assert runner.snapshot().failed == 1


def test_isolate_is_a_flag() -> None:
    with pytest.raises(TypeError, match="isolate must be True or False, got 1 "):
        pool([], isolate=wrong(1))
