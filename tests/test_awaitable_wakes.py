"""The future that a task waits on, and the batch of waiters woken in one loop iteration."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource
from headrace.testing import shuffled_loop
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace import Lease

where: ContextVar[str] = ContextVar("where", default="nowhere")


class Waiters:
    """Tasks that wait for one lease each, and record the order in which they resumed."""

    def __init__(self, count: int, *, starts: bool = True) -> None:
        self.capacity = CapacitySource(count)
        self.held = [self.acquire_now() for _ in range(count)]
        self.order: list[int] = []
        numbers = range(count if starts else 0)
        self.tasks = [asyncio.ensure_future(self.wait(number)) for number in numbers]

    def acquire_now(self) -> Lease:
        lease = self.capacity.acquire_nowait(owner=None)
        assert lease is not None
        return lease

    async def wait(self, number: int) -> str:
        where.set(f"task {number}")
        async with self.capacity.acquire():
            self.order.append(number)
            return where.get()

    def wake(self) -> None:
        """Wake all waiters in one loop iteration."""
        for lease in self.held:
            lease.release()


def step_acquire(capacity: CapacitySource) -> tuple[Any, Any]:
    """Step an acquire by hand; return it and the future that it yielded."""
    acquire: Any = capacity.acquire(owner=None)
    future = acquire.send(None)
    assert future._asyncio_future_blocking is True
    future._asyncio_future_blocking = False
    return acquire, future


def awaited_by(task: asyncio.Task[Any]) -> Any:
    """Return the future that a task waits on."""
    internals: Any = task
    return internals._fut_waiter


def suppress_pending_log(task: Any) -> None:
    """Suppress the log message of a task whose loop was closed on purpose."""
    task._log_destroy_pending = False


@pytest.fixture
def held() -> Iterator[tuple[CapacitySource, Callable[[], None]]]:
    """Return a capacity whose only slot is held, and the function that releases it."""
    capacity = CapacitySource(1)
    lease = capacity.acquire_nowait(owner=None)
    assert lease is not None
    yield capacity, lease.release
    lease.release()


Held = tuple[CapacitySource, "Callable[[], None]"]


async def test_woken_waiters_resume_in_order_and_context() -> None:
    waiters = Waiters(5)
    await yield_to_loop(2)
    waiters.wake()
    # Waiters never resume inside the call that wakes them.
    assert waiters.order == []
    await yield_to_loop(1)
    assert waiters.order == [0, 1, 2, 3, 4]
    assert await asyncio.gather(*waiters.tasks) == [f"task {number}" for number in range(5)]
    assert where.get() == "nowhere"


async def test_task_cancelled_after_wake_passes_grant_on() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire()
    first, second = (asyncio.ensure_future(capacity.acquire(owner=None)) for _ in range(2))
    await yield_to_loop(2)
    lease.release()
    assert first.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await first
    (await second).release()
    assert capacity.held == 0


async def test_woken_task_may_cancel_another_of_its_batch() -> None:
    capacity = CapacitySource(2)
    leases = [await capacity.acquire(owner=None) for _ in range(2)]
    tasks: list[asyncio.Task[None]] = []

    async def first() -> None:
        async with capacity.acquire():
            assert tasks[1].cancel()

    async def second() -> None:
        async with capacity.acquire():
            pytest.fail("it was cancelled before it resumed")

    tasks += [asyncio.create_task(first()), asyncio.create_task(second())]
    await yield_to_loop(2)
    for lease in leases:
        lease.release()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done[0] is None
    assert isinstance(done[1], asyncio.CancelledError)
    assert capacity.held == 0


@pytest.mark.parametrize("is_woken", [False, True])
async def test_cancellation_keeps_its_message(held: Held, is_woken: bool) -> None:
    capacity, release = held
    task = asyncio.ensure_future(capacity.acquire())
    await yield_to_loop(2)
    if is_woken:
        release()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("why",)


async def test_asyncio_wait_functions_accept_acquire(held: Held) -> None:
    capacity, release = held
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(capacity.acquire(), 0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await capacity.acquire()
    shielded = asyncio.ensure_future(capacity.acquire(owner=None))
    outer = asyncio.shield(shielded)
    await yield_to_loop(2)
    outer.cancel()
    await yield_to_loop(1)
    assert not shielded.done()
    release()
    (await shielded).release()
    waiters = Waiters(3)
    gathered = asyncio.gather(*(waiters.wait(number) for number in range(3, 6)))
    await yield_to_loop(2)
    waiters.wake()
    assert await gathered == ["task 3", "task 4", "task 5"]
    await asyncio.gather(*waiters.tasks)
    done, pending = await asyncio.wait([asyncio.ensure_future(capacity.acquire(owner=None))])
    assert not pending
    done.pop().result().release()
    assert capacity.held == 0


async def test_pure_python_task_accepts_acquire(held: Held) -> None:
    capacity, release = held
    kind: Any = vars(asyncio.tasks)["_PyTask"]
    woken, interrupted = (kind(capacity.acquire(owner=None)) for _ in range(2))
    await yield_to_loop(2)
    assert "wait_for=<Future: pending" in repr(woken)
    interrupted.cancel()
    await yield_to_loop(2)
    assert interrupted.cancelled()
    release()
    (await woken).release()


async def test_callbacks_run_once_in_order_and_context(held: Held) -> None:
    capacity, release = held
    acquire, future = step_acquire(capacity)
    assert asyncio.isfuture(future)
    assert future.get_loop() is asyncio.get_running_loop()
    seen: list[tuple[str, str]] = []

    def note(name: str) -> Callable[[Any], None]:
        def callback(resolved: Any) -> None:
            assert resolved is future
            seen.append((name, where.get()))

        return callback

    here = copy_context()
    here.run(where.set, "elsewhere")
    removed = note("gone")
    future.add_done_callback(note("first"), context=here)
    future.add_done_callback(removed)
    future.add_done_callback(note("second"))
    future.add_done_callback(removed)
    where.set("too late")
    assert future.remove_done_callback(removed) == 2
    assert future.remove_done_callback(removed) == 0
    release()
    assert future.done()
    # A callback added to a done future is scheduled on its own, after the earlier ones.
    future.add_done_callback(note("late"))
    assert future.remove_done_callback(removed) == 0
    assert seen == []
    await yield_to_loop(1)
    assert seen == [("first", "elsewhere"), ("second", "nowhere"), ("late", "too late")]
    where.set("nowhere")
    with pytest.raises(StopIteration) as stop:
        acquire.send(None)
    stop.value.value.release()


async def test_future_reports_its_state(held: Held) -> None:
    capacity, release = held
    acquire, future = step_acquire(capacity)
    assert (future.done(), future.cancelled(), repr(future)) == (False, False, "<Future: pending>")
    for read in (future.result, future.exception):
        with pytest.raises(asyncio.InvalidStateError, match="not set"):
            read()
    release()
    assert (future.done(), future.cancelled(), repr(future)) == (True, False, "<Future: done>")
    assert future.result() is None
    assert future.exception() is None
    assert future.cancel() is False
    acquire.close()
    lease = capacity.acquire_nowait(owner=None)
    assert lease is not None
    acquire, future = step_acquire(capacity)
    assert future.cancel(msg="why") is True
    assert (future.done(), future.cancelled(), repr(future)) == (True, True, "<Future: cancelled>")
    assert future.cancel() is False
    for read in (future.result, future.exception):
        with pytest.raises(asyncio.CancelledError, match="why"):
            read()
    acquire.close()
    lease.release()


@pytest.mark.loops("asyncio")
async def test_failing_callback_is_reported_others_run(held: Held) -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    waiters = Waiters(3)
    await yield_to_loop(2)
    error = ValueError("mine")

    def fail(_: Any) -> None:
        raise error

    future = awaited_by(waiters.tasks[1])
    future.add_done_callback(fail)
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    waiters.wake()
    await yield_to_loop(1)
    assert waiters.order == [0, 1, 2]
    assert [context["exception"] for context in contexts] == [error]
    assert contexts[0]["future"] is future
    assert seen == [future]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_batch_resumes_in_the_next_run(error: type[BaseException]) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> Waiters:
        waiters = Waiters(3)
        await yield_to_loop(2)
        return waiters

    def end(_: Any) -> None:
        raise error

    waiters = loop.run_until_complete(begin())
    future = awaited_by(waiters.tasks[1])
    future.add_done_callback(end)
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    waiters.wake()
    with pytest.raises(error):
        loop.run_until_complete(yield_to_loop(3))
    assert (waiters.order, seen) == ([0, 1], [])
    loop.run_until_complete(yield_to_loop(3))
    assert (waiters.order, seen) == ([0, 1, 2], [future])
    loop.close()


def test_closing_loop_passes_unused_grant_on() -> None:
    capacity = CapacitySource(1)
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[Lease, asyncio.Task[Lease]]:
        lease = await capacity.acquire(owner=None)
        waiting = asyncio.create_task(_as_coroutine(capacity))
        await yield_to_loop(2)
        return lease, waiting

    lease, waiting = loop.run_until_complete(begin())

    def release_and_stop() -> None:
        lease.release()
        loop.stop()

    loop.call_soon(release_and_stop)
    loop.run_forever()
    loop.close()
    # The task of the closed loop still exists, but its grant was released.
    assert not waiting.done()
    again = capacity.acquire_nowait(owner=None)
    assert again is not None
    again.release()
    suppress_pending_log(waiting)


async def _as_coroutine(capacity: CapacitySource) -> Lease:
    return await capacity.acquire(owner=None)


def test_shuffled_loop_shuffles_a_wake_batch() -> None:
    async def run() -> tuple[int, ...]:
        waiters = Waiters(4, starts=False)
        for number in range(4):
            waiters.tasks.append(asyncio.ensure_future(waiters.wait(number)))
            # Queue them one by one, so that their order is known.
            await yield_to_loop(2)
        waiters.wake()
        await asyncio.gather(*waiters.tasks)
        return tuple(waiters.order)

    orders = set[tuple[int, ...]]()
    for seed in range(10):
        with asyncio.Runner(loop_factory=shuffled_loop(seed)) as runner:
            orders.add(runner.run(run()))
    assert len(orders) > 5, orders
