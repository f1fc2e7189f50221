"""What a task waits on, and how all who were woken in one turn go on."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource
from headrace.testing import shuffled_loop
from tests.support import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace import Lease

where: ContextVar[str] = ContextVar("where", default="nowhere")


class Line:
    """Tasks that wait for one lease each, and note in which order they went on."""

    def __init__(self, count: int, *, starts: bool = True) -> None:
        self.capacity = CapacitySource(count)
        self.held = [self.taken() for _ in range(count)]
        self.order: list[int] = []
        numbers = range(count if starts else 0)
        self.tasks = [asyncio.ensure_future(self.wait(number)) for number in numbers]

    def taken(self) -> Lease:
        lease = self.capacity.acquire_nowait(owner=None)
        assert lease is not None
        return lease

    async def wait(self, number: int) -> str:
        where.set(f"task {number}")
        async with self.capacity.acquire():
            self.order.append(number)
            return where.get()

    def wake(self) -> None:
        """All of them, in one turn."""
        for lease in self.held:
            lease.release()


def parked(capacity: CapacitySource) -> tuple[Any, Any]:
    """An acquire that waits, driven by hand, and the future that it handed up."""
    acquire: Any = capacity.acquire(owner=None)
    future = acquire.send(None)
    assert future._asyncio_future_blocking is True
    future._asyncio_future_blocking = False
    return acquire, future


def awaited_by(task: asyncio.Task[Any]) -> Any:
    """The future that a task waits on."""
    asked: Any = task
    return asked._fut_waiter


def lay_down(task: Any) -> None:
    """Its loop is closed and it will never end; we know, and want no complaint."""
    task._log_destroy_pending = False


@pytest.fixture
def held() -> Iterator[tuple[CapacitySource, Callable[[], None]]]:
    """A capacity that is held, and what releases it."""
    capacity = CapacitySource(1)
    lease = capacity.acquire_nowait(owner=None)
    assert lease is not None
    yield capacity, lease.release
    lease.release()


Held = tuple[CapacitySource, "Callable[[], None]"]


async def test_who_is_woken_in_one_turn_goes_on_in_order_in_the_next_each_in_its_context() -> None:
    line = Line(5)
    await turns(2)
    line.wake()
    # Never at once: whoever wakes them goes on first.
    assert line.order == []
    await turns(1)
    assert line.order == [0, 1, 2, 3, 4]
    assert await asyncio.gather(*line.tasks) == [f"task {number}" for number in range(5)]
    assert where.get() == "nowhere"


async def test_a_task_that_is_cancelled_after_it_was_woken_hands_its_grant_on() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire()
    first, second = (asyncio.ensure_future(capacity.acquire(owner=None)) for _ in range(2))
    await turns(2)
    lease.release()
    assert first.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await first
    (await second).release()
    assert capacity.held == 0


async def test_one_that_goes_on_may_cancel_another_that_was_woken_with_it() -> None:
    capacity = CapacitySource(2)
    leases = [await capacity.acquire(owner=None) for _ in range(2)]
    tasks: list[asyncio.Task[None]] = []

    async def first() -> None:
        async with capacity.acquire():
            assert tasks[1].cancel()

    async def second() -> None:
        async with capacity.acquire():
            pytest.fail("it was cancelled before it went on")

    tasks += [asyncio.create_task(first()), asyncio.create_task(second())]
    await turns(2)
    for lease in leases:
        lease.release()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done[0] is None
    assert isinstance(done[1], asyncio.CancelledError)
    assert capacity.held == 0


@pytest.mark.parametrize("is_woken", [False, True])
async def test_a_cancellation_comes_with_its_message(held: Held, is_woken: bool) -> None:
    capacity, release = held
    task = asyncio.ensure_future(capacity.acquire())
    await turns(2)
    if is_woken:
        release()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError) as struck:
        await task
    assert struck.value.args == ("why",)


async def test_what_people_wait_with_takes_it_as_it_takes_any_other(held: Held) -> None:
    capacity, release = held
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(capacity.acquire(), 0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await capacity.acquire()
    shielded = asyncio.ensure_future(capacity.acquire(owner=None))
    outer = asyncio.shield(shielded)
    await turns(2)
    outer.cancel()
    await turns(1)
    assert not shielded.done()
    release()
    (await shielded).release()
    line = Line(3)
    gathered = asyncio.gather(*(line.wait(number) for number in range(3, 6)))
    await turns(2)
    line.wake()
    assert await gathered == ["task 3", "task 4", "task 5"]
    await asyncio.gather(*line.tasks)
    done, pending = await asyncio.wait([asyncio.ensure_future(capacity.acquire(owner=None))])
    assert not pending
    done.pop().result().release()
    assert capacity.held == 0


async def test_a_task_written_in_python_takes_it_too(held: Held) -> None:
    capacity, release = held
    kind: Any = vars(asyncio.tasks)["_PyTask"]
    woken, struck = (kind(capacity.acquire(owner=None)) for _ in range(2))
    await turns(2)
    assert "wait_for=<Future: pending" in repr(woken)
    struck.cancel()
    await turns(2)
    assert struck.cancelled()
    release()
    (await woken).release()


async def test_its_callbacks_are_called_once_in_order_each_in_its_context(held: Held) -> None:
    capacity, release = held
    acquire, future = parked(capacity)
    assert asyncio.isfuture(future)
    assert future.get_loop() is asyncio.get_running_loop()
    seen: list[tuple[str, str]] = []

    def note(name: str) -> Callable[[Any], None]:
        def called(resolved: Any) -> None:
            assert resolved is future
            seen.append((name, where.get()))

        return called

    here = copy_context()
    here.run(where.set, "elsewhere")
    gone = note("gone")
    future.add_done_callback(note("first"), context=here)
    future.add_done_callback(gone)
    future.add_done_callback(note("second"))
    future.add_done_callback(gone)
    where.set("too late")
    assert future.remove_done_callback(gone) == 2
    assert future.remove_done_callback(gone) == 0
    release()
    assert future.done()
    # Those who come when it is done go to the loop by themselves, after those who were there.
    future.add_done_callback(note("late"))
    assert future.remove_done_callback(gone) == 0
    assert seen == []
    await turns(1)
    assert seen == [("first", "elsewhere"), ("second", "nowhere"), ("late", "too late")]
    where.set("nowhere")
    with pytest.raises(StopIteration) as stop:
        acquire.send(None)
    stop.value.value.release()


async def test_it_tells_how_it_stands(held: Held) -> None:
    capacity, release = held
    acquire, future = parked(capacity)
    assert (future.done(), future.cancelled(), repr(future)) == (False, False, "<Future: pending>")
    for ask in (future.result, future.exception):
        with pytest.raises(asyncio.InvalidStateError, match="not set"):
            ask()
    release()
    assert (future.done(), future.cancelled(), repr(future)) == (True, False, "<Future: done>")
    assert future.result() is None
    assert future.exception() is None
    assert future.cancel() is False
    acquire.close()
    lease = capacity.acquire_nowait(owner=None)
    assert lease is not None
    acquire, future = parked(capacity)
    assert future.cancel(msg="why") is True
    assert (future.done(), future.cancelled(), repr(future)) == (True, True, "<Future: cancelled>")
    assert future.cancel() is False
    for ask in (future.result, future.exception):
        with pytest.raises(asyncio.CancelledError, match="why"):
            ask()
    acquire.close()
    lease.release()


@pytest.mark.loops("asyncio")
async def test_a_callback_that_fails_is_told_of_and_the_others_are_called(held: Held) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    line = Line(3)
    await turns(2)
    error = ValueError("mine")

    def fail(_: Any) -> None:
        raise error

    future = awaited_by(line.tasks[1])
    future.add_done_callback(fail)
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    line.wake()
    await turns(1)
    assert line.order == [0, 1, 2]
    assert [context["exception"] for context in told] == [error]
    assert told[0]["future"] is future
    assert seen == [future]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_leaves_the_others_for_its_next_turn(error: type[BaseException]) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> Line:
        line = Line(3)
        await turns(2)
        return line

    def end(_: Any) -> None:
        raise error

    line = loop.run_until_complete(begin())
    future = awaited_by(line.tasks[1])
    future.add_done_callback(end)
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    line.wake()
    with pytest.raises(error):
        loop.run_until_complete(turns(3))
    assert (line.order, seen) == ([0, 1], [])
    loop.run_until_complete(turns(3))
    assert (line.order, seen) == ([0, 1, 2], [future])
    loop.close()


def test_a_grant_that_lies_in_a_loop_that_closes_is_handed_on() -> None:
    capacity = CapacitySource(1)
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[Lease, asyncio.Task[Lease]]:
        lease = await capacity.acquire(owner=None)
        waiting = asyncio.create_task(_as_coroutine(capacity))
        await turns(2)
        return lease, waiting

    lease, waiting = loop.run_until_complete(begin())

    def release_and_stop() -> None:
        lease.release()
        loop.stop()

    loop.call_soon(release_and_stop)
    loop.run_forever()
    loop.close()
    # The task of that loop lives on, and what it was granted is free.
    assert not waiting.done()
    again = capacity.acquire_nowait(owner=None)
    assert again is not None
    again.release()
    lay_down(waiting)


async def _as_coroutine(capacity: CapacitySource) -> Lease:
    return await capacity.acquire(owner=None)


def test_a_shuffled_loop_shuffles_who_was_woken_in_one_turn() -> None:
    async def run() -> tuple[int, ...]:
        line = Line(4, starts=False)
        for number in range(4):
            line.tasks.append(asyncio.ensure_future(line.wait(number)))
            # One after the other, so that all stand in the line in this order.
            await turns(2)
        line.wake()
        await asyncio.gather(*line.tasks)
        return tuple(line.order)

    orders = set[tuple[int, ...]]()
    for seed in range(10):
        with asyncio.Runner(loop_factory=shuffled_loop(seed)) as runner:
            orders.add(runner.run(run()))
    assert len(orders) > 5, orders
