"""A wake-up does not go to the grave with whom it was meant for.

A loop is closed, stops and does not go on, or its thread ends, while somebody waits on it; the task lives on, in a list of
ours. What it was promised goes to the next in the line, or stays for whoever comes.
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
from tests.support import turns

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


def started(loop: Loop, awaitable: Awaitable[Any], count: int) -> asyncio.Task[Any]:
    """A task that waits on this loop, which has stopped after some turns."""
    task = loop.create_task(as_coroutine(awaitable))
    loop.run_until_complete(turns(count))
    assert not task.done()
    return task


def lay_down(*tasks: asyncio.Task[Any]) -> None:
    """Their loops are closed and they will never end; we know, and want no complaint."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def run_in_thread(act: Callable[[], Any]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def outcome(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result on a loop of its own, within a time that is not up."""
    return asyncio.run(asyncio.wait_for(coroutine, 20))


@pytest.mark.parametrize("closed", [True, False])
# After one turn it has its place, after three a future.
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("in_thread", [False, True])
def test_an_item_for_a_dead_loop_is_the_next_ones(
    loops: Callable[[], Loop], closed: bool, count: int, in_thread: bool
) -> None:
    queue: Queue[int] = Queue()
    loop = loops()
    task = started(loop, queue.get(), count)
    if closed:
        loop.close()
    if in_thread:
        run_in_thread(lambda: queue.put_nowait(1))
    else:
        queue.put_nowait(1)
    assert queue.get_nowait() == 1
    lay_down(task)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_an_item_for_a_dead_loop_wakes_the_next_in_line(
    loops: Callable[[], Loop], closed: bool, count: int
) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    loop = loops()
    tasks = [started(loop, anext(buffer.source), count) for _ in range(3)]
    if closed:
        loop.close()

    async def next_in_line() -> int:
        pull = asyncio.ensure_future(anext(buffer.source))
        await turns(3)
        buffer.sink.next_nowait(1)
        return await pull

    assert outcome(next_in_line()) == 1
    lay_down(*tasks)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_room_for_a_dead_loop_is_the_next_ones(
    loops: Callable[[], Loop], closed: bool, count: int
) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    buffer.sink.next_nowait(0)
    loop = loops()
    tasks = [started(loop, buffer.sink.next(n), count) for n in (1, 2)]
    if closed:
        loop.close()

    async def next_in_line() -> list[int]:
        push = asyncio.ensure_future(buffer.sink.next(3))
        await turns(3)
        first = await anext(buffer.source)
        await push
        return [first, await anext(buffer.source)]

    assert outcome(next_in_line()) == [0, 3]
    lay_down(*tasks)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_value_for_a_dead_loop_is_kept(
    loops: Callable[[], Loop], closed: bool, count: int
) -> None:
    signal: WaitObject[int] = WaitObject()
    loop = loops()
    tasks = [started(loop, signal.wait(), count) for _ in range(3)]
    if closed:
        loop.close()
    signal.resolve(1)
    assert outcome(as_coroutine(signal.wait())) == 1
    lay_down(*tasks)


def test_a_loop_that_goes_on_waits_anew(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue()
    loop = loops()
    task = started(loop, queue.get(), 3)
    queue.put_nowait(1)
    assert queue.get_nowait() == 1
    loop.run_until_complete(turns(3))
    assert not task.done()
    queue.put_nowait(2)
    assert loop.run_until_complete(task) == 2


def test_a_loop_that_goes_on_finds_what_nobody_took(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue(1)
    loop = loops()
    get = started(loop, queue.get(), 3)
    queue.put_nowait(1)
    put = loop.create_task(as_coroutine(queue.put(2)))
    assert loop.run_until_complete(get) == 1
    loop.run_until_complete(put)
    assert queue.get_nowait() == 2


def test_a_wake_up_that_lies_in_the_mailbox_of_a_loop_that_closes_is_handed_on() -> None:
    queue: Queue[int] = Queue()
    waits, may_go_on = threading.Event(), threading.Event()
    tasks: list[asyncio.Task[int]] = []

    def live_and_die() -> None:
        # Not uvloop, which reads its mailbox before it stops.
        loop = new_loop("asyncio")

        def last_words() -> None:
            # The loop runs, so it is rung; but it will not come to read what for.
            waits.set()
            may_go_on.wait(20)
            loop.stop()

        tasks.append(started(loop, queue.get(), 3))
        loop.call_soon(last_words)
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=live_and_die)
    thread.start()
    assert waits.wait(20)
    queue.put_nowait(1)

    async def next_in_line() -> int:
        get = asyncio.ensure_future(queue.get())
        await turns(3)
        may_go_on.set()
        return await get

    assert outcome(next_in_line()) == 1
    thread.join(20)
    lay_down(*tasks)


def test_ten_thousand_dead_in_a_line_are_passed(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue()
    loop = loops()
    tasks = [loop.create_task(as_coroutine(queue.get())) for _ in range(10_000)]
    loop.run_until_complete(turns(3))
    loop.close()
    # In a thread, whose stack is small.
    run_in_thread(lambda: queue.put_nowait(1))
    assert queue.get_nowait() == 1
    lay_down(*tasks)


def test_what_waits_on_a_closed_loop_is_collected_once_there_is_another(
    loops: Callable[[], Loop],
) -> None:
    queue: Queue[int] = Queue()
    loop = new_loop("asyncio")
    task = started(loop, queue.get(), 3)
    lay_down(task)
    dead: list[weakref.ref[Any]] = [weakref.ref(loop), weakref.ref(task), weakref.ref(queue)]
    loop.close()
    del loop, task, queue
    other: Queue[int] = Queue()
    waiting = started(loops(), other.get(), 3)
    gc.collect()
    assert [ref() for ref in dead] == [None, None, None]
    lay_down(waiting)


def test_a_task_that_was_woken_before_its_loop_was_closed_is_passed_by_those_who_come() -> None:
    queue: Queue[int] = Queue()
    # Not uvloop, which steps the task before it stops.
    loop = new_loop("asyncio")
    task = started(loop, queue.get(), 3)

    def wake_and_stop() -> None:
        queue.put_nowait(1)
        loop.stop()

    loop.call_soon(wake_and_stop)
    loop.run_forever()
    loop.close()
    assert outcome(as_coroutine(queue.get())) == 1
    lay_down(task)


def abandoned(loop: Loop, make: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
    """A task that waits on a loop whose thread has ended and left it as it was."""
    tasks: list[asyncio.Task[Any]] = []
    run_in_thread(lambda: tasks.append(started(loop, make(), 3)))
    lay_down(*tasks)
    return tasks[0]


def test_a_thread_that_ended_takes_no_item_to_the_grave(loops: Callable[[], Loop]) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    dead = abandoned(loops(), lambda: anext(buffer.source))
    assert buffer.statistics().waiting_consumers == 1
    buffer.sink.next_nowait(1)
    assert outcome(as_coroutine(anext(buffer.source))) == 1
    buffer.sink.next_nowait(2)
    dead_too = abandoned(loops(), lambda: buffer.sink.next(3))
    assert buffer.statistics().waiting_producers == 1
    assert outcome(as_coroutine(anext(buffer.source))) == 2
    # The room is not kept for one that will not come.
    outcome(as_coroutine(buffer.sink.next(4)))
    assert outcome(as_coroutine(anext(buffer.source))) == 4
    assert not dead.done()
    assert not dead_too.done()


def test_a_thread_that_ended_takes_no_value_to_the_grave(loops: Callable[[], Loop]) -> None:
    signal: WaitObject[int] = WaitObject()
    dead = abandoned(loops(), signal.wait)
    assert signal.waiting == 1
    signal.resolve(1)
    assert outcome(as_coroutine(signal.wait())) == 1
    assert not dead.done()


def test_a_thread_that_ended_takes_no_turn_to_the_grave(loops: Callable[[], Loop]) -> None:
    queue: Queue[int] = Queue(1)
    dead = [abandoned(loops(), queue.get), abandoned(loops(), queue.get)]
    # A thread that has no loop is the next one, on either side.
    run_in_thread(lambda: queue.put_sync(1, 20))
    assert queue.get_sync(20) == 1
    queue.put_nowait(2)
    dead += [abandoned(loops(), partial(queue.put, 3)), abandoned(loops(), partial(queue.put, 4))]
    assert queue.get_sync(20) == 2
    run_in_thread(lambda: queue.put_sync(5, 20))
    assert queue.get_nowait() == 5
    assert not any(task.done() for task in dead)


@pytest.mark.parametrize("suspensions", [1, 2])
@pytest.mark.parametrize("is_woken", [False, True])
async def test_a_collected_consumer_hands_on(suspensions: int, is_woken: bool) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    queue: Queue[int] = Queue()
    ends: list[tuple[Callable[[], Awaitable[int]], Callable[[int], Any]]] = [
        (buffer.source.__anext__, buffer.sink.next_nowait),
        (buffer.source.map(lambda x: x).__anext__, buffer.sink.next_nowait),
        (queue.get, queue.put_nowait),
    ]
    for get, put in ends:
        behind = asyncio.ensure_future(hand_on(get, suspensions, partial(put, 1), is_woken))
        assert await behind == 1


def put_next(put: Callable[[int], Awaitable[Any]], numbers: Iterator[int]) -> Awaitable[Any]:
    return put(next(numbers))


@pytest.mark.parametrize("suspensions", [1, 2])
@pytest.mark.parametrize("is_woken", [False, True])
async def test_a_collected_producer_hands_on(suspensions: int, is_woken: bool) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    line = PushMapObj(buffer.sink, int)
    queue: Queue[int] = Queue(1)

    def pull() -> None:
        taken = anext(buffer.source)
        with pytest.raises(StopIteration):
            while taken.send(None) is None:
                pass

    ends: list[tuple[Callable[[int], Awaitable[Any]], Callable[[], Any]]] = [
        (buffer.sink.next, pull),
        (line.next, pull),
        (queue.put, queue.get_nowait),
    ]
    for put, get in ends:
        await put(0)
        numbers = iter((1, 2))
        await hand_on(partial(put_next, put, numbers), suspensions, get, is_woken)
        # What came in is the item of the second one.
        assert len(buffer) + queue.qsize() == 1
        get()


@pytest.mark.parametrize("suspensions", [1, 2])
@pytest.mark.parametrize("is_woken", [False, True])
async def test_a_collected_waiter_hands_on(suspensions: int, is_woken: bool) -> None:
    for wait in (WaitObject.wait, WaitObject.__anext__):
        signal: WaitObject[int] = WaitObject()
        value = await hand_on(
            partial(wait, signal), suspensions, partial(signal.resolve, 1), is_woken
        )
        assert value == 1


async def hand_on(
    make: Callable[[], Awaitable[Any]],
    suspensions: int,
    act: Callable[[], Any],
    is_woken: bool,
) -> Any:
    """What the second of two gets when the first one, before it or after it was woken, is part of a cycle that is
    collected."""

    class Holder:
        me: Any
        awaits: Any

    holder = Holder()
    holder.me = holder
    holder.awaits = make()
    for _ in range(suspensions):
        holder.awaits.send(None)
    behind = asyncio.ensure_future(make())
    await turns(3)
    if is_woken:
        act()
    del holder
    gc.collect()
    if not is_woken:
        act()
    return await behind


def test_a_loop_that_moved_to_another_thread_is_not_taken_for_ours(
    loops: Callable[[], Loop],
) -> None:
    there, here = loops(), loops()
    queue: Queue[int] = Queue()
    # The one that was used last in this thread.
    lay_down(waiting := started(there, queue.get(), 1))
    runs, may_stop = threading.Event(), threading.Event()

    async def stay() -> None:
        runs.set()
        await asyncio.to_thread(may_stop.wait, 20)

    thread = threading.Thread(target=there.run_until_complete, args=(stay(),))
    thread.start()
    assert runs.wait(20)

    async def get() -> int:
        item = asyncio.ensure_future(queue.get())
        await turns(4)
        queue.put_nowait(1)
        queue.put_nowait(2)
        return await item

    assert here.run_until_complete(get()) in (1, 2)
    may_stop.set()
    thread.join(20)
    assert not thread.is_alive()
    there.run_until_complete(turns(4))
    assert waiting.done()


def test_one_who_waits_on_a_loop_that_moved_is_woken_from_the_thread_it_left(
    loops: Callable[[], Loop],
) -> None:
    there = loops()
    queue: Queue[int] = Queue()
    waiting = started(there, queue.get(), 3)
    sleeps = threading.Event()

    async def stay() -> Any:
        # Nothing else is ready, so after this it sleeps until it is rung.
        there.call_soon(sleeps.set)
        return await waiting

    thread = threading.Thread(target=there.run_until_complete, args=(stay(),))
    thread.start()
    assert sleeps.wait(20)
    queue.put_nowait(1)
    thread.join(20)
    rung = not thread.is_alive()
    there.call_soon_threadsafe(lambda: None)
    thread.join(20)
    assert rung
    assert waiting.result() == 1
