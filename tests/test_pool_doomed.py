"""Runs that a fatal error stops. `test_pool_failure_limits.py` has the tests of `max_failures` and of the retry budget."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    DependencyGraph,
    DependencySourceObj,
    HierarchicalTaskPoolRunner,
    MapError,
    PushPullBufferObj,
    Retry,
    RunStopped,
    SourceIterObj,
    Task,
    Verdict,
    amap,
)
from headrace.pool import ThreadExecutor
from tests.pool_support import (
    ERROR,
    FINAL,
    Flaky,
    Refused,
    envelopes,
    pool,
    quiet,
    read_until_stopped,
    summarize,
)
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


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
        found, stopped = await read_until_stopped(progress)
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
    runner = pool(work.tasks(40), 3, lookahead=6)
    with pytest.raises(RunStopped):
        await envelopes(runner)
    assert runner.snapshot().queued > 0
    work.bad.clear()
    done = await envelopes(runner)
    assert sorted(work.calls) == list(range(40))
    assert 0 < len(done) < 40


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
            found, _ = await read_until_stopped(progress)
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
        found, _ = await read_until_stopped(progress)
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
        found, _ = await read_until_stopped(progress)
    assert len(found) == len(calls) == 1
    assert runner.capacity.held == 0


@pytest.mark.virtual
async def test_two_fatal_errors_at_once() -> None:
    async def refused(name: int) -> None:
        await asyncio.sleep(1)
        raise Refused(name)

    runner = pool([Task(refused, name) for name in range(100)], 4)
    async with runner.run_tasks() as progress:
        found, stopped = await read_until_stopped(progress)
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
            found, _ = await read_until_stopped(progress)
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
        found, _ = await read_until_stopped(progress)
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
        found, _ = await read_until_stopped(progress)
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
        found, _ = await read_until_stopped(progress)
    assert sorted(summarize(found), key=str) == [0, 0, "CancelledError", "Refused"]
    assert names(left) == [1, 2]


@pytest.mark.virtual
async def test_fatal_error_during_pause() -> None:
    work = Work(1, seconds=1)
    runner = pool(work.tasks(9), 2, lookahead=2)
    async with runner.run_tasks() as progress:
        await quiet()
        runner.pause()
        found, _ = await read_until_stopped(progress)
    assert len(found) == 2
    assert names(await runner.drain())[0] == 2


@pytest.mark.virtual
async def test_stop_while_the_source_is_idle() -> None:
    queue: PushPullBufferObj[Task] = PushPullBufferObj()
    work = Work(0, seconds=1)
    runner = HierarchicalTaskPoolRunner(queue.source, CapacitySource(4))
    await queue.sink.next(Task(work, 0))
    async with runner.run_tasks() as progress:
        found, _ = await read_until_stopped(progress)
    assert summarize(found) == ["Refused"]
    # The cancelled pull has lost nothing.
    await queue.sink.next(Task(work, 1))
    assert len(queue) == 1


@pytest.mark.virtual
@pytest.mark.parametrize("close", [False, True])
async def test_stop_closes_the_source_only_if_requested(close: bool) -> None:
    closed: list[int] = []

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
            await read_until_stopped(progress)
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
        found, _ = await read_until_stopped(progress)
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
async def test_amap_keeps_the_results_of_a_stopped_run() -> None:
    work = Work(20)
    with pytest.raises(MapError, match=r"1 of .* failed; the others were not") as raised:
        await amap(work, range(1000), limit=LIMIT).collect()
    error = raised.value
    assert [failure.index for failure in error.failures] == [20]
    assert [type(one) for one in error.exceptions] == [Refused, RunStopped]
    assert sorted([*error.results, 20]) == sorted(work.calls)


@pytest.mark.virtual
async def test_outer_run_stops_with_an_inner_one() -> None:
    async def outer(name: int) -> list[int]:
        return await SourceIterObj(range(3)).map_pool(Work(0), CapacitySource(1)).collect()

    async def inner(name: int) -> list[Any]:
        return await pool(Work(name).tasks(3), 1).run()

    for call in (inner, outer):
        runner = pool([Task(call, 0), *[Task(call, 0)] * 50], 2)
        with pytest.raises(RunStopped):
            await envelopes(runner)
        assert len(await runner.drain()) == 1


@pytest.mark.virtual
async def test_run_raises_the_stop() -> None:
    with pytest.raises(RunStopped) as stopped:
        await pool(Work(3).tasks(100), 2).run()
    assert isinstance(stopped.value.__cause__, Refused)


@pytest.mark.virtual
@pytest.mark.parametrize("how", ["on_error", "classify", "of the task"])
async def test_run_can_go_on_after_a_fatal_error(how: str) -> None:
    harmless = Retry(0, classify=lambda _: "permanent")
    options: dict[str, dict[str, Any]] = {
        "on_error": {"on_error": "continue"},
        "classify": {"retry": harmless},
        "of the task": {},
    }
    of_task = {"retry": harmless} if how == "of the task" else {}
    found = await envelopes(pool(Work(3).tasks(9, **of_task), 2, **options[how]))
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
