"""`explain()` names the cause of a wait: staged stalls, each with the parts of the text that name it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    Budget,
    CapacitySource,
    DependencyGraph,
    DependencySourceObj,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Rate,
    Retry,
    SourceIterObj,
    Task,
    WaitObject,
    explain,
)
from headrace.queue import Queue
from tests.pool_executors import RemoteExecutor, double
from tests.support import eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def explained(*parts: str) -> str:
    """Wait until the text has a line with all these parts, and return that line."""

    def line() -> str | None:
        lines = (line for line in explain().splitlines() if all(part in line for part in parts))
        return next(lines, None)

    try:
        await eventually(lambda: line() is not None, 2)
    except BaseException:
        print(explain())
        raise
    found = line()
    assert found is not None
    return found


async def forever() -> None:
    await asyncio.Event().wait()


def runner(tasks: Any, limit: Any = 4, **options: Any) -> HierarchicalTaskPoolRunner:
    return HierarchicalTaskPoolRunner(
        tasks, CapacitySource(limit, name="api"), name="run", **options
    )


# The staged stalls.


async def test_a_lost_wake_up_in_user_code() -> None:
    event = asyncio.Event()

    async def waits_for_an_event() -> None:
        await event.wait()

    async with runner([Task(waits_for_an_event, key="x")]).run_tasks():
        line = await explained("run: task x: runs for", "waits_for_an_event", "Event.wait")
        assert "test_explain.py" in line
        await explained("held: 1 slots by run: task x for")


async def test_nested_capacity() -> None:
    capacity = CapacitySource(1, name="api")

    async def inner(item: int) -> int:
        return item

    async def outer() -> list[int]:
        async with SourceIterObj([1]).map_pool(inner, capacity, name="inner") as results:
            return await results.collect()

    async with HierarchicalTaskPoolRunner([outer], capacity, name="outer").run_tasks():
        await explained("outer: task 1: runs for", "outer", "waits for events of run inner")
        await explained("run inner: ", "1 requesting", "waits for capacity 'api'")
        await explained("inner: task 1: waits for capacity 'api' for")
        await explained("held: 1 slots by outer: task 1 for")
        await explained("waits: 1 slots for inner: task 1 for", "lacks slots of capacity 'api'")


async def test_a_full_buffer_without_a_reader() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)

    async def produce() -> None:
        for item in range(2):
            await buffer.sink.next(item)

    producer = asyncio.create_task(produce(), name="producer")
    await explained("full, 1 of 1 items; 1 producers wait and no consumer: task 'producer'")
    await buffer.source.__anext__()
    await producer


async def test_a_thread_that_blocks() -> None:
    gate = threading.Event()

    def blocks() -> None:
        gate.wait()

    async with runner([Task(blocks, key="x", thread=True)]).run_tasks():
        try:
            await explained("run: task x: runs in an executor for")
            line = await explained("thread of run: task x: at", "in test_a_thread_that_blocks")
            assert "test_explain.py" in line
        finally:
            gate.set()


async def test_an_executor_without_slots() -> None:
    executor = RemoteExecutor(0)
    async with runner([Task(double, 1, key="x")], executor=executor).run_tasks() as progress:
        await explained("run run: 1 held", f"waits for a slot of {executor!r} for")
        executor.change(slots=1)
        assert [event.value async for event in progress] == [2]


async def test_a_dependency_that_never_completes() -> None:
    graph = DependencyGraph()
    graph.add("never", forever)
    graph.add("next", forever, depends_on=["never"])
    async with runner(DependencySourceObj(graph)).run_tasks():
        await explained("node 'next': waits for 'never' (running)")
        await explained("node 'never': was taken, and was neither completed nor failed")
        await explained("run: task never: runs for", "in forever")


async def test_a_paused_runner() -> None:
    paused = runner([forever])
    paused.pause()
    async with paused.run_tasks():
        await explained("run run: ", "is paused: call resume() for")


async def test_a_rate_that_is_exhausted_for_an_hour() -> None:
    async with runner([forever, forever], Rate(1, per=3600)).run_tasks():
        await explained("capacity 'api': slots: ", "of a rate of 1 in 3600 s taken")
        line = await explained(
            "waits: 1 slots for run: task 2 for", "lacks slots of capacity 'api'"
        )
        assert "there in 3" in line


async def test_an_exhausted_budget() -> None:
    # The budget is not exhausted for good while the first task, whose lease may return a part, runs.
    tasks = [Task(forever, cost={"tokens": 10}, key="holder"), Task(forever, cost={"tokens": 1})]
    async with runner(tasks, {"tokens": Budget(10)}).run_tasks():
        await explained("capacity 'api': tokens: 10 of a budget of 10 spent or held")
        await explained("held: 10 tokens by run: task holder for")
        await explained("waits: 1 tokens for run: task 2 for", "lacks tokens of capacity 'api'")


async def test_an_event_queue_without_a_consumer() -> None:
    async def result() -> int:
        return 1

    async with runner([result] * 10, max_buffered=3).run_tasks():
        await explained(
            "run run: ",
            "waits for space for events",
            "of max_buffered=3; no consumer reads them for",
        )


async def test_a_source_that_never_yields() -> None:
    async def silent() -> AsyncGenerator[Any]:
        await asyncio.Event().wait()
        yield forever

    source = SourceIterObj(silent())
    async with runner(source).run_tasks():
        line = await explained("run run: no tasks", "waits for its source", "silent")
        assert "test_explain.py" in line
    await source.aclose()


async def test_a_retry_that_backs_off_for_an_hour() -> None:
    async def fails() -> None:
        raise OSError("busy")

    retry = Retry(retries=2, backoff=3600, jitter=False, max_backoff=3600)
    async with runner([Task(fails, key="x")], retry=retry).run_tasks():
        await explained("run: task x: backs off after 1 calls; the next one in 3", " s")


async def test_a_forgotten_lease() -> None:
    capacity = CapacitySource(1, name="api")

    released = asyncio.Event()

    async def forgets() -> None:
        lease = await capacity.acquire()
        await released.wait()
        lease.release()

    forgetful = asyncio.create_task(forgets(), name="forgetful")
    await until(lambda: capacity.held == 1)
    async with HierarchicalTaskPoolRunner([forever], capacity, name="run").run_tasks():
        await explained("held: 1 slots by task 'forgetful' for")
        await explained("waits: 1 slots for run: task 1 for", "lacks slots of capacity 'api'")
        await explained("task 'forgetful': suspended at", "forgets")
        released.set()
        await forgetful


# Others.


async def test_an_empty_queue_and_a_signal() -> None:
    queue: Queue[int] = Queue()
    signal: WaitObject[int] = WaitObject()
    consumer = asyncio.create_task(queue.get(), name="consumer")
    listener = asyncio.create_task(signal.wait(), name="listener")
    await explained("queue", "empty; 1 consumers wait and no producer: task 'consumer'")
    await explained("signal", "1 wait for a value: task 'listener'")
    queue.put_nowait(1)
    signal.resolve(1)
    await asyncio.gather(consumer, listener)


async def test_a_node_that_is_paused_or_held_off() -> None:
    paused = CapacitySource(1, name="paused")
    paused.pause()
    held_off = CapacitySource({"slots": 1, "tokens": Rate(5)}, name="held off")
    held_off.cool_down(3600, resource="tokens")
    assert "capacity 'paused': slots: 0 of 1 held; paused" in explain()
    await explained("capacity 'held off'", "grants nothing of tokens for 3")


@pytest.mark.loops("asyncio")
async def test_a_blocked_event_loop_seen_from_another_thread() -> None:
    gate, texts = threading.Event(), list[str]()

    async def blocks() -> None:
        gate.wait()

    def look() -> None:
        while "run: task x: executes now" not in (text := explain()):
            time.sleep(0.001)
        texts.append(text)
        gate.set()

    thread = threading.Thread(target=look)
    async with runner([Task(blocks, key="x")]).run_tasks() as progress:
        thread.start()
        async for _ in progress:
            pass
    thread.join()
    assert "event loop of run run: executes 'run: task x' now, at" in texts[0]
    assert "in test_a_blocked_event_loop_seen_from_another_thread.<locals>.blocks" in texts[0]
    assert "run: task x: executes now, called for" in texts[0]
    assert "held: 1 slots by run: task x for" in texts[0]


async def test_many_tasks_are_counted() -> None:
    async with runner([forever] * 50, 50).run_tasks():
        await explained("run run: 50 running")
        assert "  and 30 more" in explain().splitlines()


async def test_a_key_and_a_clock_that_raise() -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError("odd")

        __repr__ = __str__

    async with runner([Task(forever, key=Odd())]).run_tasks():
        await explained("run: task <Odd>: runs for")


def test_a_clock_that_raises() -> None:
    times = [0.0] * 2

    def clock() -> float:
        return times.pop()

    capacity = CapacitySource(1, name="odd clock", clock=clock)
    lease = capacity.acquire_nowait()
    times.clear()
    assert "capacity 'odd clock': slots: 1 of 1 held" in explain()
    times[:] = [0.0] * 2
    assert lease is not None
    lease.release()


def test_no_module_has_the_name_of_the_function() -> None:
    assert headrace.explain is explain
    assert callable(explain)


def test_without_anything() -> None:
    assert explain().startswith("headrace: process ")


@pytest.mark.loops("asyncio")
async def test_cost_grows_with_the_nodes_in_use() -> None:
    def lines_run(count: int) -> int:
        root = CapacitySource(count)
        leaves = [CapacitySource(1, root) for _ in range(count)]
        leases = [leaf.acquire_nowait() for leaf in leaves]
        lines = 0

        def trace(frame: Any, event: str, _: object) -> Any:
            nonlocal lines
            if not frame.f_code.co_qualname.startswith(
                ("_Explanation.node", "_Explanation.all_cap")
            ):
                return None
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            text = explain()
        finally:
            sys.settrace(before)
        assert text.count("1 of 1 held") == count
        for lease in leases:
            assert lease is not None
            lease.release()
        return lines

    assert lines_run(400) < 5 * lines_run(100)


def test_no_object_of_the_program_is_kept_alive() -> None:
    class Held:
        pass

    def explained_beside() -> weakref.ref[Held]:
        held = Held()
        explain()
        return weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        assert explained_beside()() is None
    finally:
        gc.enable()


async def test_dependencies_beyond_the_listed_ones_are_counted() -> None:
    graph = DependencyGraph()
    names = [f"node {number}" for number in range(25)]
    for name in names:
        graph.add(name, forever)
    graph.add("last", forever, depends_on=names)
    line = await explained("'last': waits for")
    assert line.endswith(" and 5 more")
