from __future__ import annotations

import asyncio
import pickle
import sys
from asyncio import tasks
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from headrace import (
    CapacitySource,
    EnvelopeType,
    Final,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Task,
    TaskProgressEnvelope,
)
from tests.pool_support import FINAL, INTERMEDIATE, envelopes, error_of, one, pool, quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

pytestmark = pytest.mark.usefixtures("task_path")


where: ContextVar[str] = ContextVar("where", default="nowhere")


async def value_of(task: Any) -> Any:
    """Return the value of the single envelope of a task."""
    [envelope] = await envelopes(pool([task]))
    assert (envelope.type, envelope.error) == (FINAL, None)
    return envelope.value


async def test_demo_program() -> None:
    queue: PushPullBufferObj[Callable[[], Any]] = PushPullBufferObj()
    root = CapacitySource(10)
    capacity = CapacitySource(2, parent=root)
    runner = HierarchicalTaskPoolRunner(queue.source, capacity, name="demo")
    running = most = 0

    def enter() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert capacity.held >= running

    def leave() -> None:
        nonlocal running
        running -= 1

    async def function() -> str:
        enter()
        for _ in range(9):
            await asyncio.sleep(0)
        leave()
        return "function"

    async def generator() -> AsyncIterator[str | Final[str]]:
        enter()
        yield "first"
        for _ in range(9):
            await asyncio.sleep(0)
        yield "second"
        leave()
        yield Final("generator")

    async def supply() -> None:
        for _ in range(20):
            await queue.sink.next(function)
            await asyncio.sleep(0)
            await queue.sink.next(generator)
        await queue.sink.return_()

    received: Counter[tuple[EnvelopeType, object]] = Counter()
    async with runner.run_tasks() as progress, asyncio.TaskGroup() as group:
        group.create_task(supply())
        async for envelope in progress:
            received[envelope.type, envelope.value] += 1
    assert received == {
        (FINAL, "function"): 20,
        (INTERMEDIATE, "first"): 20,
        (INTERMEDIATE, "second"): 20,
        (FINAL, "generator"): 20,
    }
    assert most == 2
    assert root.held == 0


async def test_async_function_returns_its_result() -> None:
    assert await value_of(one) == 1


async def test_plain_callable_returns_its_result() -> None:
    assert await value_of(lambda: 2) == 2


async def test_coroutine_of_a_plain_callable_is_awaited() -> None:
    def work() -> Coroutine[Any, Any, int]:
        return one()

    assert await value_of(work) == 1


async def test_future_of_a_plain_callable_is_awaited() -> None:
    def answer() -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.get_loop().call_soon(future.set_result, 3)
        return future

    assert await value_of(answer) == 3


async def test_generator_without_final_ends_with_none() -> None:
    async def count() -> AsyncIterator[int]:
        yield 1
        yield 2

    received = await envelopes(pool([count]))
    assert [(e.type, e.value) for e in received] == [
        (INTERMEDIATE, 1),
        (INTERMEDIATE, 2),
        (FINAL, None),
    ]
    assert {e.task_id for e in received} == {1}


async def test_generator_continues_after_its_final() -> None:
    ended: list[str] = []

    class Block:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
            ended.append(repr(error))

    async def work() -> AsyncIterator[Final[int]]:
        async with Block():
            yield Final(1)

    assert await value_of(work) == 1
    assert ended == ["None"]


async def test_yield_after_final_is_an_error() -> None:
    closed = False

    async def work() -> AsyncIterator[int | Final[int]]:
        nonlocal closed
        try:
            yield Final(1)
            yield 2
        finally:
            closed = True

    error = await error_of(work)
    assert isinstance(error, RuntimeError)
    assert "after its Final" in str(error)
    assert closed


async def test_task_passes_its_arguments_and_its_key() -> None:
    [envelope] = await envelopes(pool([Task(divmod, 7, 2, key="seven")]))
    assert (envelope.key, envelope.value) == ("seven", (3, 1))


async def test_callables_run_in_copies_of_the_runs_context() -> None:
    async def swap_context() -> str:
        before = where.get()
        where.set("inside")
        return before

    runner = pool([swap_context, swap_context])
    where.set("at the run")
    run = runner.run_tasks()
    where.set("later")
    async with run:
        assert [envelope.value async for envelope in run] == ["at the run", "at the run"]
    assert where.get() == "later"


async def test_task_runs_in_copies_of_its_own_context() -> None:
    def swap_context() -> str:
        before = where.get()
        where.set("inside")
        return before

    where.set("at the task")
    task = Task(swap_context)
    in_thread = Task(swap_context, thread=True)
    where.set("at the run")
    received = await envelopes(pool([task, task, in_thread, in_thread]))
    assert [envelope.value for envelope in received] == ["at the task"] * 4


async def test_each_task_is_its_own_asyncio_task() -> None:
    names: list[str] = []

    async def work() -> int:
        current = asyncio.current_task()
        assert current is not None
        current.add_done_callback(lambda task: names.append(f"{task.get_name()} {task.result()}"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        return 1

    await envelopes(pool([work, Task(work, key="k")], name="mill"))
    assert sorted(names) == ["mill: task 1 1", "mill: task k 1"]


@pytest.mark.loops("asyncio")
async def test_pool_never_patches_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    patched: list[set[str]] = []

    def record() -> None:
        # Instance attributes that hide those of the class.
        patched.append({name for name in vars(loop) if hasattr(type(loop), name)})

    # asyncio calls this in the constructor of each task; from 3.12 on it does so in C.
    registry: Any = getattr(tasks, "_all_tasks", None)
    if registry is not None:
        add = registry.add

        def added(task: object) -> None:
            record()
            add(task)

        monkeypatch.setattr(registry, "add", added)

    async def work() -> None:
        record()
        await asyncio.sleep(0)
        record()

    await envelopes(pool([work] * 20, 8))
    assert patched.count(set()) == len(patched) >= 40


async def test_anyio_scopes_work_inside_a_task() -> None:
    async def times_out() -> bool:
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught

    async def cancels_its_group() -> list[str]:
        ended: list[str] = []

        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("child")

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await asyncio.sleep(0)
            group.cancel_scope.cancel()
        return ended

    async def shields() -> str:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "through"

    tasks = [times_out, cancels_its_group, shields] * 3
    received = await envelopes(pool(tasks, 2, ordered=True))
    assert [envelope.value for envelope in received] == [True, ["child"], "through"] * 3


async def test_tasks_can_await_the_same_future() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await answer

    async def resolve() -> None:
        answer.set_result(7)

    assert [e.value for e in await envelopes(pool([work, work, work, resolve]))] == [None, 7, 7, 7]


@pytest.mark.parametrize("iterations", [0, 1])
async def test_cancelled_task_cancels_its_awaitable(iterations: int) -> None:
    children: list[asyncio.Task[object]] = []

    async def parent() -> None:
        children.append(asyncio.ensure_future(asyncio.Event().wait()))
        await children[0]

    async def cancel_first() -> None:
        for _ in range(iterations):
            await asyncio.sleep(0)
        runner.cancel(1)

    runner = pool([parent, cancel_first])
    async with runner.run_tasks() as progress:
        found = [envelope async for envelope in progress]
    assert {e.task_id: type(e.error) for e in found} == {1: asyncio.CancelledError, 2: type(None)}
    assert children[0].cancelled()


async def test_task_holds_its_cost() -> None:
    capacity = CapacitySource(4)
    held: list[int] = []

    async def work() -> None:
        held.append(capacity.held)
        await asyncio.sleep(0)

    runner = HierarchicalTaskPoolRunner([Task(work, cost=3), Task(work, cost=2)], capacity)
    await envelopes(runner)
    assert held == [3, 2]


@pytest.mark.usefixtures("large_budget")
async def test_ready_task_runs_in_the_iteration_of_its_pull() -> None:
    order: list[str] = []

    async def work() -> None:
        order.append("work")

    async with pool([work]).run_tasks():
        asyncio.get_running_loop().call_soon(order.append, "turn")
        await quiet()
    assert order == ["work", "turn"]


async def test_envelope_has_its_times() -> None:
    async def work() -> AsyncIterator[int]:
        yield 1

    loop = asyncio.get_running_loop()
    before = loop.time()
    intermediate, final = await envelopes(pool([work]))
    assert intermediate.finished is None
    assert final.started is not None
    assert final.finished is not None
    assert before <= final.queued <= final.started <= final.finished <= loop.time()
    assert (final.attempt, intermediate.started) == (1, final.started)


@pytest.mark.loops("asyncio")
async def test_clock_is_read_once_per_state_change(
    task_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        reads = 0.0

        def monotonic(self) -> float:
            self.reads += 1
            return self.reads

    if task_path == "timed":
        pytest.skip("the event loop calls its timers by another clock")
    clock = Clock()
    monkeypatch.setattr("headrace.pool.engine.time", clock)
    await envelopes(pool([one] * 100))
    # Queued and called, which is one reading, and ended.
    assert clock.reads == 100 * 2


def test_envelope_is_immutable_and_slotted() -> None:
    envelope = TaskProgressEnvelope(1, None, FINAL, 5, None, 1, 0.0, 0.0, 0.0)
    with pytest.raises(AttributeError):
        envelope.value = 6  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert not hasattr(envelope, "__dict__")


def test_envelope_is_a_value() -> None:
    first = TaskProgressEnvelope(1, "k", FINAL, 5, None, 1, 0.0, 0.5, 1.0)
    assert first == pickle.loads(pickle.dumps(first))  # noqa: S301 -- it was made here
    assert hash(first) == hash(TaskProgressEnvelope(1, "k", FINAL, 5, None, 1, 0.0, 0.5, 1.0))
    assert first != TaskProgressEnvelope(2, "k", FINAL, 5, None, 1, 0.0, 0.5, 1.0)
    assert repr(first).startswith("TaskProgressEnvelope(task_id=1, key='k', type=")
    match first:
        case TaskProgressEnvelope(1, "k", _, 5):
            pass
        case _:
            pytest.fail("the envelope has no positional pattern")


async def test_progress_is_a_pull_object() -> None:
    async with pool([one] * 3).run_tasks() as progress:
        values = progress.filter(lambda e: e.type is FINAL).map(lambda e: e.value)
        assert [value async for value in values] == [1, 1, 1]


async def test_source_can_be_any_iterable() -> None:
    async def tasks() -> AsyncIterator[Callable[[], Any]]:
        yield one

    class Indexed:
        def __getitem__(self, index: int) -> Callable[[], Any]:
            return [one][index]

    source: Any
    for source in ((one,), iter([one]), tasks(), Indexed()):
        assert [envelope.value for envelope in await envelopes(pool(source))] == [1]


NO_TASKS: list[Any] = []


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((5, CapacitySource(1)), {}, r"source must be .*5 \(int\)"),
        ((NO_TASKS, "3"), {}, r"capacity must be a CapacitySource, .* got '3' \(str\)"),
        ((NO_TASKS, 0), {}, r"capacity must be at least 1, got 0 \(int\)"),
        ((NO_TASKS, True), {}, r"capacity must be a CapacitySource, .* got True \(bool\)"),
        (
            (NO_TASKS, CapacitySource(1)),
            {"name": 4},
            r"name must be a string or None, not 4 \(int\)",
        ),
        (
            (NO_TASKS, CapacitySource(1)),
            {"max_buffered": 1.5},
            r"max_buffered must be an integer, got 1.5 \(float\)",
        ),
        (
            (NO_TASKS, CapacitySource(1)),
            {"max_buffered": 0},
            "max_buffered must be at least 1, got 0",
        ),
        ((NO_TASKS, CapacitySource(1)), {"speed": 1}, "speed"),
    ],
)
def test_bad_runner_options_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        HierarchicalTaskPoolRunner(*arguments, **options)


@pytest.mark.parametrize(
    ("fn", "options", "message"),
    [
        (5, {}, r"fn must be callable, not 5 \(int\)"),
        (one, {"cost": 0}, "cost must be positive and finite, got 0"),
        (one, {"cost": "2"}, r"cost must be a positive number, .*not '2' \(str\)"),
        (one, {"cost": True}, r"cost must be a positive number, .*not True \(bool\)"),
        (one, {"thread": 1}, r"thread must be True or False, got 1 \(int\)"),
        (one, {"thread": True}, "thread=True takes a plain function"),
        (one, {"colour": "red"}, "colour"),
    ],
)
def test_bad_task_options_are_refused(fn: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Task(fn, **options)


@pytest.mark.virtual
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio tasks are over at once there")
async def test_ended_asyncio_tasks_do_not_accumulate() -> None:
    """Before 3.12, each lives until the next event-loop iteration, and many of them trigger useless garbage collections."""
    loop = asyncio.get_running_loop()
    iterations = Counter[int]()
    now = 0

    def count() -> None:
        nonlocal now
        now += 1
        if iterations.total() < 500:
            loop.call_soon(count)

    async def work() -> None:
        iterations[now] += 1

    count()
    # On this clock no time passes, so the yield budget is never used up.
    assert len(await envelopes(pool([work] * 500, 500))) == 500
    assert max(iterations.values()) <= 96
