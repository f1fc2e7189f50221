from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    Final,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    SourceObj,
    Task,
)
from tests.pool_support import (
    ERROR,
    FINAL,
    INTERMEDIATE,
    envelopes,
    fail,
    one,
    pool,
    quiet,
    summarize,
)
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_typed_options_of_a_task_are_its_parameters() -> None:
    # Type checkers read the options of `Task` from a class that does not exist at run time.
    source = Path(inspect.getfile(Task)).read_text(encoding="utf-8")
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    typed = next(node for node in classes if node.name == "_Options")
    names = [ast.unparse(line.target) for line in typed.body if isinstance(line, ast.AnnAssign)]
    parameters = inspect.signature(Task).parameters.values()
    assert names == [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]


# on_error


async def test_errors_do_not_end_a_run() -> None:
    assert summarize(await envelopes(pool([fail, one, fail, one], 1))) == ["ValueError", 1] * 2


async def test_stop_ends_the_run_with_the_first_error() -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("hang")

    async def fail_later() -> None:
        await quiet()
        raise ValueError("no")

    runner = pool([hang, fail_later, hang, one], 3, on_error="stop")
    async with runner.run_tasks() as progress:
        found = [envelope async for envelope in progress]
        assert isinstance(progress.first_error, ValueError)
    # Each task that was called has its envelope. The fourth was not called and stays with the runner.
    assert sorted(summarize(found)) == ["CancelledError", "CancelledError", "ValueError"]
    assert ended == ["hang"] * 2
    assert summarize(await envelopes(runner)) == [1]


async def test_invalid_task_stops_the_run_too() -> None:
    tasks: list[Any] = [5, one]
    assert summarize(await envelopes(pool(tasks, on_error="stop"))) == ["TypeError"]


# ordered


async def test_ordered_envelopes_follow_their_tasks() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(index: int) -> AsyncIterator[Any]:
        yield f"{index} begins"
        await gates[index].wait()
        yield Final(index)

    async with pool(
        [Task(work, index) for index in range(3)], ordered=True
    ).run_tasks() as progress:
        for index in (2, 1):
            gates[index].set()
            await quiet()
        assert (await anext(progress)).value == "0 begins"
        gates[0].set()
        rest = [envelope.value async for envelope in progress]
    assert rest == [0, "1 begins", 1, "2 begins", 2]


async def test_ordered_run_is_bounded_by_its_window() -> None:
    gate = asyncio.Event()
    called: list[int] = []

    async def work(index: int) -> int:
        called.append(index)
        if not index:
            await gate.wait()
        return index

    tasks = [Task(work, index) for index in range(10)]
    async with pool(tasks, ordered=True, window=3).run_tasks() as progress:
        await quiet()
        assert called == [0, 1, 2]
        gate.set()
        assert [envelope.value async for envelope in progress] == list(range(10))


async def test_first_task_is_not_blocked_by_later_values() -> None:
    gate = asyncio.Event()

    async def first() -> AsyncIterator[str]:
        await gate.wait()
        for _ in range(5):
            yield "first"

    async def second() -> AsyncIterator[str]:
        while not gate.is_set():
            yield "second"
            await asyncio.sleep(0)
        yield "last"

    runner = pool([first, second], ordered=True, max_buffered=2)
    async with runner.run_tasks() as progress:
        # The parked values reach their limit.
        await quiet()
        assert runner.snapshot().unread == 2
        gate.set()
        values = [envelope.value async for envelope in progress]
    assert values[:6] == ["first"] * 5 + [None]
    assert set(values[6:-2]) == {"second"}
    assert values[-2:] == ["last", None]


@pytest.mark.parametrize("seed", range(10))
async def test_ordered_run_has_all_values_in_order(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def work(index: int, steps: int) -> AsyncIterator[tuple[int, int]]:
        for step in range(steps):
            yield index, step
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        if index % 7 == 3:
            raise ValueError(index)

    steps = [rng.randrange(4) for _ in range(100)]
    tasks: list[Any] = [Task(work, index, steps[index]) for index in range(100)]
    tasks[50] = "no task"
    runner = pool(
        tasks,
        rng.randint(1, 8),
        ordered=True,
        max_buffered=rng.choice((1, 3, 100)),
        window=rng.choice((None, 1, 5)),
        lookahead=rng.choice((1, 4)),
    )
    found = await envelopes(runner)
    assert [envelope.task_id for envelope in found] == sorted(e.task_id for e in found)
    values = [envelope.value for envelope in found if envelope.type is INTERMEDIATE]
    assert values == [(i, step) for i in range(100) if i != 50 for step in range(steps[i])]
    assert sum(envelope.type is ERROR for envelope in found) == 15
    assert runner.capacity.held == 0


async def test_source_error_is_in_order_in_an_ordered_run() -> None:
    class Broken(SourceObj[Any]):
        def __init__(self) -> None:
            super().__init__()
            self.left = [slow, one, None, one]

        async def __anext__(self) -> Any:
            if not self.left:
                raise StopAsyncIteration
            if (task := self.left.pop(0)) is None:
                raise ValueError("broken")
            return task

    async def slow() -> int:
        await quiet()
        return 0

    received: list[Any] = []
    async with pool(Broken(), ordered=True).run_tasks() as progress:
        while len(received) < 4:
            try:
                received.append((await anext(progress)).value)
            except ValueError as error:
                received.append(str(error))
        with pytest.raises(StopAsyncIteration):
            await anext(progress)
    assert received == [0, 1, "broken", 1]


# lookahead


class RecordingCapacity(CapacitySource):
    """A capacity that records its requests."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.requests: list[tuple[int, int]] = []

    def acquire(self, cost: Any = 1, *, priority: int = 0, **more: Any) -> Any:
        self.requests.append((cost, priority))
        return super().acquire(cost, priority=priority, **more)


@pytest.mark.parametrize("lookahead", [1, 3, 10])
async def test_pulled_is_at_most_called_plus_lookahead(lookahead: int) -> None:
    pulled = called = 0
    gate = asyncio.Event()

    class Counting(SourceObj[Any]):
        async def pull_impl(self) -> AsyncIterator[Any]:
            nonlocal pulled
            for _ in range(30):
                pulled += 1
                assert pulled <= called + lookahead
                yield work

    async def work() -> None:
        nonlocal called
        called += 1
        assert capacity.held <= 3
        await gate.wait()

    capacity = CapacitySource(3)
    runner = HierarchicalTaskPoolRunner(Counting(), capacity, lookahead=lookahead)
    async with runner.run_tasks() as progress:
        await quiet()
        assert (pulled, called, capacity.held) == (3 + lookahead, 3, 3)
        assert (runner.snapshot().queued, capacity.waiting) == (lookahead, lookahead)
        gate.set()
        assert len([envelope async for envelope in progress]) == 30


async def test_priorities_and_costs_reach_the_capacity() -> None:
    capacity = RecordingCapacity(2)
    gate = asyncio.Event()
    tasks = [
        Task(gate.wait, cost=2),
        Task(one, priority=5),
        Task(one, cost=2),
        Task(one, priority=-1),
    ]
    runner = HierarchicalTaskPoolRunner(tasks, capacity, lookahead=4)
    async with runner.run_tasks() as progress:
        await until(lambda: capacity.waiting == 3)
        assert capacity.requests == [(1, 5), (2, 0), (1, -1)]
        gate.set()
        assert summarize([envelope async for envelope in progress]) == [True, 1, 1, 1]


async def test_lookahead_calls_highest_priority_first() -> None:
    gate = asyncio.Event()
    order: list[int] = []
    tasks = [
        Task(gate.wait),
        *(Task(order.append, number, priority=number) for number in (1, 3, 2)),
    ]
    async with pool(tasks, 1, lookahead=3).run_tasks() as progress:
        await quiet()
        gate.set()
        assert len([envelope async for envelope in progress]) == 4
    assert order == [3, 2, 1]


async def test_later_task_that_fits_is_called_first() -> None:
    capacity = CapacitySource(3)
    outside = await capacity.acquire(2)
    order: list[str] = []

    def record(name: str) -> None:
        order.append(name)

    tasks = [Task(record, "big", cost=3), Task(record, "small")]
    async with HierarchicalTaskPoolRunner(tasks, capacity, lookahead=2).run_tasks() as progress:
        await quiet()
        assert order == ["small"]
        outside.release()
        assert len([envelope async for envelope in progress]) == 2
    assert order == ["small", "big"]


async def test_big_cost_is_not_starved() -> None:
    capacity = CapacitySource(3)
    outside = await capacity.acquire(2)
    order: list[str] = []
    tasks = [Task(order.append, "big", cost=3), *[Task(order.append, "small")] * 30]
    async with HierarchicalTaskPoolRunner(tasks, capacity, lookahead=2).run_tasks() as progress:
        await quiet()
        # Eight small tasks may pass it; then freed permits are kept for it.
        assert order == ["small"] * 8
        outside.release()
        assert len([envelope async for envelope in progress]) == 31
    assert order[8] == "big"


# Keys and callbacks


async def test_duplicate_key_is_an_error_that_names_the_task() -> None:
    gate = asyncio.Event()
    tasks = [Task(gate.wait, key="k"), Task(one, key="k"), Task(one, key="other")]
    async with pool(tasks).run_tasks() as progress:
        refused, other = await anext(progress), await anext(progress)
        gate.set()
        assert [envelope.value async for envelope in progress] == [True]
    assert isinstance(refused.error, ValueError)
    assert "key 'k' is that of task 1" in str(refused.error)
    assert (refused.attempt, other.key) == (0, "other")


async def test_key_can_be_reused_after_its_task() -> None:
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    async with pool(queue.source).run_tasks() as progress:
        for fn in (one, fail, one):
            await queue.sink.next(Task(fn, key="k"))
            assert (await anext(progress)).attempt == 1


async def test_callbacks_are_called_before_the_envelope() -> None:
    outcomes: list[Any] = []
    tasks = [
        Task(one, on_complete=outcomes.append, on_error=outcomes.append),
        Task(fail, on_complete=outcomes.append, on_error=outcomes.append),
    ]
    async with pool(tasks, 1).run_tasks() as progress:
        for index in range(2):
            envelope = await anext(progress)
            assert outcomes[index] is (envelope.value if envelope.type is FINAL else envelope.error)
    assert len(outcomes) == 2


async def test_callback_error_goes_to_loop_handler() -> None:
    loop = asyncio.get_running_loop()
    contexts: list[Any] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    def bad(value: object) -> None:
        raise ZeroDivisionError(value)

    tasks = [Task(one, on_complete=bad), Task(fail, on_error=bad)]
    assert summarize(await envelopes(pool(tasks, 1, name="mill"))) == [1, "ValueError"]
    assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError] * 2
    assert contexts[0]["message"] == "a callback of mill: task 1 raised"


class RecordingSource(SourceObj[Any]):
    """A source that records the outcomes of its items."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__()
        self.items = items
        self.outcomes: list[tuple[Any, Any]] = []

    async def pull_impl(self) -> AsyncIterator[Any]:
        while self.items:
            yield self.items.pop(0)

    def completed(self, item: Any, value: Any) -> None:
        self.outcomes.append((item, value))

    def failed(self, item: Any, error: BaseException) -> None:
        self.outcomes.append((item, type(error)))


async def test_source_is_notified_of_each_outcome() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    tasks: list[Any] = [one, Task(fail, key="k"), 5, hang, one]
    source = RecordingSource(list(tasks))
    capacity = CapacitySource(1)
    async with HierarchicalTaskPoolRunner(source, capacity).run_tasks() as progress:
        for _ in range(3):
            await anext(progress)
            assert source.outcomes
        await until(lambda: len(source.items) == 0 and capacity.held)
    assert len(source.outcomes) == 4
    assert dict(source.outcomes) == {
        one: 1,
        tasks[1]: ValueError,
        5: TypeError,
        hang: asyncio.CancelledError,
    }


# Debug mode


@pytest.mark.loops("asyncio", "eager")
@pytest.mark.parametrize("debug", [True, False])
async def test_blocking_task_is_named_in_debug_mode(
    caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    loop.slow_callback_duration = 0.01

    async def blocks() -> int:
        await asyncio.sleep(0)
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        return 1

    with caplog.at_level(logging.WARNING, logger="headrace.pool"):
        tasks = [Task(blocks, key="slow"), Task(one, key="fast"), Task(fail)]
        found = await envelopes(pool(tasks, 1, name="mill"))
    assert summarize(found) == [1, 1, "ValueError"]
    pool_records = [record for record in caplog.records if record.name == "headrace.pool"]
    named = [record.getMessage() for record in pool_records if "task slow" in record.getMessage()]
    assert len(named) == debug
    assert all(message.startswith("mill: task slow blocked the event loop") for message in named)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"on_error": "ignore"},
            "on_error must be 'stop_if_fatal', 'continue' or 'stop', not 'ignore'",
        ),
        ({"ordered": 1}, "ordered must be True or False, got 1"),
        ({"ordered": True, "window": 0}, "window must be at least 1, got 0"),
        ({"window": 3}, "window needs ordered=True, got window=3"),
        ({"lookahead": 0}, "lookahead must be at least 1, got 0"),
        ({"retry": -1}, "retry must be at least 0, got -1"),
        ({"retry": 1.5}, r"retry must be a Retry, a number of retries or None, not 1.5 \(float\)"),
        ({"timeout": 0}, "timeout must be positive, got 0"),
        ({"timeout": 10**400}, "^timeout must be a finite number of seconds, or math.inf"),
        ({"timeout": "1"}, r"timeout must be a number of seconds or None, got '1' \(str\)"),
    ],
)
def test_bad_runner_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pool([], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": []}, r"key must be hashable, not \[\]"),
        ({"cost": {}}, "cost must name a resource at least"),
        ({"cost": {"tokens": 0}}, "cost must be positive and finite, got {'tokens': 0}"),
        ({"cost": math.nan}, "cost must be positive and finite, got nan"),
        ({"priority": 1.5}, r"priority must be an integer, not 1.5 \(float\)"),
        ({"timeout": -1}, "timeout must be positive, got -1"),
        ({"queue_timeout": math.nan}, "queue_timeout must be positive, got nan"),
        ({"timeout": 10**400}, "Task: timeout must be a finite number of seconds, or math.inf"),
        ({"timeout": -(10**400)}, "Task: timeout must be positive, got -1000"),
        ({"queue_timeout": 10**5000}, "Task: queue_timeout must be .*, got a huge number"),
        ({"cost": -(10**5000)}, "Task: cost must be positive and finite, got a huge number"),
        ({"cost": {"tokens": -(10**5000)}}, "Task: cost must be positive and finite, got <dict>"),
        ({"retry": True}, r"retry must be a Retry, a number of retries or None, not True \(bool\)"),
        ({"on_complete": 1}, r"on_complete must be callable or None, got 1 \(int\)"),
        ({"on_error": fail}, "on_error must be a plain function, not the async function"),
    ],
)
def test_bad_task_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Task(one, **options)
