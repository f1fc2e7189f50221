"""Laws that hold for each of two loops in two threads, side by side or one after the other."""

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
from tests.support import Heart, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from headrace import PullObj

PATIENCE = 20
"""Seconds after which who waits for the other thread gives up."""


def overlap(pool: ThreadPoolExecutor) -> None:
    """Two threads step a source of a merge each: the first one begins first, and ends first."""
    first_began, second_began, first_ended = (threading.Event() for _ in range(3))

    async def first() -> AsyncIterator[str]:
        first_began.set()
        assert second_began.wait(PATIENCE)
        yield "first"

    async def second() -> AsyncIterator[str]:
        second_began.set()
        assert first_ended.wait(PATIENCE)
        yield "second"

    async def pull(source: AsyncIterator[str], ended: threading.Event) -> str:
        async with PullRaceObj(source, []) as race:
            item = await anext(race)
            ended.set()
            return item

    one = pool.submit(asyncio.run, pull(first(), first_ended))
    assert first_began.wait(PATIENCE)
    other = pool.submit(asyncio.run, pull(second(), threading.Event()))
    assert [one.result(PATIENCE), other.result(PATIENCE)] == ["first", "second"]


@pytest.mark.parametrize("times", [1, 101])
def test_law_16_what_a_step_borrows_is_given_back_in_its_own_thread(times: int) -> None:
    """A budget that stays lent would have every pull rest for ever; a merge that stays open, every item."""

    async def pull_everything() -> None:
        items = SourceIterObj(range(500)).map(str).map(int)
        async with asyncio.timeout(PATIENCE), Heart() as heart:
            assert await PullRaceObj(items, range(500)).count() == 1_000
        assert heart.beats < 200

    with ThreadPoolExecutor(2) as pool:
        for _ in range(times):
            overlap(pool)
        for _ in range(4):  # whichever of the threads takes it
            pool.submit(asyncio.run, pull_everything()).result()
    asyncio.run(pull_everything())


def test_law_16_a_loop_turns_also_if_another_one_suspends_at_each_of_its_items() -> None:
    items = 200
    go, gone = threading.Semaphore(0), threading.Semaphore(0)

    async def suspend() -> None:
        buffer = PushPullBufferObj[int]()
        for number in range(items):
            assert go.acquire(timeout=PATIENCE)
            pull = asyncio.ensure_future(anext(buffer.source))
            await asyncio.sleep(0)
            assert not pull.done()
            await buffer.sink.next(number)
            assert await pull == number
            gone.release()

    def work(number: int) -> int:
        go.release()
        assert gone.acquire(timeout=PATIENCE)
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass
        return number

    async def run() -> int:
        async with Heart() as heart:
            assert await SourceIterObj(range(items)).map(work).count() == items
        return heart.beats

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(asyncio.run, suspend())
        beats = asyncio.run(run())
        other.result(PATIENCE)
    # Each item takes longer than a task may go on.
    assert beats > items / 3


@pytest.mark.parametrize("prefetch", [1, 3])
def test_law_9_a_loop_is_refused_also_while_the_right_one_runs_a_task(prefetch: int) -> None:
    """That a loop runs a step of a task is seen from every thread, and proves nothing in another one."""
    begun, refused = threading.Event(), threading.Event()
    races: list[PullRaceObj[int]] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    async def run() -> list[int]:
        async with PullRaceObj(numbers(), [], prefetch=prefetch) as race:
            races.append(race)
            items = [await anext(race)]
            begun.set()
            # In the middle of a step, without the interpreter's lock.
            assert refused.wait(PATIENCE)
            return items + [item async for item in race]

    async def pull_elsewhere() -> None:
        # A stream of its own, which no loop has driven yet.
        with pytest.raises(WrongLoopError):
            await anext(races[0].map(str))

    with ThreadPoolExecutor(1) as pool:
        items = pool.submit(asyncio.run, run())
        assert begun.wait(PATIENCE)
        try:
            asyncio.run(pull_elsewhere())
        finally:
            refused.set()
        assert items.result(PATIENCE) == list(range(10))


async def same(number: int) -> int:
    await asyncio.sleep(0)
    return number


IDLE: dict[str, Callable[[], PullObj[int]]] = {
    "a source": lambda: SourceIterObj(range(100)),
    "a line": lambda: SourceIterObj(range(100)).filter(lambda _: True),
    "a line that awaits": lambda: SourceIterObj(range(100)).map(same),
}


def run_in_thread(work: Callable[[], Any]) -> Any:
    """The result of a function in a thread of its own, which has ended."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(PATIENCE)


def run_in_place(work: Callable[[], Any]) -> Any:
    return work()


def run(call: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a call in a loop of its own, which is closed."""

    async def wait() -> Any:
        return await asyncio.wait_for(call(), PATIENCE / 2)

    return asyncio.run(wait())


@pytest.mark.parametrize("first", [run_in_place, run_in_thread])
@pytest.mark.parametrize("make", IDLE.values(), ids=IDLE)
def test_law_15_an_idle_stream_goes_on_after_its_loop_in_any_thread(
    make: Callable[[], PullObj[int]], first: Callable[[Callable[[], Any]], Any]
) -> None:
    stream = make()

    def pull() -> int:
        number: int = run(lambda: anext(stream))
        return number

    # Each thread may be given the addresses and the identifier of the one before.
    expected = [*range(20)]
    assert [first(pull)] + [run_in_thread(pull) for _ in expected[1:]] == expected
    assert run_in_place(pull) == 20


@pytest.mark.parametrize("make", IDLE.values(), ids=IDLE)
def test_law_9_an_open_loop_keeps_its_stream_also_if_its_thread_has_ended(
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
        # A loop may be run in one thread after the other.
        assert [run_in_thread(pull_there) for _ in range(3)] == [0, 1, 2]
        for _ in range(20):
            run_in_thread(refuse)
        assert run_in_thread(pull_there) == 3
    finally:
        loop.close()
    assert run_in_thread(lambda: run(pull)) == 4


@pytest.mark.parametrize("where", [run_in_place, run_in_thread])
def test_law_15_a_pull_that_waits_in_a_closed_loop_is_not_waited_for(
    where: Callable[[Callable[[], Any]], Any],
) -> None:
    async def wait(_: int) -> int:
        value: int = await asyncio.get_running_loop().create_future()
        return value

    stream = SourceIterObj(range(3)).map(wait)
    loop = asyncio.new_event_loop()
    # The task stays pending, which the loop says when it is dropped.
    loop.set_exception_handler(lambda *_: None)
    pulls: list[asyncio.Future[int]] = []

    async def begin() -> None:
        pulls.append(asyncio.ensure_future(anext(stream)))
        await turns(3)

    def refuse() -> None:
        with pytest.raises(WrongLoopError):
            run(lambda: anext(stream))

    loop.run_until_complete(begin())
    loop.close()
    where(refuse)
