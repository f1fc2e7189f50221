"""`tee`: several streams that each yield every item, law by law."""

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
from tests.support import Heart, turns, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def outcomes(stream: Any) -> list[Any]:
    """All items and errors of a stream."""
    got: list[Any] = []
    while True:
        try:
            got.append(await anext(stream))
        except StopAsyncIteration:
            return got
        except Exception as error:
            got.append(error)


class Slow:
    """A callable that can be cancelled, and says what it did."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.called: list[int] = []
        self.ended: list[int] = []

    async def __call__(self, n: int) -> int:
        self.called.append(n)
        try:
            await turns(self.count)
        finally:
            # Cleaning up takes turns of the loop too.
            await turns(1)
            self.ended.append(n)
        return n


class Own(PullObj1To1Link[int, int]):
    """An operator that is not fused."""

    async def pull_impl(self) -> AsyncIterator[int]:
        async for item in self.source:
            yield item


@pytest.mark.parametrize("seed", range(20))
async def test_each_branch_sees_every_item_in_order(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    count, n, maxsize = rng.randrange(60), rng.randrange(1, 5), rng.randrange(1, 9)

    async def slowly(item: int) -> int:
        await turns(rng.randrange(3))
        return item

    async def read(branch: PullObj[int]) -> list[int]:
        got: list[int] = []
        async for item in branch:
            got.append(item)
            await turns(rng.randrange(4))
        return got

    source = SourceIterObj(range(count)).map(slowly)
    branches = source.tee(n, maxsize=maxsize)
    made = [branch.map(lambda x: x).filter(lambda _: True) for branch in branches]
    assert await asyncio.gather(*map(read, made)) == [list(range(count))] * n
    for branch in branches:
        await branch.aclose()


async def test_law_1_the_source_is_pulled_when_a_branch_needs_what_nobody_has() -> None:
    drawn: list[int] = []
    first, second = SourceIterObj(range(5)).tap(drawn.append).tee(2)
    await turns(3)
    assert drawn == []
    assert [await anext(first), await anext(first)] == [0, 1]
    assert drawn == [0, 1]
    assert [await anext(second) for _ in range(3)] == [0, 1, 2]
    assert drawn == [0, 1, 2]
    assert await anext(first) == 2
    assert drawn == [0, 1, 2]


async def test_two_branches_that_wait_for_one_item_get_it_by_one_pull() -> None:
    slow = Slow()
    branches = SourceIterObj(range(3)).map(slow).tee(3)
    for n in range(3):
        assert await asyncio.gather(*map(anext, branches)) == [n] * 3
    assert slow.called == [0, 1, 2]


@pytest.mark.virtual
async def test_law_2_when_the_pulling_branch_is_cancelled_another_takes_over() -> None:
    slow = Slow(3)
    first, second = SourceIterObj(range(2)).map(slow).tee(2)
    pulling = asyncio.create_task(anext(first))
    await until(lambda: slow.called)
    waiting = asyncio.create_task(anext(second))
    await turns(1)
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
async def test_law_2_when_the_pulling_branch_closes_another_takes_over(
    is_own: bool, is_mapped: bool
) -> None:
    slow = Slow(3)
    shared, second = SourceIterObj(range(3)).map(slow).tee(2)
    first: PullObj[int] = Own(shared) if is_own else shared
    first = first.map(lambda n: n) if is_mapped else first
    pulling = asyncio.create_task(anext(first))
    await until(lambda: slow.called)
    waiting = asyncio.create_task(anext(second))
    await turns(1)
    await first.aclose()
    with pytest.raises(ClosedError):
        await pulling
    assert await waiting == 0
    assert slow.called == [0, 0]
    assert await second.collect() == [1, 2]


@pytest.mark.virtual
async def test_law_2_a_branch_that_closes_leaves_what_its_source_waits_for() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    first, second = buffer.source.map(lambda n: n).tee(2)
    pulling = asyncio.create_task(anext(first))
    await turns(2)
    await first.aclose()
    with pytest.raises(ClosedError):
        await pulling
    await buffer.sink.next(1)
    assert await anext(second) == 1
    await second.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_law_2_cancelled_anywhere_nothing_is_lost_or_repeated(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    cancelled = 0

    async def slowly(n: int) -> int:
        await turns(rng.randrange(3))
        return n

    async def read(branch: PullObj[int]) -> list[int]:
        nonlocal cancelled
        got: list[int] = []
        while True:
            pull = asyncio.ensure_future(anext(branch))
            await turns(rng.randrange(8))
            if rng.randrange(3):
                pull.cancel()
            try:
                got.append(await pull)
            except asyncio.CancelledError:
                cancelled += 1
            except StopAsyncIteration:
                return got

    branches = (
        SourceIterObj(range(30)).map(slowly).tee(3, maxsize=rng.randrange(1, 5), overflow="block")
    )
    read_all = await asyncio.gather(*(read(branch.map(slowly)) for branch in branches))
    assert read_all == [list(range(30))] * 3
    assert cancelled > 3


async def test_law_2_a_generator_that_a_cancelled_branch_ended_says_so_to_all() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()

    first, second = SourceIterObj(generator()).tee(2)
    assert await anext(first) == 0
    pull = asyncio.ensure_future(anext(first))
    await turns(2)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    item, error = await outcomes(second)
    assert item == 0
    assert isinstance(error, SourceCancelledError)
    assert await outcomes(first) == [error]


async def test_law_3_errors_reach_every_branch_once_and_in_their_places() -> None:
    def fails(n: int) -> int:
        if n % 2:
            raise KeyError(n)
        return n

    branches = SourceIterObj(range(5)).map(fails).tee(2)
    got = [await outcomes(branch) for branch in branches]
    assert [[repr(each) for each in one] for one in got] == [
        ["0", "KeyError(1)", "2", "KeyError(3)", "4"]
    ] * 2
    assert got[0][1] is got[1][1]


async def test_law_3_a_cancelled_error_of_its_own_is_an_error_of_its_item() -> None:
    def fails(n: int) -> int:
        if n == 0:
            raise asyncio.CancelledError
        return n

    for branch in SourceIterObj(range(2)).map(fails).tee(2):
        with pytest.raises(asyncio.CancelledError):
            await anext(branch)
        assert await branch.collect() == [1]


async def test_law_4_the_source_is_closed_with_the_last_branch() -> None:
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
async def test_law_4_closing_a_branch_that_waits() -> None:
    for is_ahead in (False, True):
        source = SourceIterObj(range(5)).map(Slow(5))
        first, second = source.tee(2, maxsize=1, overflow="block")
        pulling = asyncio.create_task(anext(second))
        await turns(1)
        if is_ahead:
            await pulling
        waiting = asyncio.create_task(anext(second if is_ahead else first))
        await turns(2)
        await (second if is_ahead else first).aclose()
        with pytest.raises(ClosedError):
            await waiting
        await pulling
        await first.aclose()
        await second.aclose()


async def test_law_5_a_branch_that_was_dropped_holds_nobody_back() -> None:
    first, second, third = SourceIterObj(range(20)).tee(3, maxsize=2, overflow="block")
    line = second.map(lambda n: n)
    assert await anext(line) == 0
    assert [await anext(first), await anext(first)] == [0, 1]
    blocked = asyncio.create_task(first.collect())
    await turns(3)
    assert not blocked.done()
    del second, line
    gc.collect()
    await turns(3)
    assert not blocked.done()
    del third
    gc.collect()
    assert await blocked == list(range(2, 20))


@pytest.mark.virtual
async def test_law_6_a_branch_waits_for_the_slowest() -> None:
    drawn: list[int] = []
    first, second, third = (
        SourceIterObj(range(9)).tap(drawn.append).tee(3, maxsize=3, overflow="block")
    )
    assert [await anext(first) for _ in range(3)] == [0, 1, 2]
    ahead = asyncio.create_task(anext(first))
    await turns(3)
    assert await anext(second) == 0
    await turns(3)
    assert not ahead.done()
    assert drawn == [0, 1, 2]
    assert await anext(third) == 0
    assert await ahead == 3
    ahead = asyncio.create_task(anext(first))
    await turns(3)
    await second.aclose()
    await turns(3)
    assert not ahead.done()
    await third.aclose()
    assert await ahead == 4
    assert await first.collect() == [5, 6, 7, 8]


async def test_law_6_a_branch_that_may_not_wait_raises_and_loses_nothing() -> None:
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


async def test_law_6_a_full_branch_that_nothing_reads_raises() -> None:
    first, second = SourceIterObj(range(5)).tee(2, maxsize=2)
    with pytest.raises(
        WouldBlock, match=r"2 items ahead .* no other task reads .*overflow=\"block\""
    ):
        await first.collect()
    assert await anext(second) == 0
    # The task that reads both waits for itself.
    with pytest.raises(WouldBlock):
        await first.collect()
    both = list(await asyncio.gather(first.collect(), second.collect()))
    assert both == [[0, 1, 2, 3, 4], [1, 2, 3, 4]]


async def test_law_6_branches_that_are_read_at_the_same_time_wait() -> None:
    branches = SourceIterObj(range(100)).tee(3, maxsize=1)
    assert (
        await asyncio.gather(*(branch.collect() for branch in branches)) == [list(range(100))] * 3
    )


async def test_law_6_a_branch_does_not_wait_for_a_reader_that_ended() -> None:
    first, second = SourceIterObj(range(9)).tee(2, maxsize=2)
    go = asyncio.Event()

    async def read_one() -> int:
        item = await anext(second)
        await go.wait()
        return item

    reader = asyncio.create_task(read_one())
    ahead = asyncio.create_task(first.collect())
    await turns(5)
    assert not ahead.done()
    go.set()
    with pytest.raises(WouldBlock, match="no other task reads"):
        await ahead
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
async def test_law_12_a_branch_pulled_by_the_source_itself_is_refused() -> None:
    branches: list[PullObj[int]] = []

    async def pulls(n: int) -> int:
        await turns(1)
        return await anext(branches[1]) if n == 0 else n

    branches += SourceIterObj(range(2)).map(pulls).tee(2)
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


async def test_law_16_a_branch_with_a_backlog_lets_the_loop_turn() -> None:
    count = 20_000
    first, second = SourceIterObj(range(count)).tee(2, maxsize=count + 1)
    async with Heart() as heart:
        for branch in (first, second):
            heart.beats = 0
            assert await branch.count() == count
            assert heart.beats >= count // 4096
