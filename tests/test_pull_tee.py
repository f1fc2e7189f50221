"""`tee`: several streams that each yield every item, by law."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullObj,
    PullObj1To1Link,
    PushPullBufferObj,
    SourceCancelledError,
    SourceIterObj,
    WouldBlock,
    WrongLoopError,
)
from tests.support import Heart, until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def outcomes(stream: Any) -> list[Any]:
    """Return all items and errors of a stream."""
    received: list[Any] = []
    while True:
        try:
            received.append(await anext(stream))
        except StopAsyncIteration:
            return received
        except Exception as error:
            received.append(error)


class Slow:
    """A slow callable that records its calls and their ends."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.called: list[int] = []
        self.ended: list[int] = []

    async def __call__(self, n: int) -> int:
        self.called.append(n)
        try:
            await yield_to_loop(self.count)
        finally:
            # Cleaning up takes an iteration too.
            await yield_to_loop(1)
            self.ended.append(n)
        return n


class Own(PullObj1To1Link[int, int]):
    """An operator that is not fused."""

    async def pull_impl(self) -> AsyncIterator[int]:
        async for item in self.source:
            yield item


@pytest.mark.parametrize("seed", range(20))
async def test_each_branch_yields_every_item_in_order(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    count, n, maxsize = rng.randrange(60), rng.randrange(1, 5), rng.randrange(1, 9)

    async def slow_identity(item: int) -> int:
        await yield_to_loop(rng.randrange(3))
        return item

    async def read(branch: PullObj[int]) -> list[int]:
        received: list[int] = []
        async for item in branch:
            received.append(item)
            await yield_to_loop(rng.randrange(4))
        return received

    source = SourceIterObj(range(count)).map(slow_identity)
    branches = source.tee(n, maxsize=maxsize)
    streams = [branch.map(lambda x: x).filter(lambda _: True) for branch in branches]
    assert await asyncio.gather(*map(read, streams)) == [list(range(count))] * n
    for branch in branches:
        await branch.aclose()


async def test_law_1_source_is_pulled_once_for_all_branches() -> None:
    pulled: list[int] = []
    first, second = SourceIterObj(range(5)).tap(pulled.append).tee(2)
    await yield_to_loop(3)
    assert pulled == []
    assert [await anext(first), await anext(first)] == [0, 1]
    assert pulled == [0, 1]
    assert [await anext(second) for _ in range(3)] == [0, 1, 2]
    assert pulled == [0, 1, 2]
    assert await anext(first) == 2
    assert pulled == [0, 1, 2]


async def test_waiting_branches_share_one_pull() -> None:
    slow = Slow()
    branches = SourceIterObj(range(3)).map(slow).tee(3)
    for n in range(3):
        assert await asyncio.gather(*map(anext, branches)) == [n] * 3
    assert slow.called == [0, 1, 2]


@pytest.mark.virtual
async def test_law_2_other_branch_continues_a_cancelled_pull() -> None:
    slow = Slow(3)
    first, second = SourceIterObj(range(2)).map(slow).tee(2)
    pulling = asyncio.create_task(anext(first))
    await until(lambda: slow.called)
    waiting = asyncio.create_task(anext(second))
    await yield_to_loop(1)
    pulling.cancel()
    assert await waiting == 0
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert slow.called == [0, 0]
    assert await first.collect() == [0, 1]
    assert await second.collect() == [1]


@pytest.mark.virtual
@pytest.mark.parametrize("is_own", [False, True])
@pytest.mark.parametrize("is_mapped", [False, True])
async def test_law_2_other_branch_continues_a_closed_pull(is_own: bool, is_mapped: bool) -> None:
    slow = Slow(3)
    shared, second = SourceIterObj(range(3)).map(slow).tee(2)
    first: PullObj[int] = Own(shared) if is_own else shared
    first = first.map(lambda n: n) if is_mapped else first
    pulling = asyncio.create_task(anext(first))
    await until(lambda: slow.called)
    waiting = asyncio.create_task(anext(second))
    await yield_to_loop(1)
    await first.aclose()
    with pytest.raises(ClosedError):
        await pulling
    assert await waiting == 0
    assert slow.called == [0, 0]
    assert await second.collect() == [1, 2]


@pytest.mark.virtual
async def test_law_2_closing_a_branch_loses_no_item() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    first, second = buffer.source.map(lambda n: n).tee(2)
    pulling = asyncio.create_task(anext(first))
    await yield_to_loop(2)
    await first.aclose()
    with pytest.raises(ClosedError):
        await pulling
    await buffer.sink.next(1)
    assert await anext(second) == 1
    await second.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_law_2_cancelled_anywhere_keeps_each_item_once(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    cancelled = 0

    async def slow_identity(n: int) -> int:
        await yield_to_loop(rng.randrange(3))
        return n

    async def read(branch: PullObj[int]) -> list[int]:
        nonlocal cancelled
        received: list[int] = []
        while True:
            pull = asyncio.ensure_future(anext(branch))
            await yield_to_loop(rng.randrange(8))
            if rng.randrange(3):
                pull.cancel()
            try:
                received.append(await pull)
            except asyncio.CancelledError:
                cancelled += 1
            except StopAsyncIteration:
                return received

    branches = (
        SourceIterObj(range(30))
        .map(slow_identity)
        .tee(3, maxsize=rng.randrange(1, 5), overflow="block")
    )
    read_all = await asyncio.gather(*(read(branch.map(slow_identity)) for branch in branches))
    assert read_all == [list(range(30))] * 3
    assert cancelled > 3


async def test_law_2_all_branches_get_source_cancelled_error() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()

    first, second = SourceIterObj(generator()).tee(2)
    assert await anext(first) == 0
    pull = asyncio.ensure_future(anext(first))
    await yield_to_loop(2)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    item, error = await outcomes(second)
    assert item == 0
    assert isinstance(error, SourceCancelledError)
    assert await outcomes(first) == [error]


async def test_law_3_every_branch_raises_errors_in_order() -> None:
    def fails(n: int) -> int:
        if n % 2:
            raise KeyError(n)
        return n

    branches = SourceIterObj(range(5)).map(fails).tee(2)
    received = [await outcomes(branch) for branch in branches]
    assert [[repr(each) for each in one] for one in received] == [
        ["0", "KeyError(1)", "2", "KeyError(3)", "4"]
    ] * 2
    assert received[0][1] is received[1][1]


async def test_law_3_raised_cancelled_error_costs_one_item() -> None:
    def fails(n: int) -> int:
        if n == 0:
            raise asyncio.CancelledError
        return n

    for branch in SourceIterObj(range(2)).map(fails).tee(2):
        with pytest.raises(asyncio.CancelledError):
            await anext(branch)
        assert await branch.collect() == [1]


async def test_law_4_source_is_closed_with_the_last_branch() -> None:
    closed: list[str] = []

    async def generator() -> AsyncIterator[int]:
        try:
            for n in range(5):
                yield n
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    source = SourceIterObj(generator())
    first, second = source.tee(2)
    assert await anext(first) == 0
    await first.aclose()
    assert await anext(first, "end") == "end"
    assert closed == []
    async with second.map(lambda n: n) as last:
        assert await anext(last) == 0
    assert closed == ["closed"]
    await first.aclose()
    assert await source.collect() == []


@pytest.mark.virtual
async def test_law_4_closing_a_waiting_branch() -> None:
    for is_ahead in (False, True):
        source = SourceIterObj(range(5)).map(Slow(5))
        first, second = source.tee(2, maxsize=1, overflow="block")
        pulling = asyncio.create_task(anext(second))
        await yield_to_loop(1)
        if is_ahead:
            await pulling
        waiting = asyncio.create_task(anext(second if is_ahead else first))
        await yield_to_loop(2)
        await (second if is_ahead else first).aclose()
        with pytest.raises(ClosedError):
            await waiting
        await pulling
        await first.aclose()
        await second.aclose()


async def test_law_5_dropped_branch_blocks_no_other() -> None:
    first, second, third = SourceIterObj(range(20)).tee(3, maxsize=2, overflow="block")
    pipeline = second.map(lambda n: n)
    assert await anext(pipeline) == 0
    assert [await anext(first), await anext(first)] == [0, 1]
    blocked = asyncio.create_task(first.collect())
    await yield_to_loop(3)
    assert not blocked.done()
    del second, pipeline
    gc.collect()
    await yield_to_loop(3)
    assert not blocked.done()
    del third
    gc.collect()
    assert await blocked == list(range(2, 20))


@pytest.mark.virtual
async def test_law_6_branch_waits_for_the_slowest() -> None:
    pulled: list[int] = []
    first, second, third = (
        SourceIterObj(range(9)).tap(pulled.append).tee(3, maxsize=3, overflow="block")
    )
    assert [await anext(first) for _ in range(3)] == [0, 1, 2]
    waiting_pull = asyncio.create_task(anext(first))
    await yield_to_loop(3)
    assert await anext(second) == 0
    await yield_to_loop(3)
    assert not waiting_pull.done()
    assert pulled == [0, 1, 2]
    assert await anext(third) == 0
    assert await waiting_pull == 3
    waiting_pull = asyncio.create_task(anext(first))
    await yield_to_loop(3)
    await second.aclose()
    await yield_to_loop(3)
    assert not waiting_pull.done()
    await third.aclose()
    assert await waiting_pull == 4
    assert await first.collect() == [5, 6, 7, 8]


async def test_law_6_full_branch_raises_with_overflow_error() -> None:
    first, second = SourceIterObj(range(4)).tee(2, maxsize=2, overflow="error")
    assert [await anext(first), await anext(first)] == [0, 1]
    for _ in range(2):
        with pytest.raises(WouldBlock, match="2 items ahead of the slowest"):
            await anext(first)
    assert await anext(second) == 0
    assert await anext(first) == 2
    with pytest.raises(WouldBlock):
        await anext(first)
    await second.aclose()
    assert await first.collect() == [3]


async def test_law_6_full_branch_without_a_reader_raises() -> None:
    first, second = SourceIterObj(range(5)).tee(2, maxsize=2)
    with pytest.raises(
        WouldBlock, match=r"2 items ahead .* no other task reads .*overflow=\"block\""
    ):
        await first.collect()
    assert await anext(second) == 0
    # A task that reads both branches would wait for itself.
    with pytest.raises(WouldBlock):
        await first.collect()
    both = list(await asyncio.gather(first.collect(), second.collect()))
    assert both == [[0, 1, 2, 3, 4], [1, 2, 3, 4]]


async def test_law_6_concurrently_read_branches_wait() -> None:
    branches = SourceIterObj(range(100)).tee(3, maxsize=1)
    assert (
        await asyncio.gather(*(branch.collect() for branch in branches)) == [list(range(100))] * 3
    )


async def test_law_6_branch_does_not_wait_for_an_ended_reader() -> None:
    first, second = SourceIterObj(range(9)).tee(2, maxsize=2)
    go = asyncio.Event()

    async def read_one() -> int:
        item = await anext(second)
        await go.wait()
        return item

    reader = asyncio.create_task(read_one())
    waiting_pull = asyncio.create_task(first.collect())
    await yield_to_loop(5)
    assert not waiting_pull.done()
    go.set()
    with pytest.raises(WouldBlock, match="no other task reads"):
        await waiting_pull
    assert await reader == 0
    await second.aclose()
    assert await first.collect() == list(range(9))


async def test_law_9_branches_belong_to_one_loop() -> None:
    first, second = SourceIterObj(range(4)).tee(2)
    assert await anext(first) == 0

    async def elsewhere() -> None:
        assert await anext(second) == 0
        with pytest.raises(WrongLoopError):
            await anext(second)

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert await first.collect() == [1, 2, 3]


async def test_law_11_after_the_end_and_no_restart() -> None:
    source = SourceIterObj(range(2))
    branches = source.tee(2)
    for branch in branches:
        assert await branch.collect() == [0, 1]
        assert await anext(branch, "end") == "end"
        for stream in (branch, branch.map(lambda n: n)):
            with pytest.raises(RuntimeError, match="cannot restart"):
                stream.restart()
        await branch.aclose()
    source.restart()
    (again,) = source.tee(1)
    assert await again.collect() == [0, 1]


@pytest.mark.virtual
async def test_law_12_pull_of_a_branch_by_source_is_refused() -> None:
    branches: list[PullObj[int]] = []

    async def pull_branch(n: int) -> int:
        await yield_to_loop(1)
        return await anext(branches[1]) if n == 0 else n

    branches += SourceIterObj(range(2)).map(pull_branch).tee(2)
    with pytest.raises(RuntimeError, match="its own callable cannot pull it"):
        await anext(branches[0])
    assert await anext(branches[0]) == 1


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda s: s.tee(0), ValueError, r"n must be at least 1, got 0 \(int\)"),
        (lambda s: s.tee("2"), TypeError, r"n must be an integer, got '2' \(str\)"),
        (lambda s: s.tee(True), TypeError, "n must be an integer, got True"),
        (lambda s: s.tee(2, maxsize=0), ValueError, "maxsize must be at least 1, got 0"),
        (lambda s: s.tee(2, maxsize=None), TypeError, "maxsize must be an integer, got None"),
        (lambda s: s.tee(2, overflow="drop"), ValueError, "overflow must be .*, got 'drop'"),
    ],
)
def test_law_14_bad_input_is_refused(
    make: Callable[[Any], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make(SourceIterObj([1]))


async def test_law_16_branch_with_a_backlog_yields() -> None:
    count = 20_000
    first, second = SourceIterObj(range(count)).tee(2, maxsize=count + 1)
    async with Heart() as heart:
        for branch in (first, second):
            heart.beats = 0
            assert await branch.count() == count
            assert heart.beats >= count // 4096
