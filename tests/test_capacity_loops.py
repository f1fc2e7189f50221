"""One tree for many loops and threads, some of which end while their tasks wait."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Budget, CapacitySource, ForkError, QuotaCapacitySource, Rate, WouldDeadlock
from tests.support import until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace import Lease

Loop = asyncio.AbstractEventLoop


@pytest.fixture(params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Iterator[Callable[[], Loop]]:
    made: list[Loop] = []

    def make() -> Loop:
        if request.param == "uvloop":
            loop: Loop = pytest.importorskip("uvloop").new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        made.append(loop)
        return loop

    yield make
    for loop in made:
        loop.close()


async def hold(capacity: CapacitySource, into: list[Lease] | None = None) -> None:
    lease = await capacity.acquire()
    if into is not None:
        into.append(lease)
    else:
        lease.release()


def start_waiting(loop: Loop, capacity: CapacitySource) -> asyncio.Task[None]:
    """Start a task that waits on this loop, and stop the loop after some iterations."""
    task = loop.create_task(hold(capacity))
    loop.run_until_complete(yield_to_loop(3))
    assert not task.done()
    return task


def suppress_pending_logs(*tasks: asyncio.Task[Any]) -> None:
    """Suppress the log messages of tasks whose loops were closed on purpose."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def in_thread(act: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def join(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def until_waiting(capacity: CapacitySource, count: int) -> None:
    """Wait in a thread until the given number of requests is queued."""
    end = time.monotonic() + 30
    while capacity.waiting != count:
        assert time.monotonic() < end
        time.sleep(0.001)


# Threads without a loop.


def test_thread_waits_for_its_lease() -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync()
    assert capacity.held == 1
    order: list[str] = []

    def use() -> None:
        with capacity.acquire_sync():
            order.append("there")

    thread = in_thread(use)
    until_waiting(capacity, 1)
    assert not order
    lease.release()
    join(thread)
    assert order == ["there"]
    assert capacity.held == 0


def test_thread_gives_up_after_its_timeout() -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync()

    def give_up() -> None:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match=f"within {timeout} seconds"):
                capacity.acquire_sync(timeout=timeout)

    join(in_thread(give_up))
    assert capacity.waiting == 0
    lease.release()


def test_thread_waiting_for_itself_raises() -> None:
    capacity = CapacitySource(1)
    with capacity.acquire_sync(), pytest.raises(WouldDeadlock, match="this task or thread holds"):
        capacity.acquire_sync()
    with capacity.acquire_sync(owner=None), pytest.raises(TimeoutError):
        capacity.acquire_sync(timeout=0.01)


async def test_acquire_sync_refuses_to_block_a_loop() -> None:
    capacity = CapacitySource(1)
    with (
        capacity.acquire_sync(),
        pytest.raises(RuntimeError, match=r"acquire_sync\(\) would block the event loop"),
    ):
        capacity.acquire_sync(owner=None)


def test_thread_suspends_its_lease() -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync()
    with lease.suspended():
        assert capacity.held == 0
        with pytest.raises(RuntimeError, match="this lease is suspended"), lease.suspended():
            pass
    assert capacity.held == 1
    lease.release()
    with pytest.raises(RuntimeError, match="was released"), lease.suspended():
        pass


def test_threads_share_a_rate() -> None:
    capacity = QuotaCapacitySource(Rate(200, per=1.0))
    granted: list[float] = []

    def use() -> None:
        for _ in range(5):
            capacity.acquire_sync().release()
            granted.append(time.monotonic())

    begun = time.monotonic()
    join(*(in_thread(use) for _ in range(4)))
    assert len(granted) == 20
    # The last entry of the list is not always the latest grant.
    assert max(granted) - begun >= 19 / 200 - 0.001


# Loops and threads.


def test_law_9_two_loops_and_a_thread_share_one_tree() -> None:
    root = CapacitySource(3)
    leaves = [CapacitySource(2, root) for _ in range(3)]
    peak = current = 0
    lock = threading.Lock()

    def enter(by: int) -> None:
        nonlocal peak, current
        with lock:
            current += by
            peak = max(peak, current)

    async def use(number: int) -> None:
        async with leaves[number % 3].acquire():
            enter(1)
            await asyncio.sleep(0)
            enter(-1)

    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(300)))

    def plain() -> None:
        for number in range(100):
            with leaves[number % 3].acquire_sync():
                enter(1)
                enter(-1)

    join(*(in_thread(lambda: asyncio.run(main())) for _ in range(2)), in_thread(plain))
    assert 1 < peak <= 3
    assert [node.held for node in (root, *leaves)] == [0, 0, 0, 0]
    assert root.waiting == 0


def test_two_loops_and_a_thread_share_a_rate() -> None:
    capacity = QuotaCapacitySource(Rate(200, per=1.0))
    granted: list[float] = []

    async def use() -> None:
        for _ in range(10):
            async with capacity.acquire():
                granted.append(time.monotonic())

    def plain() -> None:
        for _ in range(10):
            with capacity.acquire_sync():
                granted.append(time.monotonic())

    begun = time.monotonic()
    join(*(in_thread(lambda: asyncio.run(use())) for _ in range(2)), in_thread(plain))
    assert len(granted) == 30
    assert 29 / 200 - 0.001 <= max(granted) - begun < 10


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("releases", ["here", "elsewhere"])
def test_grant_for_a_dead_loop_goes_to_the_next_waiter(
    loops: Callable[[], Loop], closed: bool, releases: str
) -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync(owner=None)
    loop = loops()
    tasks = [start_waiting(loop, capacity) for _ in range(3)]
    if closed:
        loop.close()
    if releases == "here":
        lease.release()
    else:
        join(in_thread(lease.release))
    # No task of a dead loop keeps the grant.
    got = capacity.acquire_sync(timeout=20)
    got.release()
    assert capacity.held == 0
    suppress_pending_logs(*tasks)


@pytest.mark.parametrize("closed", [True, False])
def test_dead_loop_with_the_next_timer_delays_no_other(
    loops: Callable[[], Loop], closed: bool
) -> None:
    capacity = QuotaCapacitySource(Rate(1, per=0.1))
    capacity.acquire_sync().release()
    begun = time.monotonic()
    dead = loops()
    tasks = [start_waiting(dead, capacity) for _ in range(2)]
    if closed:
        dead.close()
    served: list[float] = []

    async def use() -> None:
        await hold(capacity)
        served.append(time.monotonic() - begun)

    def plain() -> None:
        capacity.acquire_sync(timeout=20).release()
        served.append(time.monotonic() - begun)

    living = loops()
    join(
        in_thread(lambda: living.run_until_complete(asyncio.wait_for(use(), 20))), in_thread(plain)
    )
    # Tasks of the dead loop use up none of the rate.
    assert 0.19 < max(served) < 5
    assert capacity.waiting == 0
    suppress_pending_logs(*tasks)


def test_waiter_of_another_thread_moves_the_timer() -> None:
    capacity = CapacitySource({"slow": Rate(1, per=1000.0), "fast": Rate(1, per=0.05)})
    capacity.acquire_sync({"slow": 1, "fast": 1}).release()
    served: list[str] = []
    done = threading.Event()

    async def slow() -> None:
        task = asyncio.ensure_future(capacity.acquire({"slow": 1}))
        await asyncio.to_thread(done.wait)
        task.cancel()

    def fast() -> None:
        until_waiting(capacity, 1)
        capacity.acquire_sync({"fast": 1}, timeout=20).release()
        served.append("fast")
        done.set()

    join(in_thread(lambda: asyncio.run(slow())), in_thread(fast))
    assert served == ["fast"]
    assert capacity.waiting == 0


async def test_release_by_a_thread_wakes_the_loop() -> None:
    capacity = CapacitySource(1)
    for _ in range(50):
        lease = await capacity.acquire(owner=None)
        waiting = asyncio.ensure_future(capacity.acquire())
        await until(lambda: capacity.waiting == 1)
        await asyncio.to_thread(lease.release)
        (await waiting).release()


def test_stopped_loop_keeps_its_grant_until_closed() -> None:
    capacity = CapacitySource(1)

    async def grant() -> None:
        # The waiting task is not stepped before the loop stops. (uvloop would still step it.)
        asyncio.get_running_loop().stop()
        lease.release()

    tasks: list[asyncio.Task[None]] = []
    for is_closed in (False, True):
        loop = asyncio.new_event_loop()
        lease = capacity.acquire_sync(owner=None)
        tasks.append(start_waiting(loop, capacity))
        granting = loop.create_task(grant())
        loop.run_forever()
        assert granting.done()
        assert (capacity.held, capacity.waiting) == (1, 0)
        if is_closed:
            loop.close()
        else:
            loop.run_until_complete(tasks[-1])
            loop.close()
        assert capacity.held == 0
    suppress_pending_logs(tasks[-1])


def test_waiter_of_a_stopped_loop_queues_again(loops: Callable[[], Loop]) -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync(owner=None)
    loop = loops()
    task = start_waiting(loop, capacity)
    lease.release()
    assert (capacity.held, capacity.waiting) == (0, 0)
    other = capacity.acquire_nowait(owner=None)
    assert other is not None
    loop.run_until_complete(yield_to_loop(3))
    assert capacity.waiting == 1
    other.release()
    assert capacity.held == 0
    loop.run_until_complete(task)
    loop.close()


async def test_one_tree_serves_successive_loops() -> None:
    capacity = QuotaCapacitySource(Rate(1, per=0.01))

    async def use() -> None:
        for _ in range(3):
            await hold(capacity)

    def run() -> None:
        for _ in range(3):
            asyncio.run(use())

    await asyncio.to_thread(run)
    await use()


def test_loop_that_waited_is_collected() -> None:
    capacity = QuotaCapacitySource(Rate(1, per=1000.0))
    capacity.acquire_sync().release()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await capacity.acquire(timeout=0.001)

    def once() -> weakref.ref[Loop]:
        with asyncio.Runner() as runner:
            loop_ref = weakref.ref(runner.get_loop())
            runner.run(give_up())
        return loop_ref

    loop_ref = once()
    # The next loop cleans up after it.
    second = once()
    gc.collect()
    assert loop_ref() is None
    assert second is not loop_ref


# A grant is never lost and never given twice.

# `make soak` runs 100,000 rounds.
ROUNDS = int(os.environ.get("HEADRACE_ROUNDS", "3000"))


@pytest.mark.timeout(60 + ROUNDS / 500)
@pytest.mark.parametrize("resource", ["slots", "quota", "budget"])
def test_law_8_cancellation_races_with_its_grant(resource: str) -> None:
    limits: dict[str, Any] = {"slots": 1}
    cost: dict[str, float] = {"slots": 1}
    if resource == "quota":
        limits["requests"], cost["requests"] = Rate(1e6, per=3e7, burst=1e6), 1
    if resource == "budget":
        limits["dollars"], cost["dollars"] = Budget(1e6), 1
    capacity = CapacitySource(limits)
    served = 0
    releases: list[Lease] = []
    go, over = threading.Event(), threading.Event()

    def releaser() -> None:
        while True:
            go.wait()
            go.clear()
            while releases:
                releases.pop().release()
            if over.is_set():
                return

    async def main() -> None:
        nonlocal served
        for _ in range(ROUNDS):
            lease = await capacity.acquire({"slots": 1}, owner=None)
            waiting = asyncio.ensure_future(capacity.acquire(cost))
            await asyncio.sleep(0)
            releases.append(lease)
            del lease
            # The release and the cancellation race.
            go.set()
            await asyncio.sleep(0)
            waiting.cancel()
            try:
                (await waiting).release()
                served += 1
            except asyncio.CancelledError:
                pass

    thread = in_thread(releaser)
    asyncio.run(main())
    over.set()
    go.set()
    join(thread)
    held = capacity.held
    assert held["slots"] == 0
    assert capacity.waiting == 0
    if resource == "budget":
        assert held["dollars"] == served
    if resource == "quota":
        assert served - 1 <= held["requests"] <= served


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_law_15_capacity_raises_after_a_fork() -> None:
    capacity = CapacitySource(2)
    lease = capacity.acquire_sync()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        report = b"nothing was raised"
        try:
            for use in (
                capacity.acquire_nowait,
                capacity.acquire,
                capacity.acquire_sync,
                lease.release,
                lambda: capacity.held,
                lambda: CapacitySource(1, capacity),
            ):
                try:
                    use()
                except ForkError:
                    report = b"fork"
                else:
                    report = b"one use went through"
                    break
            del lease, capacity
            gc.collect()
        finally:
            os.write(writing, report)
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "fork"
    lease.release()
    assert capacity.held == 0
