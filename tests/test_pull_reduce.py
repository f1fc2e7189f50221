"""`reduce` and `dedupe` of a pulled stream, by law."""

from __future__ import annotations

import asyncio
import gc
import itertools
import operator
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullDedupeObj, PullObj, PullReduceObj, SourceIterObj
from tests.support import collect, until, wrong

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("is_async", [False, True])
async def test_reduce_yields_each_running_result(is_async: bool) -> None:
    async def add(left: int, right: int) -> int:
        await asyncio.sleep(0)
        return left + right

    reducer: Callable[[Any, int], Any] = add if is_async else operator.add
    items = [3, 1, 4, 1, 5]
    assert await collect(PullReduceObj(items, reducer)) == list(itertools.accumulate(items))
    begun = SourceIterObj(items).accumulate(reducer, 100)
    assert await collect(begun) == list(itertools.accumulate(items, initial=100))[1:]
    begun.restart()
    assert await collect(begun) == list(itertools.accumulate(items, initial=100))[1:]
    assert await collect(PullReduceObj([], reducer, 1)) == []


async def test_reduce_law_2_cancelled_reducer_is_called_again() -> None:
    calls: list[tuple[int, int]] = []
    gate = asyncio.Event()

    async def add(left: int, right: int) -> int:
        calls.append((left, right))
        await gate.wait()
        return left + right

    stream = PullReduceObj([1, 2, 3], add, 10)
    task = asyncio.ensure_future(anext(stream))
    await until(lambda: bool(calls))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await collect(stream) == [11, 13, 16]
    assert calls == [(10, 1), (10, 1), (11, 2), (13, 3)]


async def test_reduce_law_3_error_costs_one_item_and_no_state() -> None:
    def divide(left: int, right: int) -> int:
        return left // right

    stream = PullReduceObj([2, 0, 5], divide, 100)
    assert await anext(stream) == 50
    with pytest.raises(ZeroDivisionError) as caught:
        await anext(stream)
    assert caught.value.__notes__ == ["raised by reducer of PullReduceObj: item 0"]
    assert await collect(stream) == [10]


async def test_reduce_law_13_accumulator_and_reducer_are_live() -> None:
    stream = PullReduceObj(range(1, 6), operator.add)
    assert (stream.accumulator, await anext(stream), await anext(stream)) == (None, 1, 3)
    stream.accumulator = 100
    assert await anext(stream) == 103
    stream.reducer = operator.mul
    assert await anext(stream) == 412
    with pytest.raises(TypeError, match=r"reducer must be callable, got 3 \(int\)"):
        PullReduceObj([1], wrong(3))


async def test_reduce_law_17_ten_thousand_stages() -> None:
    stream: PullObj[int] = SourceIterObj([1, 2])
    for _ in range(10_000):
        stream = stream.accumulate(operator.add)
    assert await collect(stream) == [1, 10_002]


@pytest.mark.parametrize("is_async", [False, True])
async def test_dedupe_yields_each_item_once(is_async: bool) -> None:
    async def parity(n: int) -> int:
        await asyncio.sleep(0)
        return n % 3

    key: Callable[[int], Any] = parity if is_async else lambda n: n % 3
    items = [3, 1, 3, 4, 1, 5, 9, 2]
    assert await collect(PullDedupeObj(items)) == list(dict.fromkeys(items))
    assert await collect(PullDedupeObj(items, key=key)) == [3, 1, 5]
    repeated = SourceIterObj([1, 1, 2, 2, 1]).dedupe(consecutive=True)
    assert await collect(repeated) == [1, 2, 1]
    repeated.restart()
    assert await collect(repeated) == [1, 2, 1]


async def test_dedupe_law_6_forgets_the_least_recent_key() -> None:
    # The key 1 is seen again, so 2 is the oldest one when 3 arrives.
    assert await collect(PullDedupeObj([1, 2, 1, 3, 1, 2], maxsize=2)) == [1, 2, 3, 2]


async def test_dedupe_law_3_unhashable_key_costs_its_item() -> None:
    stream = PullDedupeObj(wrong([1, [2], 3]))
    assert await anext(stream) == 1
    with pytest.raises(TypeError, match="unhashable"):
        await anext(stream)
    assert await collect(stream) == [3]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"key": 3}, TypeError, r"key must be callable, got 3 \(int\)"),
        ({"maxsize": 0}, ValueError, "maxsize must be at least 1"),
        ({"maxsize": 2, "consecutive": True}, ValueError, "no meaning with consecutive"),
    ],
)
def test_dedupe_law_14_bad_input_is_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        PullDedupeObj([1], **options)


async def test_dedupe_law_5_cycle_through_keys_is_collected() -> None:
    class Item:
        stream: Any

    item = Item()
    item.stream = PullDedupeObj([item, item])
    assert await anext(item.stream) is item
    stream_ref = weakref.ref(item)
    del item
    gc.collect()
    assert stream_ref() is None
