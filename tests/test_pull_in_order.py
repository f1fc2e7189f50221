"""`in_order`, compared with `sorted` and by law."""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING, Any

import pytest

from headrace import OrderError, PullInOrderObj, SourceIterObj
from tests.support import Heart, collect, collect_with_cancellations, generate, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable


def shuffled(rng: random.Random, count: int, reach: int) -> list[int]:
    """Return shuffled numbers, none of them more than `reach` positions early."""
    return sorted(range(count), key=lambda n: n + rng.uniform(0, reach))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("is_async", [False, True])
async def test_in_order_matches_sorted(seed: int, is_async: bool) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    start, reach = rng.randrange(-20, 20), rng.randrange(1, 12)
    items = [n + start for n in shuffled(rng, rng.randrange(60), reach)]

    async def slow_callable(n: int) -> int:
        await yield_to_loop(n % 2)
        return n

    index: Callable[[int], Any] = slow_callable if is_async else lambda n: n
    stream = SourceIterObj(items).map(lambda n: n).in_order(index, start=start, maxsize=reach)
    assert await collect(stream.filter(lambda n: n % 5)) == [n for n in sorted(items) if n % 5]
    stream.restart()
    assert await collect(stream) == sorted(items)
    again = SourceIterObj(generate(items)).in_order(index, start=start, maxsize=reach)
    assert await collect(again.batch(3).flatten()) == sorted(items)


async def test_in_order_yields_held_items_at_the_end() -> None:
    stream = PullInOrderObj([5, 0, 3, 7, 1], lambda n: n)
    assert await collect(stream) == [0, 1, 3, 5, 7]
    assert await collect(stream.map(lambda n: n)) == []
    stream.restart()
    below = stream.map(lambda n: n * 2).take(4)
    assert await collect(below) == [0, 2, 6, 10]


@pytest.mark.parametrize("seed", range(5))
async def test_law_2_in_order_loses_nothing_when_cancelled(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)

    async def slow_callable(n: int) -> int:
        await yield_to_loop(n % 3)
        return n

    items = shuffled(rng, 50, 6)
    stream = (
        SourceIterObj(items)
        .map(slow_callable)
        .in_order(slow_callable, maxsize=6)
        .map(slow_callable)
    )
    received, cancelled = await collect_with_cancellations(stream, rng)
    assert received == list(range(50))
    assert cancelled > 3


@pytest.mark.parametrize(
    ("items", "refused", "message"),
    [
        ([0, 2, 2, 1], 2, r"index 2 \(int\) was given to an item before"),
        ([0, 1, 0, 2], 0, r"index 0 \(int\) was given to an item before"),
        ([0, -1, 1, 2], -1, r"index -1 \(int\) is below the first one, 0"),
        (
            [2, 1, 3, 0],
            3,
            r"index 3 \(int\) is too early: 2 items wait for 0 already, and maxsize is 2",
        ),
        ([0, 2**63, 1, 2], 2**63, r"index 9223372036854775808 \(int\) is not between"),
    ],
)
async def test_law_3_order_error_has_the_refused_item(
    items: list[int], refused: int, message: str
) -> None:
    stream = PullInOrderObj(items, lambda n: n, maxsize=2)
    received: list[int] = []
    caught: list[OrderError] = []
    while True:
        try:
            received.append(await anext(stream))
        except StopAsyncIteration:
            break
        except OrderError as error:
            caught.append(error)
    assert received == [0, 1, 2]
    (refusal,) = caught
    assert refusal.item == refused
    assert isinstance(refusal, ValueError)
    assert not isinstance(refusal, TypeError)
    assert refusal.__notes__ == [f"raised by index of PullInOrderObj: item {refused!r}"]
    assert re.match(message, str(refusal))


@pytest.mark.parametrize("index", ["1", 1.0, None, True])
async def test_law_3_type_error_of_an_index_has_the_item(index: Any) -> None:
    stream = PullInOrderObj(range(3), lambda n: index if n == 1 else n)
    assert await anext(stream) == 0
    with pytest.raises(TypeError, match=r"index .* is no integer") as caught:
        await anext(stream)
    assert wrong(caught.value).item == 1
    assert await collect(stream) == [2]


async def test_law_6_in_order_holds_no_more_than_its_maxsize() -> None:
    pulled: list[int] = []
    source = SourceIterObj(range(9, -1, -1)).tap(pulled.append)
    stream = source.in_order(lambda n: n, maxsize=4)
    with pytest.raises(OrderError):
        await anext(stream)
    assert pulled == [9, 8, 7, 6, 5]
    stream.maxsize = 9
    assert await anext(stream) == 0
    stream.maxsize = 1
    assert await anext(stream) == 1
    assert stream.maxsize == 1


async def test_law_11_restart_of_in_order_starts_again() -> None:
    stream = SourceIterObj([2, 1, 0]).in_order(lambda n: n)
    assert await anext(stream) == 0
    stream.restart()
    assert await collect(stream) == [0, 1, 2]


async def test_law_13_index_is_live() -> None:
    stream = PullInOrderObj([0, 2, 1], lambda n: n)
    assert await anext(stream) == 0
    stream.index = lambda n: 3 - n
    assert stream.index(1) == 2
    assert await collect(stream) == [2, 1]


async def test_law_16_held_items_yield_to_the_loop() -> None:
    count = 20_000
    stream = SourceIterObj(range(1, count)).in_order(lambda n: n, maxsize=count)
    held = asyncio.create_task(anext(stream.filter(lambda _: False), None))
    async with Heart() as heart:
        assert await held is None
    assert heart.beats >= 2 * (count // 4096)
