"""Methods that consume a stream: `collect`, `count`, `first`, `for_each`, `reduce`."""

from __future__ import annotations

import asyncio
import gc
import operator
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullObj,
    PushPullBufferObj,
    SourceBufferObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
)
from tests.support import wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine


async def slow_identity(n: int) -> int:
    await asyncio.sleep(0)
    return n


async def cancel_after(running: Coroutine[Any, Any, Any], count: int) -> bool:
    """Cancel a coroutine after some steps. Return whether that was before its end."""
    task = asyncio.ensure_future(running)
    # An eager task takes its first step at once.
    is_eager = asyncio.get_running_loop().get_task_factory() is not None
    await yield_to_loop(count - is_eager)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("is_async", [False, True])
async def test_terminals_match_plain_python(is_async: bool) -> None:
    def stream() -> PullObj[int]:
        numbers = SourceIterObj(range(10))
        same = numbers.map(slow_identity) if is_async else numbers.map(int)
        return same.filter(lambda n: n != 3)

    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    expected = [n for n in range(10) if n != 3]
    assert await stream().collect() == expected
    assert await stream().count() == len(expected)
    assert await stream().first() == 0
    received: list[int] = []
    await stream().for_each(received.append)
    assert received == expected
    assert await stream().reduce(add if is_async else operator.add) == sum(expected)
    assert await stream().reduce(operator.add, 100) == 100 + sum(expected)


async def test_terminals_of_an_empty_stream() -> None:
    assert await SourceBufferObj[int]().collect() == []
    assert await SourceBufferObj[int]().count() == 0
    assert await SourceBufferObj[int]().first(None) is None
    with pytest.raises(LookupError, match="give a default"):
        await SourceBufferObj[int]().first()
    await SourceBufferObj[int]().for_each(print)
    assert await SourceBufferObj[int]().reduce(wrong(operator.add), None) is None
    with pytest.raises(TypeError, match="empty stream without an initial value"):
        await SourceBufferObj[int]().reduce(operator.add)


async def test_law_11_collect_continues_after_first() -> None:
    stream = SourceIterObj(range(6)).map(lambda n: n * n)
    assert await stream.first() == 0
    assert await anext(stream) == 1
    assert await stream.collect() == [4, 9, 16, 25]
    assert await stream.collect() == []
    assert await stream.first("none") == "none"
    stream.restart()
    assert await stream.collect() == [0, 1, 4, 9, 16, 25]


async def test_collect_of_a_buffer_waits_for_its_end() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    task = asyncio.ensure_future(buffer.source.collect())
    for n in range(5):
        await buffer.sink.next(n)
        await yield_to_loop(2)
    assert not task.done()
    await buffer.sink.return_()
    assert await task == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stop", range(1, 25))
@pytest.mark.parametrize("stages", [0, 1, 3])
async def test_law_2_cancelled_collect_returns_its_items(stop: int, stages: int) -> None:
    calls: list[int] = []

    async def call(n: int) -> int:
        calls.append(n)
        return await slow_identity(n)

    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    stream: PullObj[int] = buffer.source
    for _ in range(stages):
        stream = stream.map(call)
    for n in range(7):
        buffer.sink.next_nowait(n)
    assert await cancel_after(stream.collect(), stop)
    await buffer.sink.return_()
    assert await anext(stream) == 0
    assert await stream.collect() == [1, 2, 3, 4, 5, 6]
    assert len(calls) in (7 * stages, 7 * stages + 1)


@pytest.mark.parametrize("stop", range(1, 12))
async def test_law_2_returned_items_pass_later_stages(stop: int) -> None:
    source = SourceIterObj(range(5))
    middle = source.map(slow_identity)
    assert await cancel_after(middle.collect(), min(stop, 5))
    later = middle.map(lambda n: n * 10)
    assert await cancel_after(later.collect(), 1)
    assert await later.take(2).collect() == [0, 10]
    assert await later.collect() == [20, 30, 40]


async def test_law_2_failed_collect_returns_items_to_source() -> None:
    class Stumbling:
        """An iterator that raises once, in the middle."""

        def __init__(self) -> None:
            self.at = 0

        def __iter__(self) -> Stumbling:
            return self

        def __next__(self) -> int:
            self.at += 1
            if self.at == 3:
                raise ValueError("three")
            if self.at > 5:
                raise StopIteration
            return self.at

    source = SourceIterObj(Stumbling())
    with pytest.raises(ValueError, match="three"):
        await source.collect()
    assert await source.map(lambda n: n * 10).collect() == [10, 20, 40, 50]


async def test_law_3_error_costs_one_item_of_a_collect() -> None:
    stream = SourceIterObj([1, 0, 2]).map(lambda n: 6 / n)
    with pytest.raises(ZeroDivisionError) as caught:
        await stream.collect()
    assert caught.value.__notes__ == ["raised by transform of PullMapObj: item 0"]
    assert await stream.collect() == [6.0, 3.0]


async def test_law_3_errors_name_the_terminal() -> None:
    stream = SourceIterObj([1, 0, 2, 4])
    received: list[float] = []
    with pytest.raises(ZeroDivisionError) as caught:
        await stream.for_each(lambda n: received.append(8 / n))
    assert caught.value.__notes__ == ["raised by function of for_each(): item 0"]
    await stream.for_each(received.append)
    assert received == [8.0, 2, 4]
    with pytest.raises(TypeError) as caught_too:
        await SourceIterObj([1, "a"]).reduce(wrong(operator.add))
    assert caught_too.value.__notes__ == ["raised by reducer of reduce(): item 'a'"]


@pytest.mark.parametrize("stop", range(1, 12))
async def test_law_2_item_of_a_cancelled_call_is_returned(stop: int) -> None:
    done: list[int] = []

    async def work(n: int) -> None:
        await slow_identity(n)
        done.append(n)

    stream = SourceIterObj(range(12)).skip(2)
    assert await cancel_after(stream.for_each(work), min(stop, 9))
    await stream.for_each(done.append)
    assert done == list(range(2, 12))


async def test_law_2_last_item_is_returned_too() -> None:
    stream = SourceIterObj(range(5)).take(1)
    assert await cancel_after(stream.for_each(slow_identity), 1)
    assert await stream.collect() == [0]


async def test_law_2_dropped_collect_returns_its_items() -> None:
    stream = SourceIterObj(range(3)).map(slow_identity)
    collecting = stream.collect()
    collecting.send(None)
    collecting.send(None)
    collecting.close()
    assert await stream.collect() == [0, 1, 2]
    never = stream.collect()
    never.close()


async def test_law_2_collect_of_a_cancelled_generator_raises() -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(5):
            await asyncio.sleep(0)
            yield n

    stream = SourceIterObj(numbers())
    assert await cancel_after(stream.collect(), 3)
    assert await anext(stream) == 0
    with pytest.raises(SourceCancelledError):
        while True:
            await anext(stream)


@pytest.mark.parametrize(
    "terminal", [PullObj.collect, PullObj.count, lambda s: s.for_each(print)], ids="ace"
)
async def test_law_4_closing_ends_a_terminal(
    terminal: Callable[[PullObj[int]], Coroutine[Any, Any, Any]],
) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    async with buffer.source.map(lambda n: n).filter(lambda n: n >= 0) as stream:
        task = asyncio.ensure_future(terminal(stream))
        await yield_to_loop(2)
    with pytest.raises(ClosedError):
        await task


async def test_law_12_collect_waits_for_an_earlier_pull() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    stream = buffer.source.map(slow_identity)
    before = asyncio.ensure_future(stream.next())
    await yield_to_loop(2)
    collecting = asyncio.ensure_future(stream.collect())
    await yield_to_loop(2)
    for n in range(3):
        buffer.sink.next_nowait(n)
    await buffer.sink.return_()
    assert (await before).value == 0
    assert await collecting == [1, 2]


async def test_terminals_use_overridden_methods() -> None:
    class Twice(SourceObj[int]):
        def __init__(self) -> None:
            super().__init__()
            self.n = 0

        async def __anext__(self) -> int:
            await asyncio.sleep(0)
            self.n += 1
            if self.n > 4:
                raise StopAsyncIteration
            return self.n * 2

    class Odd(SourceObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            for n in (1, 3, 5):
                yield n

    assert await Twice().collect() == [2, 4, 6, 8]
    assert await Twice().count() == 4
    assert await Twice().reduce(operator.add) == 20
    assert await Odd().collect() == [1, 3, 5]
    assert await Odd().map(lambda n: n + 1).count() == 3


async def test_law_16_collect_yields_to_the_loop() -> None:
    iterations = 0

    async def beat() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    beating = asyncio.ensure_future(beat())
    assert len(await SourceIterObj(range(100_000)).collect()) == 100_000
    assert iterations >= 20
    beating.cancel()
    await asyncio.wait([beating])


async def test_law_17_collect_of_ten_thousand_stages() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(10_000):
        stream = stream.map(lambda n: n + 1)
    assert await stream.collect() == [10_000, 10_001, 10_002]


async def test_law_14_bad_input_is_named() -> None:
    stream = SourceIterObj([1])
    with pytest.raises(TypeError, match=r"function must be callable, got 3 \(int\)"):
        await stream.for_each(wrong(3))
    with pytest.raises(TypeError, match=r"reducer must be callable, got None"):
        await stream.reduce(wrong(None))
    assert await stream.collect() == [1]


async def test_terminal_in_a_reference_cycle_is_collected() -> None:
    class Item:
        pass

    async def forever(item: Item) -> Item:
        await asyncio.get_running_loop().create_future()
        return item

    item = Item()
    dropped = weakref.ref(item)
    stream = SourceIterObj([item]).map(forever)
    collecting = stream.collect()
    collecting.send(None)
    wrong(item).cycle = collecting
    del item, stream, collecting
    gc.collect()
    assert dropped() is None
