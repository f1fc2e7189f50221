"""Wake-ups for tasks of dead loops go to the next waiter.

A loop is closed, stops for good, or its thread ends, while a task waits on it; the test keeps a reference to the task.
The item, slot or value that was reserved for that task goes to the next waiter, or stays for a later one.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PushMapObj, PushPullBufferObj, WaitObject
from headrace.queue import Queue
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

Loop = asyncio.AbstractEventLoop


def new_loop(kind: str) -> Loop:
    if kind == "uvloop":
        loop: Loop = pytest.importorskip("uvloop").new_event_loop()
        return loop
    return asyncio.new_event_loop()


@pytest.fixture(params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Iterator[Callable[[], Loop]]:
    made: list[Loop] = []

    def make() -> Loop:
        loop = new_loop(request.param)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        loop.close()


async def as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def start_waiting(loop: Loop, awaitable: Awaitable[Any], count: int) -> asyncio.Task[Any]:
    """Start a task that waits on this loop, and stop the loop after some iterations."""
    task = loop.create_task(as_coroutine(awaitable))
    loop.run_until_complete(yield_to_loop(count))
    assert not task.done()
    return task


def suppress_pending_logs(*tasks: asyncio.Task[Any]) -> None:
    """Suppress the log messages of tasks whose loops were closed on purpose."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def run_in_thread(act: Callable[[], Any]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def result_on_new_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine, run on a loop of its own with a timeout."""
    return asyncio.run(asyncio.wait_for(coroutine, 20))


@pytest.mark.parametrize("closed", [True, False])
# After one iteration the request is queued, after three the task waits on a future.
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("in_thread", [False, True])
def test_item_for_a_dead_loop_stays_available(
    loops: Callable[[], Loop], closed: bool, count: int, in_thread: bool
) -> None:
    queue: Queue[int] = Queue()
    loop = loops()
    task = start_waiting(loop, queue.get(), count)
    if closed:
        loop.close()
    if in_thread:
        run_in_thread(lambda: queue.put_nowait(1))
    else:
        queue.put_nowait(1)
    assert queue.get_nowait() == 1
    suppress_pending_logs(task)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_item_for_a_dead_loop_wakes_the_next_waiter(
    loops: Callable[[], Loop], closed: bool, count: int
) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    loop = loops()
    tasks = [start_waiting(loop, anext(buffer.source), count) for _ in range(3)]
    if closed:
        loop.close()

    async def next_waiter() -> int:
        pull = asyncio.ensure_future(anext(buffer.source))
        await yield_to_loop(3)
        buffer.sink.next_nowait(1)
        return await pull

    assert result_on_new_loop(next_waiter()) == 1
    suppress_pending_logs(*tasks)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_slot_for_a_dead_loop_goes_to_the_next_push(
    loops: Callable[[], Loop], closed: bool, count: int
) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    buffer.sink.next_nowait(0)
    loop = loops()
    tasks = [start_waiting(loop, buffer.sink.next(n), count) for n in (1, 2)]
    if closed:
        loop.close()

    async def next_waiter() -> list[int]:
        push = asyncio.ensure_future(buffer.sink.next(3))
        await yield_to_loop(3)
        first = await anext(buffer.source)
        await push
        return [first, await anext(buffer.source)]

    assert result_on_new_loop(next_waiter()) == [0, 3]
    suppress_pending_logs(*tasks)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_value_for_a_dead_loop_is_kept(loops: Callable[[], Loop], closed: bool, count: int) -> None:
    signal: WaitObject[int] = WaitObject()
    loop = loops()
    tasks = [start_waiting(loop, signal.wait(), count) for _ in range(3)]
    if closed:
        loop.close()
    signal.resolve(1)
    assert result_on_new_loop(as_coroutine(signal.wait())) == 1
    suppress_pending_logs(*tasks)


def test_resumed_loop_queues_its_get_again(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue()
    loop = loops()
    task = start_waiting(loop, queue.get(), 3)
    queue.put_nowait(1)
    assert queue.get_nowait() == 1
    loop.run_until_complete(yield_to_loop(3))
    assert not task.done()
    queue.put_nowait(2)
    assert loop.run_until_complete(task) == 2


def test_resumed_loop_takes_the_item_kept_for_it(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue(1)
    loop = loops()
    get = start_waiting(loop, queue.get(), 3)
    queue.put_nowait(1)
    put = loop.create_task(as_coroutine(queue.put(2)))
    assert loop.run_until_complete(get) == 1
    loop.run_until_complete(put)
    assert queue.get_nowait() == 2


def test_unread_wake_of_a_closed_loop_is_passed_on() -> None:
    queue: Queue[int] = Queue()
    is_notified, may_stop_loop = threading.Event(), threading.Event()
    tasks: list[asyncio.Task[int]] = []

    def run_and_close() -> None:
        # Not uvloop, which reads its mailbox before it stops.
        loop = new_loop("asyncio")

        def stop_before_reading() -> None:
            # The loop still runs, so it is notified; but it stops before it reads its mailbox.
            is_notified.set()
            may_stop_loop.wait(20)
            loop.stop()

        tasks.append(start_waiting(loop, queue.get(), 3))
        loop.call_soon(stop_before_reading)
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=run_and_close)
    thread.start()
    assert is_notified.wait(20)
    queue.put_nowait(1)

    async def next_waiter() -> int:
        get = asyncio.ensure_future(queue.get())
        await yield_to_loop(3)
        may_stop_loop.set()
        return await get

    assert result_on_new_loop(next_waiter()) == 1
    thread.join(20)
    suppress_pending_logs(*tasks)


def test_ten_thousand_dead_waiters_are_skipped(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue()
    loop = loops()
    tasks = [loop.create_task(as_coroutine(queue.get())) for _ in range(10_000)]
    loop.run_until_complete(yield_to_loop(3))
    loop.close()
    # In a thread, because its stack is small.
    run_in_thread(lambda: queue.put_nowait(1))
    assert queue.get_nowait() == 1
    suppress_pending_logs(*tasks)


def test_waiters_of_a_closed_loop_are_collected(
    loops: Callable[[], Loop],
) -> None:
    queue: Queue[int] = Queue()
    loop = new_loop("asyncio")
    task = start_waiting(loop, queue.get(), 3)
    suppress_pending_logs(task)
    dead: list[weakref.ref[Any]] = [weakref.ref(loop), weakref.ref(task), weakref.ref(queue)]
    loop.close()
    del loop, task, queue
    other: Queue[int] = Queue()
    waiting = start_waiting(loops(), other.get(), 3)
    gc.collect()
    assert [ref() for ref in dead] == [None, None, None]
    suppress_pending_logs(waiting)


def test_woken_task_of_a_closed_loop_keeps_no_item() -> None:
    queue: Queue[int] = Queue()
    # Not uvloop, which steps the task before it stops.
    loop = new_loop("asyncio")
    task = start_waiting(loop, queue.get(), 3)

    def wake_and_stop() -> None:
        queue.put_nowait(1)
        loop.stop()

    loop.call_soon(wake_and_stop)
    loop.run_forever()
    loop.close()
    assert result_on_new_loop(as_coroutine(queue.get())) == 1
    suppress_pending_logs(task)


def wait_in_ended_thread(loop: Loop, make: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
    """Return a task that waits on a loop whose thread ended without closing it."""
    tasks: list[asyncio.Task[Any]] = []
    run_in_thread(lambda: tasks.append(start_waiting(loop, make(), 3)))
    suppress_pending_logs(*tasks)
    return tasks[0]


def test_ended_thread_keeps_no_item_and_no_slot(loops: Callable[[], Loop]) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    dead = wait_in_ended_thread(loops(), lambda: anext(buffer.source))
    assert buffer.statistics().waiting_consumers == 1
    buffer.sink.next_nowait(1)
    assert result_on_new_loop(as_coroutine(anext(buffer.source))) == 1
    buffer.sink.next_nowait(2)
    dead_too = wait_in_ended_thread(loops(), lambda: buffer.sink.next(3))
    assert buffer.statistics().waiting_producers == 1
    assert result_on_new_loop(as_coroutine(anext(buffer.source))) == 2
    # The slot is not kept for a task that never resumes.
    result_on_new_loop(as_coroutine(buffer.sink.next(4)))
    assert result_on_new_loop(as_coroutine(anext(buffer.source))) == 4
    assert not dead.done()
    assert not dead_too.done()


def test_ended_thread_keeps_no_value(loops: Callable[[], Loop]) -> None:
    signal: WaitObject[int] = WaitObject()
    dead = wait_in_ended_thread(loops(), signal.wait)
    assert signal.waiting == 1
    signal.resolve(1)
    assert result_on_new_loop(as_coroutine(signal.wait())) == 1
    assert not dead.done()


def test_ended_thread_blocks_no_waiting_thread(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue(1)
    dead = [wait_in_ended_thread(loops(), queue.get), wait_in_ended_thread(loops(), queue.get)]
    # A thread without a loop is the next waiter, on either side.
    run_in_thread(lambda: queue.put_sync(1, 20))
    assert queue.get_sync(20) == 1
    queue.put_nowait(2)
    dead += [
        wait_in_ended_thread(loops(), partial(queue.put, 3)),
        wait_in_ended_thread(loops(), partial(queue.put, 4)),
    ]
    assert queue.get_sync(20) == 2
    run_in_thread(lambda: queue.put_sync(5, 20))
    assert queue.get_nowait() == 5
    assert not any(task.done() for task in dead)


@pytest.mark.parametrize("suspensions", [1, 2])
@pytest.mark.parametrize("is_woken", [False, True])
async def test_collected_consumer_passes_its_item_on(suspensions: int, is_woken: bool) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    queue: Queue[int] = Queue()
    ends: list[tuple[Callable[[], Awaitable[int]], Callable[[int], Any]]] = [
        (buffer.source.__anext__, buffer.sink.next_nowait),
        (buffer.source.map(lambda x: x).__anext__, buffer.sink.next_nowait),
        (queue.get, queue.put_nowait),
    ]
    for get, put in ends:
        second = asyncio.ensure_future(collect_first(get, suspensions, partial(put, 1), is_woken))
        assert await second == 1


def put_next(put: Callable[[int], Awaitable[Any]], numbers: Iterator[int]) -> Awaitable[Any]:
    return put(next(numbers))


@pytest.mark.parametrize("suspensions", [1, 2])
@pytest.mark.parametrize("is_woken", [False, True])
async def test_collected_producer_passes_its_slot_on(suspensions: int, is_woken: bool) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    chain = PushMapObj(buffer.sink, int)
    queue: Queue[int] = Queue(1)

    def pull() -> None:
        pull_step = anext(buffer.source)
        with pytest.raises(StopIteration):
            while pull_step.send(None) is None:
                pass

    ends: list[tuple[Callable[[int], Awaitable[Any]], Callable[[], Any]]] = [
        (buffer.sink.next, pull),
        (chain.next, pull),
        (queue.put, queue.get_nowait),
    ]
    for put, get in ends:
        await put(0)
        numbers = iter((1, 2))
        await collect_first(partial(put_next, put, numbers), suspensions, get, is_woken)
        # The item of the second producer was stored.
        assert len(buffer) + queue.qsize() == 1
        get()


@pytest.mark.parametrize("suspensions", [1, 2])
@pytest.mark.parametrize("is_woken", [False, True])
async def test_collected_waiter_passes_the_value_on(suspensions: int, is_woken: bool) -> None:
    for wait in (WaitObject.wait, WaitObject.__anext__):
        signal: WaitObject[int] = WaitObject()
        value = await collect_first(
            partial(wait, signal), suspensions, partial(signal.resolve, 1), is_woken
        )
        assert value == 1


async def collect_first(
    make: Callable[[], Awaitable[Any]],
    suspensions: int,
    act: Callable[[], Any],
    is_woken: bool,
) -> Any:
    """Collect the first of two waiters as part of a cycle, before or after it is woken; return the second one's result."""

    class Holder:
        itself: Any
        awaits: Any

    holder = Holder()
    holder.itself = holder
    holder.awaits = make()
    for _ in range(suspensions):
        holder.awaits.send(None)
    second = asyncio.ensure_future(make())
    await yield_to_loop(3)
    if is_woken:
        act()
    del holder
    gc.collect()
    if not is_woken:
        act()
    return await second


def test_loop_moved_to_another_thread_is_not_current(
    loops: Callable[[], Loop],
) -> None:
    there, here = loops(), loops()
    queue: Queue[int] = Queue()
    # The loop that this thread used last.
    suppress_pending_logs(waiting := start_waiting(there, queue.get(), 1))
    runs, may_stop = threading.Event(), threading.Event()

    async def stay() -> None:
        runs.set()
        await asyncio.to_thread(may_stop.wait, 20)

    thread = threading.Thread(target=there.run_until_complete, args=(stay(),))
    thread.start()
    assert runs.wait(20)

    async def get() -> int:
        item = asyncio.ensure_future(queue.get())
        await yield_to_loop(4)
        queue.put_nowait(1)
        queue.put_nowait(2)
        return await item

    assert here.run_until_complete(get()) in (1, 2)
    may_stop.set()
    thread.join(20)
    assert not thread.is_alive()
    there.run_until_complete(yield_to_loop(4))
    assert waiting.done()


def test_waiter_on_a_moved_loop_is_woken_from_old_thread(
    loops: Callable[[], Loop],
) -> None:
    there = loops()
    queue: Queue[int] = Queue()
    waiting = start_waiting(there, queue.get(), 3)
    sleeps = threading.Event()

    async def stay() -> Any:
        # Nothing else is ready, so the loop then sleeps until it is notified.
        there.call_soon(sleeps.set)
        return await waiting

    thread = threading.Thread(target=there.run_until_complete, args=(stay(),))
    thread.start()
    assert sleeps.wait(20)
    queue.put_nowait(1)
    thread.join(20)
    woken = not thread.is_alive()
    there.call_soon_threadsafe(lambda: None)
    thread.join(20)
    assert woken
    assert waiting.result() == 1
