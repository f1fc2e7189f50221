"""Runs that their failures stop: fatal errors, `max_failures`, and the retry budget."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    DependencyGraph,
    DependencySourceObj,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Retry,
    RunStopped,
    SourceCancelledError,
    SourceIterObj,
    Task,
    Verdict,
)
from headrace.pool import ThreadExecutor
from tests.pool_support import ERROR, FINAL, envelopes, pool, quiet, summarize
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from headrace.pool.progress import TaskRun


class Refused(Exception):
    """An answer that every call gets."""

    status_code = 401


class Flaky(Exception):
    """An answer that another call may not get."""


async def read(progress: TaskRun) -> tuple[list[Any], RunStopped]:
    """Read all envelopes and the error at the end."""
    found = []
    with pytest.raises(RunStopped) as stopped:
        async for envelope in progress:
            found.append(envelope)
    with pytest.raises(StopAsyncIteration):
        await anext(progress)
    return found, stopped.value


class Work:
    """Counts the calls by name; the calls of the names in `bad` are refused."""

    def __init__(self, *bad: int, seconds: float = 0.01) -> None:
        self.bad = set(bad)
        self.seconds = seconds
        self.calls: list[int] = []

    async def __call__(self, name: int) -> int:
        self.calls.append(name)
        await asyncio.sleep(self.seconds * (1 + name % 3))
        if name in self.bad:
            raise Refused
        return name

    def in_thread(self, name: int) -> int:
        self.calls.append(name)
        if name in self.bad:
            raise Refused
        return name

    def tasks(self, number: int, **options: Any) -> Iterator[Task]:
        for name in range(number):
            yield Task(self, name, **options)


def names(items: list[Any]) -> list[int]:
    return [item.args[0] for item in items]


LIMIT = 8


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("options", "task_options"),
    [
        ({}, {}),
        ({"ordered": True}, {}),
        ({"ordered": True, "window": 20, "lookahead": 5}, {}),
        ({"lookahead": 20}, {"priority": 3}),
        ({"retry": 5}, {}),
        ({"lookahead": 3}, {"cost": {"slots": 1}}),
        ({"max_buffered": 2}, {}),
    ],
)
async def test_fatal_error_stops_the_run(
    options: dict[str, Any], task_options: dict[str, Any]
) -> None:
    work = Work(99)
    source = work.tasks(10_000, **task_options)
    runner = pool(source, LIMIT, **options)
    async with runner.run_tasks() as progress:
        found, stopped = await read(progress)
    assert isinstance(stopped.__cause__, Refused)
    assert "task 100 failed with a fatal error (401 of Refused), so no more" in str(stopped)
    # Calls that ran are delivered, and each item is called, handed back, or still in the source; once.
    assert sorted(e.value for e in found if e.type is FINAL) == sorted({*work.calls} - {99})
    assert [e.error for e in found if e.type is ERROR] == [stopped.__cause__]
    assert len(work.calls) <= 100 + LIMIT
    back = await runner.drain()
    assert len(back) <= options.get("lookahead", 1)
    rest = [task.args[0] for task in source]
    assert sorted([*work.calls, *names(back), *rest]) == list(range(10_000))
    assert runner.capacity.held == runner.capacity.waiting == 0
    assert runner.snapshot().queued == 0


@pytest.mark.virtual
async def test_no_task_is_called_after_a_fatal_error() -> None:
    work, after = Work(99), []

    async def call(name: int) -> int:
        after.append(stopped[:])
        return await work(name)

    stopped: list[int] = []
    tasks = (Task(call, name, on_error=lambda _: stopped.append(1)) for name in range(1000))
    with pytest.raises(RunStopped):
        await envelopes(pool(tasks, LIMIT, lookahead=10))
    assert [1] not in after


@pytest.mark.virtual
async def test_next_run_continues_with_what_was_handed_back() -> None:
    work = Work(5)
    runner = pool(work.tasks(40, key=None), 3, lookahead=6)
    with pytest.raises(RunStopped):
        await envelopes(runner)
    assert runner.snapshot().queued > 0
    work.bad.clear()
    done = await envelopes(runner)
    assert sorted(work.calls) == list(range(40))
    assert len(done) == 40 - sum(1 for name in work.calls[: 40 - len(done)])


@pytest.mark.virtual
async def test_keys_are_free_after_the_stop() -> None:
    work = Work(0)
    tasks = [Task(work, name, key=f"k{name}") for name in range(9)]
    runner = pool(tasks, 2, lookahead=9)
    with pytest.raises(RunStopped, match="task k0 failed"):
        await envelopes(runner)
    back = await runner.drain()
    assert [task.key for task in back] == [f"k{name}" for name in range(9 - len(back), 9)]


@pytest.mark.virtual
async def test_map_pool_ends_behind_its_running_calls() -> None:
    work = Work(20)
    results = SourceIterObj(range(1000)).map_pool(work, CapacitySource(LIMIT), ordered=True)
    found: list[Any] = []
    async with results:
        while True:
            try:
                found.append(await anext(results))
            except StopAsyncIteration:
                break
            except (Refused, RunStopped) as error:
                found.append(type(error))
        left = names(await results.runner.drain())
    assert found[:21] == [*range(20), Refused]
    assert found[-1] is RunStopped
    assert found[21:-1] == list(range(21, 21 + len(found) - 22))
    assert len(work.calls) == len(found) - 1 <= 21 + 2 * LIMIT
    assert left == list(range(len(work.calls), len(work.calls) + len(left)))


async def test_threads_that_run_are_awaited() -> None:
    work = Work(10)
    tasks = iter([Task(work.in_thread, name) for name in range(1000)])
    async with ThreadExecutor() as executor:
        runner = pool(tasks, 4, executor=executor, lookahead=3)
        async with runner.run_tasks() as progress:
            found, _ = await read(progress)
    back = names(await runner.drain())
    rest = names(list(tasks))
    assert len(found) == len(work.calls) <= 11 + 4 + 3
    assert sorted([*work.calls, *back, *rest]) == list(range(1000))


@pytest.mark.virtual
async def test_only_the_run_that_failed_stops() -> None:
    capacity = CapacitySource(4)
    bad, good = Work(10), Work()
    first = HierarchicalTaskPoolRunner(bad.tasks(500), capacity)
    second = HierarchicalTaskPoolRunner(good.tasks(500), capacity)
    stopped, found = await asyncio.gather(
        envelopes(first), envelopes(second), return_exceptions=True
    )
    assert isinstance(stopped, RunStopped)
    assert isinstance(found, list)
    assert len(found) == 500
    assert len(bad.calls) <= 11 + 4
    assert capacity.held == capacity.waiting == 0


@pytest.mark.virtual
@pytest.mark.parametrize("place", [0, 9])
async def test_fatal_error_of_the_first_and_the_last_task(place: int) -> None:
    work = Work(place, seconds=0)
    runner = pool(work.tasks(10), 2)
    async with runner.run_tasks() as progress:
        found, _ = await read(progress)
    left = [*names(await runner.drain())]
    assert len(found) == len(work.calls)
    assert work.calls == list(range(len(work.calls)))
    assert (place == 9) == (len(work.calls) == 10)
    assert place == 9 or left


async def test_fatal_error_in_a_first_step() -> None:
    calls = []

    async def refused(name: int) -> None:
        calls.append(name)
        raise Refused

    runner = pool([Task(refused, name) for name in range(100)], 4, lookahead=3)
    async with runner.run_tasks() as progress:
        found, _ = await read(progress)
    assert len(found) == len(calls) == 1
    assert runner.capacity.held == 0


@pytest.mark.virtual
async def test_two_fatal_errors_at_once() -> None:
    async def refused(name: int) -> None:
        await asyncio.sleep(1)
        raise Refused(name)

    runner = pool([Task(refused, name) for name in range(100)], 4)
    async with runner.run_tasks() as progress:
        found, stopped = await read(progress)
    assert summarize(found) == ["Refused"] * 4
    assert stopped.__cause__ is found[0].error


@pytest.mark.virtual
async def test_tasks_that_wait_for_another_call_are_cancelled() -> None:
    async def flaky() -> None:
        raise Flaky

    async def refused() -> None:
        await asyncio.sleep(1)
        raise Refused

    class Busy(Exception):
        status_code = 429
        retry_after = 200

    async def busy() -> None:
        raise Busy

    for work in (flaky, busy):
        calm = Retry(3, backoff=100)
        # Two capacities, so that the cooldown of one does not stop the other.
        runner = pool([Task(refused), Task(work, retry=calm)], 2)
        async with runner.run_tasks() as progress:
            found, _ = await read(progress)
        assert asyncio.get_running_loop().time() < 10
        assert sorted(summarize(found)) == ["CancelledError", "Refused"]
        assert runner.capacity.held == runner.capacity.waiting == 0


@pytest.mark.virtual
async def test_running_tasks_are_not_called_again_after_the_stop() -> None:
    calls = []

    async def flaky() -> None:
        calls.append(1)
        await asyncio.sleep(2)
        raise Flaky

    async def refused() -> None:
        await asyncio.sleep(1)
        raise Refused

    runner = pool([flaky, refused], 2, retry=Retry(5))
    async with runner.run_tasks() as progress:
        found, _ = await read(progress)
    assert summarize(found) == ["Refused", "Flaky"]
    assert len(calls) == 1


@pytest.mark.virtual
async def test_slow_head_of_an_ordered_run_is_delivered_first() -> None:
    work = Work(3)

    async def call(name: int) -> int:
        if name == 0:
            await asyncio.sleep(60)
        return await work(name)

    runner = pool([Task(call, name) for name in range(50)], 4, ordered=True)
    async with runner.run_tasks() as progress:
        found, _ = await read(progress)
    assert [e.task_id for e in found] == list(range(1, len(found) + 1))
    assert found[0].value == 0


@pytest.mark.virtual
async def test_fatal_error_during_drain() -> None:
    work = Work(1, seconds=1)

    async def flaky() -> None:
        raise Flaky

    calm = Retry(3, backoff=1000)
    tasks = [Task(work, 0), Task(work, 1), Task(flaky, retry=calm), *work.tasks(4)]
    runner = pool(tasks, 3, lookahead=2)
    async with runner.run_tasks() as progress:
        await until(lambda: runner.snapshot().backing_off == 1)
        left = await runner.drain()
        found, _ = await read(progress)
    assert sorted(summarize(found), key=str) == [0, 0, "CancelledError", "Refused"]
    assert names(left) == [1, 2]


@pytest.mark.virtual
async def test_fatal_error_during_pause() -> None:
    work = Work(1, seconds=1)
    runner = pool(work.tasks(9), 2, lookahead=2)
    async with runner.run_tasks() as progress:
        await quiet()
        runner.pause()
        found, _ = await read(progress)
    assert len(found) == 2
    assert names(await runner.drain())[0] == 2


@pytest.mark.virtual
async def test_stop_while_the_source_is_idle() -> None:
    queue: PushPullBufferObj[Task] = PushPullBufferObj()
    work = Work(0, seconds=1)
    runner = HierarchicalTaskPoolRunner(queue.source, CapacitySource(4))
    await queue.sink.next(Task(work, 0))
    async with runner.run_tasks() as progress:
        found, _ = await read(progress)
    assert summarize(found) == ["Refused"]
    # The cancelled pull has lost nothing.
    await queue.sink.next(Task(work, 1))
    assert len(queue) == 1


@pytest.mark.virtual
@pytest.mark.parametrize("close", [False, True])
async def test_stop_closes_the_source_only_if_requested(close: bool) -> None:
    closed: list[bool] = []

    async def tasks() -> AsyncIterator[Task]:
        try:
            for name in range(10):
                yield Task(work, name)
        finally:
            closed.append(True)

    work = Work(0)
    async with SourceIterObj(tasks()).prefetch(1) as source:
        runner = pool(source, 2)
        async with runner.run_tasks(close_source=close) as progress:
            await read(progress)
        assert bool(closed) == close


@pytest.mark.virtual
async def test_consumer_that_is_cancelled_while_the_run_stops() -> None:
    work = Work(1, seconds=10)
    runner = pool(work.tasks(50), 4, lookahead=3)

    async def consume() -> None:
        async with runner.run_tasks() as progress:
            async for _ in progress:
                pass

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(21)
    assert runner.snapshot().failed == 1
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert runner.capacity.held == runner.capacity.waiting == 0
    back = names(await runner.drain())
    assert back == list(range(len(work.calls), len(work.calls) + len(back)))


@pytest.mark.virtual
async def test_leaving_after_the_stop_raises_nothing() -> None:
    work = Work(0)
    async with pool(work.tasks(9), 2).run_tasks() as progress:
        async for envelope in progress:
            if envelope.error is not None:
                break
    async with pool(Work(0).tasks(9), 2).run_tasks() as progress:
        await asyncio.sleep(1)
        assert not progress.running


@pytest.mark.virtual
async def test_abort_while_the_run_stops() -> None:
    work = Work(0, seconds=1)
    runner = pool(work.tasks(9), 3)
    async with runner.run_tasks() as progress:
        await asyncio.sleep(1.5)
        await runner.abort()
        found, _ = await read(progress)
    assert sorted(summarize(found)) == ["CancelledError", "CancelledError", "Refused"]


@pytest.mark.virtual
async def test_graph_continues_after_the_stop() -> None:
    graph = DependencyGraph()
    work = Work(0)
    for name in range(6):
        graph.add(name, Task(work, name), [name - 1] if name % 3 else [])
    source = DependencySourceObj(graph)
    runner = HierarchicalTaskPoolRunner(source, CapacitySource(1), lookahead=4)
    with pytest.raises(RunStopped):
        await envelopes(runner)
    assert work.calls == [0]
    found = await envelopes(runner)
    assert work.calls == [0, 3, 4, 5]
    assert summarize(found) == [3, 4, 5]


@pytest.mark.virtual
async def test_run_raises_the_stop() -> None:
    with pytest.raises(RunStopped) as stopped:
        await pool(Work(3).tasks(100), 2).run()
    assert isinstance(stopped.value.__cause__, Refused)


@pytest.mark.virtual
@pytest.mark.parametrize("how", ["on_error", "classify", "of the task"])
async def test_run_can_go_on_after_a_fatal_error(how: str) -> None:
    harmless = Retry(0, classify=lambda _: "permanent")
    by_way: dict[str, dict[str, Any]] = {
        "on_error": {"on_error": "continue"},
        "classify": {"retry": harmless},
        "of the task": {},
    }
    options = by_way[how]
    of_task = {"retry": harmless} if how == "of the task" else {}
    found = await envelopes(pool(Work(3).tasks(9, **of_task), 2, **options))
    assert len(found) == 9


@pytest.mark.virtual
@pytest.mark.parametrize("cooldown", [True, False])
async def test_own_classify_is_called_once_and_stops(cooldown: bool) -> None:
    judged = []

    def judge(error: Exception) -> Verdict:
        judged.append(error)
        return Verdict("fatal", reason="the disk is full")

    async def fail() -> None:
        raise Flaky

    with pytest.raises(RunStopped, match=r"a fatal error \(the disk is full\)"):
        await envelopes(pool([fail] * 5, 1, retry=Retry(2, classify=judge), cooldown=cooldown))
    assert len(judged) == 1


@pytest.mark.virtual
async def test_own_classify_that_raises_does_not_stop() -> None:
    def judge(error: Exception) -> Verdict:
        raise error.__class__("judge")

    async def fail() -> None:
        raise Refused

    found = await envelopes(pool([fail] * 3, 1, retry=Retry(0, classify=judge)))
    assert [str(e.error) for e in found] == ["judge"] * 3


# max_failures


def failing(numbers: set[int], total: int) -> list[Task]:
    async def work(name: int) -> int:
        await asyncio.sleep(1)
        if name in numbers:
            raise Flaky(name)
        return name

    return [Task(work, name) for name in range(total)]


@pytest.mark.virtual
@pytest.mark.parametrize("most", [0, 1, 10])
async def test_more_failures_than_allowed_stop_the_run(most: int) -> None:
    runner = pool(failing(set(range(0, 200, 2)), 200), 1, max_failures=most)
    async with runner.run_tasks() as progress:
        found, stopped = await read(progress)
    failed = [e for e in found if e.error is not None]
    assert len(failed) == most + 1
    assert len(found) == 2 * most + 1
    assert stopped.__cause__ is failed[-1].error
    tasks = "1 task" if most == 0 else f"{most + 1} tasks"
    assert f"{tasks} failed, more than max_failures={most}; the last is pool-" in str(stopped)
    assert f"task {2 * most + 1} (Flaky), so no more tasks were called" in str(stopped)


@pytest.mark.virtual
async def test_as_many_failures_as_allowed_do_not_stop() -> None:
    found = await envelopes(pool(failing(set(range(10)), 50), 3, max_failures=10))
    assert len(found) == 50


@pytest.mark.virtual
async def test_share_of_failures_is_compared_from_20_tasks_on() -> None:
    # The first ten fail; a share of 30% is exceeded at the 20th task, but compared only at the next failure.
    runner = pool(failing({*range(10), 25}, 100), 1, max_failures=0.3)
    async with runner.run_tasks() as progress:
        found, stopped = await read(progress)
    assert len(found) == 26
    assert "11 of 26 tasks failed, more than max_failures=0.3" in str(stopped)
    assert (
        len(await envelopes(pool(failing(set(range(0, 100, 4)), 100), 1, max_failures=0.3))) == 100
    )
    # Fewer tasks than that are never stopped by a share.
    assert len(await envelopes(pool(failing(set(range(19)), 19), 1, max_failures=0.1))) == 19


@pytest.mark.virtual
async def test_cancelled_and_retried_tasks_are_no_failures() -> None:
    called = set()

    async def flaky(name: int) -> None:
        if name not in called:
            called.add(name)
            raise Flaky

    tasks = [Task(flaky, name, retry=1) for name in range(9)]
    assert len(await envelopes(pool(tasks, 1, max_failures=0))) == 9
    runner = pool([asyncio.Event().wait, *failing(set(), 3)], 2, max_failures=0)
    async with runner.run_tasks() as progress:
        await quiet()
        assert runner.cancel(1)
        assert len([envelope async for envelope in progress]) == 4


@pytest.mark.virtual
async def test_each_run_counts_its_own_failures() -> None:
    queue: PushPullBufferObj[Task] = PushPullBufferObj()
    runner = HierarchicalTaskPoolRunner(queue.source, CapacitySource(1), max_failures=2)
    for _ in range(3):
        for task in failing({0, 1}, 2):
            await queue.sink.next(task)
        async with runner.run_tasks() as progress:
            assert summarize([await anext(progress) for _ in range(2)]) == ["Flaky"] * 2
            await runner.drain()
            assert [envelope async for envelope in progress] == []


# retry_budget


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [1, 20])
@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"cooldown": False}])
async def test_retry_budget_bounds_the_calls(limit: int, options: dict[str, Any]) -> None:
    calls = 0

    async def flaky() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        raise Flaky

    retry = Retry(5, backoff=0.5)
    found = await envelopes(pool([flaky] * 1000, limit, retry=retry, retry_budget=0.2, **options))
    assert len(found) == 1000
    assert 1190 <= calls <= 1210
    notes = [getattr(e.error, "__notes__", []) for e in found]
    spent = [note for one in notes for note in one if "the retry budget of pool-" in note]
    assert len(spent) > 700
    assert "(20% of the calls) is used up" in spent[0]


@pytest.mark.virtual
async def test_retry_budget_leaves_rare_failures_alone() -> None:
    called: set[int] = set()

    async def flaky(name: int) -> int:
        await asyncio.sleep(0.1)
        if name % 10 == 0 and name not in called:
            called.add(name)
            raise Flaky
        return name

    tasks = [Task(flaky, name) for name in range(1000)]
    found = await envelopes(pool(tasks, 10, retry=3, retry_budget=0.2))
    assert all(envelope.error is None for envelope in found)


@pytest.mark.virtual
async def test_retry_budget_covers_one_failure_of_all_that_run() -> None:
    """A healthy run, and then one disturbance that hits all 400 running calls."""
    is_down = False

    async def work(_: int) -> None:
        await asyncio.sleep(1)
        if is_down:
            raise Flaky

    async def disturb() -> None:
        nonlocal is_down
        await asyncio.sleep(9.5)
        is_down = True
        await asyncio.sleep(1)
        is_down = False

    disturbing = asyncio.create_task(disturb())
    tasks = [Task(work, name) for name in range(8000)]
    found = await envelopes(pool(tasks, 400, retry=Retry(1, backoff=5), retry_budget=0.2))
    await disturbing
    assert sum(envelope.error is not None for envelope in found) == 0
    assert sum(envelope.attempt == 2 for envelope in found) == 400


@pytest.mark.virtual
async def test_saved_retries_are_bounded() -> None:
    """A long healthy run does not save up for many failures of few running calls."""
    calls = 0

    async def work(name: int) -> None:
        nonlocal calls
        calls += 1
        if name >= 5000:
            raise Flaky

    tasks = [Task(work, name) for name in range(5100)]
    await envelopes(pool(tasks, 2, retry=Retry(50, backoff=1), retry_budget=0.5, max_buffered=10))
    assert calls <= 5100 + 100 + 51


@pytest.mark.virtual
async def test_throttled_answers_are_not_in_the_budget() -> None:
    class Busy(Exception):
        status_code = 429
        retry_after = 1

    refused: set[int] = set()

    async def work(name: int) -> int:
        if name not in refused:
            refused.add(name)
            raise Busy
        return name

    tasks = [Task(work, name) for name in range(50)]
    found = await envelopes(pool(tasks, 1, retry=1, retry_budget=0.01))
    assert sorted(summarize(found)) == list(range(50))


@pytest.mark.virtual
async def test_map_pool_has_the_options() -> None:
    calls = []

    async def flaky(name: int) -> None:
        calls.append(name)
        raise Flaky

    results = SourceIterObj(range(100)).map_pool(
        flaky, CapacitySource(1), retry=Retry(5, backoff=1), retry_budget=0.2, max_failures=19
    )
    failed = 0
    async with results:
        with pytest.raises(RunStopped, match="20 tasks failed"):
            while True:
                try:
                    await anext(results)
                except (Flaky, SourceCancelledError) as error:
                    # A task that waited for another call was cancelled.
                    failed += isinstance(error, Flaky)
    assert failed == 20
    assert len(calls) <= 1.2 * len(set(calls)) + 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_failures": -1}, "max_failures must be at least 0, got -1"),
        ({"max_failures": 1.0}, "max_failures must be a whole number, or a share above 0.0"),
        ({"max_failures": 0.0}, "share above 0.0 and below 1.0, got 0.0"),
        ({"max_failures": float("nan")}, "below 1.0, got nan"),
        ({"max_failures": True}, "max_failures must be an integer, got True"),
        ({"max_failures": "5%"}, "max_failures must be an integer, got '5%'"),
        ({"retry_budget": 0}, "retry_budget must be positive, got 0"),
        ({"retry_budget": 1.5}, "retry_budget must be a share of at most 1, got 1.5"),
        ({"retry_budget": "20%"}, "retry_budget must be a number, got '20%'"),
        ({"on_error": "fatal"}, "on_error must be 'stop_if_fatal', 'continue' or 'stop'"),
    ],
)
def test_bad_limits_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        HierarchicalTaskPoolRunner([], CapacitySource(1), **options)
