"""Guarantees that hold for each of two event loops in two threads, concurrently or one after the other."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    PullRaceObj,
    PushPullBufferObj,
    SourceIterObj,
    WrongLoopError,
)
from tests.support import Heart, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from headrace import PullObj

TIMEOUT = 20
"""Seconds to wait for the other thread."""


def overlap(pool: ThreadPoolExecutor) -> None:
    """In two threads, step a source of a merge each: the first one starts first and ends first."""
    first_started, second_started, first_ended = (threading.Event() for _ in range(3))

    async def first() -> AsyncIterator[str]:
        first_started.set()
        assert second_started.wait(TIMEOUT)
        yield "first"

    async def second() -> AsyncIterator[str]:
        second_started.set()
        assert first_ended.wait(TIMEOUT)
        yield "second"

    async def pull(source: AsyncIterator[str], ended: threading.Event) -> str:
        async with PullRaceObj(source, []) as merge:
            item = await anext(merge)
            ended.set()
            return item

    one = pool.submit(asyncio.run, pull(first(), first_ended))
    assert first_started.wait(TIMEOUT)
    other = pool.submit(asyncio.run, pull(second(), threading.Event()))
    assert [one.result(TIMEOUT), other.result(TIMEOUT)] == ["first", "second"]


@pytest.mark.parametrize("times", [1, 101])
def test_law_16_yield_budget_is_per_thread(times: int) -> None:
    """A budget that is never returned would make every pull yield; a merge that stays open, every item."""

    async def pull_all() -> None:
        items = SourceIterObj(range(500)).map(str).map(int)
        async with asyncio.timeout(TIMEOUT), Heart() as heart:
            assert await PullRaceObj(items, range(500)).count() == 1_000
        assert heart.beats < 200

    with ThreadPoolExecutor(2) as pool:
        for _ in range(times):
            overlap(pool)
        for _ in range(4):  # in either of the threads
            pool.submit(asyncio.run, pull_all()).result()
    asyncio.run(pull_all())


def test_law_16_yields_while_another_loop_suspends() -> None:
    items = 200
    start, finished = threading.Semaphore(0), threading.Semaphore(0)

    async def suspend() -> None:
        buffer = PushPullBufferObj[int]()
        for number in range(items):
            assert start.acquire(timeout=TIMEOUT)
            pull = asyncio.ensure_future(anext(buffer.source))
            await asyncio.sleep(0)
            assert not pull.done()
            await buffer.sink.next(number)
            assert await pull == number
            finished.release()

    def work(number: int) -> int:
        start.release()
        assert finished.acquire(timeout=TIMEOUT)
        deadline = time.perf_counter() + 0.001
        while time.perf_counter() < deadline:
            pass
        return number

    async def run() -> int:
        async with Heart() as heart:
            assert await SourceIterObj(range(items)).map(work).count() == items
        return heart.beats

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(asyncio.run, suspend())
        beats = asyncio.run(run())
        other.result(TIMEOUT)
    # Each item takes longer than the yield budget.
    assert beats > items / 3


@pytest.mark.parametrize("prefetch", [1, 3])
def test_law_9_second_loop_is_refused_during_a_step(prefetch: int) -> None:
    """Every thread sees that a loop runs a step of a task, which proves nothing about the current thread."""
    started, refused = threading.Event(), threading.Event()
    merges: list[PullRaceObj[int]] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    async def run() -> list[int]:
        async with PullRaceObj(numbers(), [], prefetch=prefetch) as merge:
            merges.append(merge)
            items = [await anext(merge)]
            started.set()
            # In the middle of a step, with the GIL released.
            assert refused.wait(TIMEOUT)
            return items + [item async for item in merge]

    async def pull_in_other_loop() -> None:
        # A new stream, which no loop has driven yet.
        with pytest.raises(WrongLoopError):
            await anext(merges[0].map(str))

    with ThreadPoolExecutor(1) as pool:
        items = pool.submit(asyncio.run, run())
        assert started.wait(TIMEOUT)
        try:
            asyncio.run(pull_in_other_loop())
        finally:
            refused.set()
        assert items.result(TIMEOUT) == list(range(10))


async def identity(number: int) -> int:
    await asyncio.sleep(0)
    return number


IDLE_STREAMS: dict[str, Callable[[], PullObj[int]]] = {
    "a source": lambda: SourceIterObj(range(100)),
    "a line": lambda: SourceIterObj(range(100)).filter(lambda _: True),
    "a line that awaits": lambda: SourceIterObj(range(100)).map(identity),
}


def run_in_thread(work: Callable[[], Any]) -> Any:
    """Return the result of a function that runs in a new thread, which then ends."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(TIMEOUT)


def run_here(work: Callable[[], Any]) -> Any:
    return work()


def run(call: Callable[[], Awaitable[Any]]) -> Any:
    """Return the result of a call in a new event loop, which is then closed."""

    async def wait() -> Any:
        return await asyncio.wait_for(call(), TIMEOUT / 2)

    return asyncio.run(wait())


@pytest.mark.parametrize("first", [run_here, run_in_thread])
@pytest.mark.parametrize("make", IDLE_STREAMS.values(), ids=IDLE_STREAMS)
def test_law_15_idle_stream_continues_in_next_loop(
    make: Callable[[], PullObj[int]], first: Callable[[Callable[[], Any]], Any]
) -> None:
    stream = make()

    def pull() -> int:
        number: int = run(lambda: anext(stream))
        return number

    # A thread may reuse the memory addresses and the identifier of an earlier one.
    expected = [*range(20)]
    assert [first(pull)] + [run_in_thread(pull) for _ in expected[1:]] == expected
    assert run_here(pull) == 20


@pytest.mark.parametrize("make", IDLE_STREAMS.values(), ids=IDLE_STREAMS)
def test_law_9_open_loop_keeps_stream_after_its_thread(
    make: Callable[[], PullObj[int]],
) -> None:
    stream = make()
    loop = asyncio.new_event_loop()

    async def pull() -> int:
        return await anext(stream)

    def pull_there() -> int:
        return loop.run_until_complete(pull())

    def refuse() -> None:
        with pytest.raises(WrongLoopError):
            run(pull)

    try:
        # An event loop may run in one thread after another.
        assert [run_in_thread(pull_there) for _ in range(3)] == [0, 1, 2]
        for _ in range(20):
            run_in_thread(refuse)
        assert run_in_thread(pull_there) == 3
    finally:
        loop.close()
    assert run_in_thread(lambda: run(pull)) == 4


@pytest.mark.parametrize("run_somewhere", [run_here, run_in_thread])
def test_law_15_pull_pending_in_closed_loop_is_no_hang(
    run_somewhere: Callable[[Callable[[], Any]], Any],
) -> None:
    async def wait(_: int) -> int:
        value: int = await asyncio.get_running_loop().create_future()
        return value

    stream = SourceIterObj(range(3)).map(wait)
    loop = asyncio.new_event_loop()
    # The task stays pending, which the loop reports when it is dropped.
    loop.set_exception_handler(lambda *_: None)
    pulls: list[asyncio.Future[int]] = []

    async def start_pull() -> None:
        pulls.append(asyncio.ensure_future(anext(stream)))
        await yield_to_loop(3)

    def refuse() -> None:
        with pytest.raises(WrongLoopError):
            run(lambda: anext(stream))

    loop.run_until_complete(start_pull())
    loop.close()
    run_somewhere(refuse)
