"""A child that is forked while an event loop runs. It can run its own loop, and refuses objects in use by its parent."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import select
import signal
import threading
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    ForkError,
    HierarchicalTaskPoolRunner,
    PullRaceObj,
    PushPullBufferObj,
    Rate,
    SourceIterObj,
    Task,
    WaitObject,
)
from tests.support import Heart, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PATIENCE = 30
"""Seconds after which a child counts as hanging."""


@pytest.fixture(autouse=True)
def _ignore_fork_warnings() -> Iterator[None]:
    """Ignore the warning of CPython 3.12 and newer about a fork beside threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        yield


def in_child(work: Callable[[], str]) -> str:
    """Run a function in a forked child. Return its result, or the traceback of its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        report = "nothing was reported"
        try:
            report = work()
        except BaseException:
            report = traceback.format_exc()
        finally:
            os.write(writer, report.encode()[:4_000])
            os._exit(0)
    os.close(writer)
    try:
        # A pipe is also readable once its other end is closed.
        assert select.select([reader], [], [], PATIENCE)[0], "the child hangs"
        with os.fdopen(reader, closefd=False) as pipe:
            return pipe.read()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)


async def slow_identity(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def numbers() -> AsyncIterator[int]:
    for number in range(5):
        await asyncio.sleep(0)
        yield number


async def run_a_pool() -> None:
    tasks = [Task(slow_identity, number) for number in range(5)]
    assert sorted(await HierarchicalTaskPoolRunner(tasks, CapacitySource(2)).run()) == [*range(5)]


async def map_a_pool() -> None:
    results = SourceIterObj(range(5)).map_pool(slow_identity, CapacitySource(2))
    assert sorted(await results.collect()) == [0, 1, 2, 3, 4]


async def map_concurrently() -> None:
    assert await SourceIterObj(range(5)).map(slow_identity, concurrency=2).collect() == [
        0,
        1,
        2,
        3,
        4,
    ]


async def merge_sources() -> None:
    assert sorted(await PullRaceObj(numbers(), range(5)).collect()) == sorted([*range(5)] * 2)


async def pull_ahead() -> None:
    assert await SourceIterObj(numbers()).prefetch(2).map(slow_identity).collect() == [
        0,
        1,
        2,
        3,
        4,
    ]


async def fill_a_buffer() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)

    async def fill() -> None:
        for number in range(5):
            await buffer.sink.next(number)
        await buffer.sink.return_()

    filling = asyncio.ensure_future(fill())
    assert await buffer.source.collect() == [0, 1, 2, 3, 4]
    await filling


async def wait_for_a_capacity() -> None:
    capacity = CapacitySource(1)
    first = await capacity.acquire(owner=None)
    waiting = asyncio.ensure_future(capacity.acquire(owner=None))
    await yield_to_loop(2)
    first.release()
    (await waiting).release()
    assert capacity.held == 0


async def wait_for_a_rate() -> None:
    capacity = CapacitySource({"calls": Rate(1, per=0.01)})
    for _ in range(3):
        (await capacity.acquire({"calls": 1})).release()


async def wait_for_a_signal() -> None:
    done: WaitObject[int] = WaitObject()
    waiting = asyncio.ensure_future(done.wait())
    await yield_to_loop(2)
    done.resolve(7)
    assert await waiting == 7


async def wait_for_a_thread() -> None:
    done: WaitObject[int] = WaitObject()
    thread = threading.Thread(target=done.resolve, args=(7,))
    asyncio.get_running_loop().call_soon(thread.start)
    assert await done.wait() == 7
    thread.join()


async def yield_to_others() -> None:
    async with Heart() as heart:
        assert await SourceIterObj(range(20_000)).map(str).count() == 20_000
    # A yield budget that is still lent to a task of the parent would never be renewed: the child would always yield.
    assert heart.beats < 10_000


USES: dict[str, Callable[[], Awaitable[None]]] = {
    use.__name__: use
    for use in (
        run_a_pool,
        map_a_pool,
        map_concurrently,
        merge_sources,
        pull_ahead,
        fill_a_buffer,
        wait_for_a_capacity,
        wait_for_a_rate,
        wait_for_a_signal,
        wait_for_a_thread,
        yield_to_others,
    )
}
EACH_USE = pytest.mark.parametrize("name", USES)


def use_in_a_new_loop(name: str) -> str:
    """Run one of `USES` in a new event loop, in the child."""

    async def use() -> None:
        await asyncio.wait_for(USES[name](), PATIENCE / 2)

    asyncio.run(use())
    # Free the objects inherited from the parent.
    gc.collect()
    return "it works"


async def use_all() -> None:
    """Run all of `USES`, so that all state that is kept for a loop exists."""
    for use in USES.values():
        await use()


@EACH_USE
async def test_law_15_child_of_a_coroutine_runs_its_own_loop(name: str) -> None:
    await USES[name]()
    assert in_child(lambda: use_in_a_new_loop(name)) == "it works"
    await USES[name]()


@EACH_USE
async def test_law_15_first_use_in_a_child(name: str) -> None:
    assert in_child(lambda: use_in_a_new_loop(name)) == "it works"


@EACH_USE
@pytest.mark.loops("asyncio")
async def test_law_15_child_of_a_pool_task_runs_its_own_loop(name: str) -> None:
    await use_all()

    async def fork() -> str:
        await asyncio.sleep(0)
        return in_child(lambda: use_in_a_new_loop(name))

    capacity = CapacitySource({"slots": 1})
    tasks = [Task(fork, cost={"slots": 1})]
    assert await HierarchicalTaskPoolRunner(tasks, capacity).run() == ["it works"]


@EACH_USE
@pytest.mark.loops("asyncio")
async def test_law_15_child_of_a_merge_runs_its_own_loop(name: str) -> None:
    async def fork() -> AsyncIterator[str]:
        yield in_child(lambda: use_in_a_new_loop(name))

    async with PullRaceObj(fork(), []) as race:
        assert await anext(race) == "it works"


@EACH_USE
def test_law_15_child_of_a_thread_runs_its_own_loop(name: str) -> None:
    async def run() -> None:
        await use_all()
        assert await asyncio.to_thread(in_child, lambda: use_in_a_new_loop(name)) == "it works"
        await USES[name]()

    asyncio.run(run())


@pytest.mark.loops("asyncio")
async def test_law_15_multiprocessing_child_runs_its_own_loop() -> None:
    await use_all()
    context = multiprocessing.get_context("fork")
    for name in USES:
        receiver, sender = context.Pipe(duplex=False)

        def work(name: str = name, sender: Any = sender) -> None:
            sender.send(use_in_a_new_loop(name))

        process = context.Process(target=work)
        process.start()
        sender.close()
        try:
            assert receiver.poll(PATIENCE), f"the child hangs in {name}"
            assert receiver.recv() == "it works"
        finally:
            process.kill()
            process.join()
            receiver.close()
    await use_all()


@pytest.mark.loops("asyncio")
async def test_law_15_process_pool_worker_runs_its_own_loop() -> None:
    await use_all()
    loop = asyncio.get_running_loop()
    executor = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    try:
        calls = [loop.run_in_executor(executor, use_in_a_new_loop, name) for name in USES]
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.gather(*calls) == ["it works"] * len(USES)
    finally:
        for process in list(executor._processes.values()):
            process.kill()
        executor.shutdown()
    await use_all()


async def test_law_15_child_refuses_what_its_parent_uses() -> None:
    stream = SourceIterObj(range(5)).map(slow_identity)
    race = PullRaceObj(numbers(), range(5))
    await anext(stream)
    await anext(race)
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    signal_: WaitObject[int] = WaitObject()
    capacity = CapacitySource(1)
    lease = await capacity.acquire(owner=None)
    item = asyncio.ensure_future(anext(buffer.source))
    value = asyncio.ensure_future(signal_.wait())
    second = asyncio.ensure_future(capacity.acquire(owner=None))
    await yield_to_loop(3)
    uses: list[Callable[[], Any]] = [
        lambda: anext(stream),
        lambda: anext(race),
        lambda: anext(buffer.source),
        lambda: buffer.sink.next(1),
        signal_.wait,
        capacity.acquire,
    ]
    calls: list[Callable[[], object]] = [
        lambda: buffer.sink.next_nowait(1),
        lambda: signal_.resolve(1),
        capacity.acquire_nowait,
        lambda: capacity.resize(2),
        lease.release,
    ]

    def work() -> str:
        async def run() -> None:
            for number, use in enumerate(uses):
                try:
                    await asyncio.wait_for(use(), PATIENCE / 2)
                except ForkError:
                    continue
                raise AssertionError(f"use {number} went through")

        for number, call in enumerate(calls):
            try:
                call()
            except ForkError:
                continue
            raise AssertionError(f"call {number} went through")
        asyncio.run(run())
        return use_in_a_new_loop("fill_a_buffer")

    assert in_child(work) == "it works"
    # The parent can continue.
    buffer.sink.next_nowait(1)
    signal_.resolve(2)
    lease.release()
    assert (await item, await value) == (1, 2)
    (await second).release()
    assert await stream.collect() == [1, 2, 3, 4]
    await race.aclose()


async def test_law_15_drop_in_a_child_wakes_no_parent_waiter() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    items = [asyncio.ensure_future(anext(buffer.source)) for _ in range(3)]
    await yield_to_loop(3)

    def work() -> str:
        for item in items:
            item.get_coro().close()
        items.clear()
        return use_in_a_new_loop("fill_a_buffer")

    assert in_child(work) == "it works"
    for number in range(3):
        await buffer.sink.next(number)
    assert await asyncio.gather(*items) == [0, 1, 2]


def test_law_15_lock_held_at_the_fork_blocks_no_child() -> None:
    entered, may_leave = threading.Event(), threading.Event()
    is_held = False

    def clock() -> float:
        if is_held and threading.current_thread() is not threading.main_thread():
            entered.set()
            assert may_leave.wait(PATIENCE)
        return time.monotonic()

    capacity = CapacitySource(1, clock=clock)
    is_held = True
    thread = threading.Thread(target=capacity.resize, args=(2,))
    thread.start()

    def work() -> str:
        signal.alarm(PATIENCE)
        try:
            capacity.resize(3)
        except ForkError:
            return "refused"
        return "it went through"

    try:
        assert entered.wait(PATIENCE)
        assert in_child(work) == "refused"
    finally:
        may_leave.set()
        thread.join()
    assert capacity.limit == 2
