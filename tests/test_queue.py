"""`headrace.queue`: the behaviour of asyncio's queues, and what they lack: threads, several event loops, a FIFO wait queue."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import os
import queue as thread_queue
import random
import re
import signal
import sys
import threading
import time
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ForkError, HeadraceError
from headrace.queue import LifoQueue, PriorityQueue, Queue, QueueEmpty, QueueFull, QueueShutDown
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable


KINDS = [Queue, LifoQueue, PriorityQueue]
THEIRS: dict[Any, Any] = {
    Queue: asyncio.Queue,
    LifoQueue: asyncio.LifoQueue,
    PriorityQueue: asyncio.PriorityQueue,
}


def test_queues_have_all_public_names_of_asyncio() -> None:
    for ours, theirs in THEIRS.items():
        public = {name for name in dir(theirs) if not name.startswith("_")}
        assert public <= set(dir(ours))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
async def test_methods_behave_as_in_asyncio(kind: Any, seed: int) -> None:
    """Without waiters, every method returns and raises the same."""
    print("seed", seed)
    rng = random.Random(seed)
    maxsize = rng.choice([0, 1, 3, 2.5, -1, math.inf])
    ours, theirs = kind(maxsize), THEIRS[kind](maxsize)
    methods = ["put_nowait", "put_nowait", "get_nowait", "task_done", "qsize", "empty", "full"]
    for number in range(300):
        method = rng.choice(methods)
        # All different, because asyncio's heap does not keep equal items in order.
        arguments = (rng.randrange(100) * 1000 + number,) if method == "put_nowait" else ()
        outcomes: list[Any] = []
        for one in (ours, theirs):
            try:
                outcomes.append(getattr(one, method)(*arguments))
            except (asyncio.QueueEmpty, asyncio.QueueFull, ValueError) as error:
                outcomes.append([base.__name__ for base in type(error).__mro__][:-3:-1])
        assert outcomes[0] == outcomes[1], method
    assert ours.maxsize == theirs.maxsize


def test_errors_derive_from_asyncio_and_thread_queues() -> None:
    queue: Queue[int] = Queue(1)
    for error in (QueueEmpty, asyncio.QueueEmpty, thread_queue.Empty, HeadraceError):
        with pytest.raises(error):
            queue.get_nowait()
    queue.put_nowait(1)
    for full in (QueueFull, asyncio.QueueFull, thread_queue.Full, HeadraceError):
        with pytest.raises(full):
            queue.put_nowait(2)
    queue.shutdown()
    with pytest.raises(QueueShutDown):
        queue.put_nowait(2)
    if sys.version_info >= (3, 13):
        assert issubclass(QueueShutDown, (asyncio.QueueShutDown, thread_queue.ShutDown))


async def test_put_and_get_are_native_awaitables() -> None:
    queue: Queue[int] = Queue()
    put = queue.put(1)
    assert not isinstance(put, types.CoroutineType)
    assert inspect.isawaitable(put)
    assert asyncio.iscoroutine(put)
    assert queue.qsize() == 0
    task = asyncio.create_task(queue.get())
    assert "QueueGet" in repr(task)
    assert await put is None  # type: ignore[func-returns-value]
    assert await task == 1


async def test_item_granted_to_waiter_is_not_taken_by_others() -> None:
    queue: Queue[int] = Queue(1)
    get = asyncio.ensure_future(queue.get())
    await yield_to_loop(3)
    queue.put_nowait(1)
    # qsize() and empty() agree with get_nowait().
    assert (queue.qsize(), queue.empty()) == (0, True)
    with pytest.raises(QueueEmpty):
        queue.get_nowait()
    assert await get == 1
    queue.put_nowait(2)
    put = asyncio.ensure_future(queue.put(3))
    await yield_to_loop(3)
    assert queue.get_nowait() == 2
    assert queue.full()
    with pytest.raises(QueueFull):
        queue.put_nowait(4)
    await put
    assert queue.get_nowait() == 3


async def test_law_12_waiters_are_served_in_order() -> None:
    queue: Queue[int] = Queue()
    served: list[tuple[int, int]] = []

    async def get(number: int) -> None:
        served.append((number, await queue.get()))

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(get(number))
        await yield_to_loop(2)
        for item in range(5):
            queue.put_nowait(item)
            await yield_to_loop(item % 3)
    assert served == [(n, n) for n in range(5)]


async def test_shutdown_delivers_remaining_items_then_ends() -> None:
    queue: Queue[int] = Queue(2)
    queue.put_nowait(1)
    queue.put_nowait(2)
    put = asyncio.ensure_future(queue.put(3))
    await yield_to_loop(3)
    queue.shutdown()
    with pytest.raises(QueueShutDown):
        await put
    assert [await queue.get(), queue.get_nowait()] == [1, 2]
    with pytest.raises(QueueShutDown):
        await queue.get()


async def test_immediate_shutdown_discards_items() -> None:
    queue: Queue[int] = Queue()
    waiter = asyncio.ensure_future(queue.get())
    await yield_to_loop(3)
    queue.put_nowait(1)
    queue.put_nowait(2)
    join = asyncio.ensure_future(queue.join())
    await yield_to_loop(1)
    assert await waiter == 1
    queue.shutdown(immediate=True)
    await yield_to_loop(2)
    assert not join.done()
    queue.task_done()
    await join
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    with pytest.raises(QueueShutDown):
        await queue.get()


async def test_shutdown_ends_waiting_get() -> None:
    for immediate in (False, True):
        queue: Queue[int] = Queue()
        get = asyncio.ensure_future(queue.get())
        await yield_to_loop(3)
        queue.shutdown(immediate)
        with pytest.raises(QueueShutDown):
            await get


def test_law_9_thread_and_loop_exchange_items() -> None:
    outgoing: Queue[int] = Queue(3)
    incoming: Queue[int] = Queue(3)
    received: list[int] = []

    def work() -> None:
        for n in range(1000):
            outgoing.put_sync(n)
            received.append(incoming.get_sync())

    async def echo() -> None:
        for _ in range(1000):
            await incoming.put(await outgoing.get())

    thread = threading.Thread(target=work)
    thread.start()
    asyncio.run(echo())
    thread.join(20)
    assert received == list(range(1000))


def test_two_threads_exchange_items_in_order() -> None:
    queue: Queue[int] = Queue(1)
    thread = threading.Thread(target=lambda: list(map(queue.put_sync, range(1000))))
    thread.start()
    assert [queue.get_sync(20) for _ in range(1000)] == list(range(1000))
    thread.join(20)


def test_timeout_ends_wait_and_leaves_no_waiter() -> None:
    queue: Queue[int] = Queue(1)
    for timeout in (0, 0.01):
        started = time.monotonic()
        with pytest.raises(QueueEmpty):
            queue.get_sync(timeout)
        assert time.monotonic() - started >= timeout
    queue.put_sync(1, timeout=0)
    with pytest.raises(QueueFull):
        queue.put_sync(2, timeout=0.01)
    assert queue.get_sync() == 1
    # The get that timed out has left the wait queue.
    queue.put_nowait(3)
    assert queue.get_nowait() == 3


def test_shutdown_ends_waiting_threads() -> None:
    queue: Queue[int] = Queue()
    raised: list[BaseException] = []

    def get() -> None:
        try:
            queue.get_sync()
        except QueueShutDown as error:
            raised.append(error)

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.shutdown()
    for thread in threads:
        thread.join(20)
    assert len(raised) == 3


async def test_sync_methods_refuse_to_block_an_event_loop() -> None:
    queue: Queue[int] = Queue(1)
    with pytest.raises(RuntimeError, match=r"get_sync\(\) would block the event loop"):
        queue.get_sync()
    queue.put_sync(1)
    with pytest.raises(RuntimeError, match=r"put_sync\(\) would block the event loop"):
        queue.put_sync(2)
    assert queue.get_sync() == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal")
def test_get_sync_is_interrupted_by_signals() -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    queue: Queue[int] = Queue()
    old = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Alarm):
            queue.get_sync()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    queue.put_nowait(1)
    assert queue.get_nowait() == 1


async def test_priority_queue_is_stable_refuses_unorderable() -> None:
    class Job:
        def __init__(self, rank: int, name: str) -> None:
            self.rank = rank
            self.name = name

        def __lt__(self, other: Job) -> bool:
            return self.rank < other.rank

    queue: PriorityQueue[Any] = PriorityQueue()
    for rank, name in ((1, "a"), (0, "b"), (1, "c"), (0, "d")):
        await queue.put(Job(rank, name))
    with pytest.raises(TypeError, match="not supported"):
        await queue.put(3)
    assert queue.qsize() == 4
    assert [(await queue.get()).name for _ in range(4)] == ["b", "d", "a", "c"]


async def test_join_waits_for_all_items() -> None:
    queue: Queue[int] = Queue()
    for n in range(10):
        queue.put_nowait(n)

    async def work() -> None:
        while True:
            await queue.get()
            await asyncio.sleep(0)
            queue.task_done()

    workers = [asyncio.create_task(work()) for _ in range(3)]
    await queue.join()
    assert queue.empty()
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)


def test_law_9_thread_wakes_join() -> None:
    queue: Queue[int] = Queue()
    queue.put_nowait(1)

    async def join() -> None:
        thread = threading.Thread(target=queue.task_done)
        waiter = asyncio.ensure_future(queue.join())
        await yield_to_loop(2)
        thread.start()
        await waiter
        thread.join()

    asyncio.run(join())


def test_subclass_can_have_its_own_constructor() -> None:
    class Named(LifoQueue[int]):
        def __init__(self, name: str) -> None:
            super().__init__(maxsize=2)
            self.name = name

    queue = Named("mine")
    queue.put_nowait(1)
    queue.put_nowait(2)
    assert (queue.name, queue.full(), queue.get_nowait()) == ("mine", True, 2)

    class WithoutSuper(Queue[int]):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match=r"call super\(\).__init__\(\) first"):
        WithoutSuper().put_nowait(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bad", "described"),
    [("3", "'3' (str)"), (None, "None (NoneType)"), ([], "[] (list)"), (1j, "1j (complex)")],
)
def test_law_14_bad_maxsize_is_refused(kind: Any, bad: Any, described: str) -> None:
    message = f"maxsize must be a number, got {described}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        kind(bad)


@pytest.mark.parametrize(
    ("bad", "kind"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_law_14_bad_timeout_is_refused(bad: Any, kind: type[Exception]) -> None:
    queue: Queue[int] = Queue()
    with pytest.raises(kind, match="timeout must"):
        queue.put_sync(1, bad)
    with pytest.raises(kind, match="timeout must"):
        queue.get_sync(bad)
    assert queue.empty()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_law_15_forked_child_gets_fork_error() -> None:
    queue: Queue[int] = Queue()
    child = os.fork()
    if child == 0:
        try:
            queue.put_nowait(1)
        except ForkError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_reference_cycle_through_queue_is_collected(kind: Callable[..., Queue[Any]]) -> None:
    class Holder:
        queue: Any
        awaitable: Any

        def __lt__(self, other: Any) -> bool:
            return False

    for count in (1, 2):
        holder = Holder()
        holder.queue = kind(1)
        await holder.queue.put(holder)
        holder.awaitable = holder.queue.put(holder)
        for _ in range(count):
            holder.awaitable.send(None)
        holder_ref = weakref.ref(holder)
        del holder
        gc.collect()
        assert holder_ref() is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method_name", ["get", "join"])
async def test_item_that_holds_its_own_waiter_is_collected(
    kind: Callable[..., Queue[Any]], method_name: str
) -> None:
    class Holder:
        awaitable: Any

    for count in (1, 2):
        queue, holder = kind(), Holder()
        if method_name == "join":
            queue.put_nowait(holder)
        holder.awaitable = getattr(queue, method_name)()
        for _ in range(count):
            holder.awaitable.send(None)
        if method_name == "get":
            queue.put_nowait(holder)
        holder_ref = weakref.ref(holder)
        del queue, holder
        gc.collect()
        assert holder_ref() is None


async def test_destructor_and_comparison_can_use_the_queue() -> None:
    class Reentrant:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __lt__(self, other: Reentrant) -> bool:
            queue.qsize()
            if self.rank > 100:
                queue.put_nowait(Reentrant(self.rank % 10))
            return self.rank < other.rank

        def __del__(self) -> None:
            if self.rank > 100:
                destroyed.append(self.rank)
                queue.put_nowait(Reentrant(0))

    queue: PriorityQueue[Reentrant] = PriorityQueue()
    destroyed: list[int] = []
    for n in (5, 105, 3, 107):
        queue.put_nowait(Reentrant(n))
    ranks: list[int] = []
    while not queue.empty():
        ranks.append(queue.get_nowait().rank)
    assert sorted(destroyed) == [105, 107]
    assert {3, 5, 105, 107, 0} <= set(ranks)


def test_str_shows_size_tasks_and_shutdown() -> None:
    queue: Queue[int] = Queue(3)
    queue.put_nowait(1)
    assert str(queue) == "<Queue maxsize=3 size=1 tasks=1>"
    assert hex(id(queue)) in repr(queue)
    queue.shutdown()
    assert str(queue).endswith("shutdown>")
