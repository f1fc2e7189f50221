"""Operators that change the number of items, compared with plain Python and by law."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullFlatMapObj,
    PullFlattenObj,
    PullObj,
    PullSkipObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullWindowObj,
    PullWindowTimeoutObj,
    PushChain,
    SourceCancelledError,
    SourceIterObj,
)
from tests.support import Heart, collect, collect_with_cancellations, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.mark.parametrize("count", [0, 1, 3, 10, 11])
async def test_take_and_skip_split_a_stream(count: int) -> None:
    assert await collect(SourceIterObj(range(10)).take(count)) == list(range(10))[:count]
    assert await collect(SourceIterObj(range(10)).skip(count)) == list(range(10))[count:]


@pytest.mark.parametrize("count", [0, 2])
async def test_take_pulls_no_more_than_it_yields(count: int) -> None:
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for n in range(10):
            pulled.append(n)
            yield n

    stream = SourceIterObj(source()).map(lambda n: n).take(count)
    assert await collect(stream) == list(range(count))
    assert pulled == list(range(count))


@pytest.mark.parametrize("is_async", [False, True])
async def test_while_operators_match_itertools(is_async: bool) -> None:
    async def slow_predicate(n: int) -> bool:
        await asyncio.sleep(0)
        return n < 3

    items = [0, 1, 2, 3, 2, 1]
    predicate: Callable[[int], Any] = slow_predicate if is_async else lambda n: n < 3
    assert await collect(SourceIterObj(items).take_while(predicate)) == [0, 1, 2]
    assert await collect(SourceIterObj(items).skip_while(predicate)) == [3, 2, 1]


async def test_flatten_accepts_every_kind_of_iterable() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 5
        await asyncio.sleep(0)
        yield 6

    items: list[Any] = [[1, 2], (), "ab", range(3, 5), generator(), SourceIterObj([7])]
    assert await collect(PullFlattenObj(items)) == [1, 2, "a", "b", 3, 4, 5, 6, 7]


async def test_flat_map_accepts_every_kind_of_callable() -> None:
    def plain(n: int) -> list[int]:
        return [n] * n

    async def asynchronous(n: int) -> list[int]:
        await asyncio.sleep(0)
        return [n] * n

    def generator(n: int) -> Iterator[int]:
        yield from [n] * n

    async def async_generator(n: int) -> AsyncIterator[int]:
        for _ in range(n):
            await asyncio.sleep(0)
            yield n

    expected = [1, 2, 2, 3, 3, 3]
    kinds: list[Callable[[int], Any]] = [plain, asynchronous, generator, async_generator]
    for transform in kinds:
        assert await collect(SourceIterObj(range(4)).flat_map(transform)) == expected


@pytest.mark.parametrize("size", [1, 3, 10, 11])
async def test_batch_yields_lists_of_its_size(size: int) -> None:
    batches = [list(range(10))[at : at + size] for at in range(0, 10, size)]
    assert await collect(SourceIterObj(range(10)).batch(size)) == batches
    full = [batch for batch in batches if len(batch) == size]
    assert await collect(SourceIterObj(range(10)).batch(size, partial="drop")) == full


async def test_batch_with_a_timeout_keeps_partial_lists() -> None:
    assert type(SourceIterObj([1]).batch(2)) is PullWindowObj
    assert type(SourceIterObj([1]).batch(2, 0.5)) is PullWindowTimeoutObj
    assert await collect(SourceIterObj(range(5)).batch(2, timeout=60)) == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match=r'partial="drop" has no meaning .* got timeout=0.5'):
        SourceIterObj([1]).batch(2, 0.5, partial=wrong("drop"))
    with pytest.raises(ValueError, match=r'partial="drop" has no meaning .* got timeout=0.5'):
        PushChain.start(int).batch(2, 0.5, partial="drop")
    with pytest.raises(ValueError, match="partial must be"):
        SourceIterObj([1]).batch(2, 0.5, partial=wrong("no"))


async def test_batch_and_flatten_are_inverse() -> None:
    assert await collect(SourceIterObj(range(100)).batch(7).flatten()) == list(range(100))


@pytest.mark.parametrize("seed", range(30))
async def test_law_7_random_pipelines_match_their_models(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    stream: Any = SourceIterObj(range(rng.randrange(60)))
    model: Any = await collect(stream)
    stream.restart()
    is_flat = True
    for _ in range(rng.randrange(1, 12)):
        kind = rng.choice(
            ["map", "filter", "take", "skip", "window", "flatten", "flat_map", "while"]
        )
        size = rng.randrange(1, 9)
        if kind == "map" and is_flat:
            stream, model = stream.map(lambda n: n + 1), [n + 1 for n in model]
        elif kind == "filter" and is_flat:
            stream, model = stream.filter(lambda n: n % 3), [n for n in model if n % 3]
        elif kind == "take":
            stream, model = stream.take(size * 5), model[: size * 5]
        elif kind == "skip":
            stream, model = stream.skip(size // 2), model[size // 2 :]
        elif kind == "window" and is_flat:
            stream = stream.batch(size)
            model = [model[at : at + size] for at in range(0, len(model), size)]
            is_flat = False
        elif kind == "flatten" and not is_flat:
            stream, model = stream.flatten(), list(itertools.chain.from_iterable(model))
            is_flat = True
        elif kind == "flat_map" and is_flat and len(model) < 500:
            stream = stream.flat_map(lambda n: [n, -n])
            model = [m for n in model for m in (n, -n)]
        elif kind == "while" and is_flat:
            limit = size * 4
            stream = stream.take_while(lambda n, limit=limit: n < limit)
            model = list(itertools.takewhile(limit.__gt__, model))
    assert await collect(stream) == model
    stream.restart()
    assert await collect(stream) == model


@pytest.mark.parametrize("seed", range(10))
async def test_law_2_cancelled_anywhere_keeps_each_item_once(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)

    async def slow(n: int) -> int:
        await yield_to_loop(n % 3)
        return n

    async def pair(n: int) -> list[int]:
        await yield_to_loop(n % 2)
        return [n, n]

    stream = SourceIterObj(range(40)).map(slow).flat_map(pair).map(slow).batch(3).flatten().take(70)
    received, cancelled = await collect_with_cancellations(stream, rng)
    assert received == [n for n in range(40) for _ in (0, 1)][:70]
    assert cancelled > 10


async def test_law_2_cancelled_inner_generator_costs_its_rest() -> None:
    async def generator(n: int) -> AsyncIterator[int]:
        yield n
        if n == 0:
            await asyncio.Event().wait()
        yield n

    stream = SourceIterObj(range(2)).flat_map(generator)
    assert await anext(stream) == 0
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(3)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    with pytest.raises(SourceCancelledError):
        await anext(stream)
    assert await collect(stream) == [1, 1]


async def test_law_3_non_iterable_item_costs_one_item() -> None:
    stream = PullFlattenObj(wrong([[1], 2, [3]]))
    assert await anext(stream) == 1
    with pytest.raises(
        TypeError, match=r"only an iterable .* can be flattened, got 2 \(int\)"
    ) as caught:
        await anext(stream)
    assert caught.value.__notes__ == ["raised by item of PullFlattenObj: item 2"]
    assert await collect(stream) == [3]
    bad = PullFlatMapObj([1, 2], wrong(lambda n: 7 if n == 1 else [n]))
    with pytest.raises(TypeError, match="got 7"):
        await anext(bad)
    assert await collect(bad) == [2]


async def test_law_4_closing_ends_the_flattened_generator() -> None:
    closed: list[str] = []

    async def generator(n: int) -> AsyncIterator[int]:
        try:
            while True:
                yield n
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async with SourceIterObj(range(3)).flat_map(generator).map(lambda n: n) as stream:
        assert await anext(stream) == 0
    assert closed == ["closed"]
    waiting = SourceIterObj(range(3)).batch(5)
    pull = asyncio.create_task(anext(PullFlattenObj([wrong(_never())])))
    await yield_to_loop(3)
    pull.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pull
    await waiting.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(waiting)


async def _never() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 1


async def test_law_4_closing_cancels_a_waiting_flat_map() -> None:
    stream = PullFlatMapObj([1], lambda _: _never())
    pull = asyncio.create_task(anext(stream))
    await yield_to_loop(3)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await pull


async def test_law_6_batch_holds_no_more_than_its_size() -> None:
    stream = SourceIterObj(range(10)).batch(4)
    assert await anext(stream) == [0, 1, 2, 3]
    stream.size = 2
    assert await collect(stream) == [[4, 5], [6, 7], [8, 9]]


async def test_law_13_counts_are_live() -> None:
    taken = PullTakeObj(range(10), 2)
    assert await anext(taken) == 0
    taken.size = 4
    assert await collect(taken) == [1, 2, 3]
    skipping = PullSkipObj(range(10), 3)
    assert await anext(skipping) == 3
    assert (skipping.size, taken.size) == (3, 4)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: PullTakeObj([1], -1), ValueError, r"size must be at least 0 .*, got -1 \(int\)"),
        (
            lambda: PullSkipObj([1], wrong("2")),
            TypeError,
            r"size must be an integer, got '2' \(str\)",
        ),
        (lambda: PullWindowObj([1], 0), ValueError, r"size must be at least 1 .*, got 0 \(int\)"),
        (lambda: PullWindowObj([1], wrong(True)), TypeError, "size must be an integer, got True"),
        (lambda: PullWindowObj([1], 2, partial=wrong("no")), ValueError, "partial must be"),
        (lambda: PullTakeWhileObj([1], wrong(3)), TypeError, "predicate must be callable, got 3"),
        (lambda: PullFlatMapObj([1], wrong(3)), TypeError, "transform must be callable, got 3"),
        (lambda: PullFlattenObj(wrong(3)), TypeError, "source must be an iterable"),
    ],
)
def test_law_14_bad_input_is_refused(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


async def test_law_16_flattening_a_long_iterable_yields() -> None:
    async with Heart() as heart:
        count = 0
        async for _ in PullFlattenObj([range(50_000)]):
            count += 1
    assert count == 50_000
    assert heart.beats >= 50_000 // 4096


async def test_law_17_pipeline_of_10_000_stages_runs() -> None:
    stream: PullObj[Any] = SourceIterObj(range(3))
    for _ in range(2_500):
        stream = stream.batch(1).flatten().skip(0).take(3)
    assert await collect(stream) == [0, 1, 2]


async def test_middle_stage_with_pending_items_can_be_pulled() -> None:
    middle = SourceIterObj([[1, 2, 3], [4, 5]]).flatten()
    last = middle.map(lambda n: n * 10)
    assert await anext(last) == 10
    assert await anext(middle) == 2
    assert await collect(last) == [30, 40, 50]
