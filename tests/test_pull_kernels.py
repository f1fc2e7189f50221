"""`batch_until`, `tap`, `in_order` and raw maps, compared with plain Python and by law."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    PullBufferObj,
    PullCallbackObj,
    PullInOrderObj,
    PullMapObj,
    PullObj,
    PushBufferObj,
    SinkCollectObj,
    SourceIterObj,
)
from tests.support import collect, collect_with_cancellations, generate, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def split_after(items: Iterable[int], ends_batch: Callable[[int], bool]) -> list[list[int]]:
    lists: list[list[int]] = [[]]
    for item in items:
        lists[-1].append(item)
        if ends_batch(item):
            lists.append([])
    return lists if lists[-1] else lists[:-1]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("is_async", [False, True])
async def test_batch_until_splits_after_its_condition(seed: int, is_async: bool) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    items = [rng.randrange(10) for _ in range(rng.randrange(40))]

    def ends_batch(n: int) -> bool:
        return n < 3

    async def slow_callable(so_far: list[int]) -> bool:
        await yield_to_loop(so_far[-1] % 2)
        return ends_batch(so_far[-1])

    condition: Callable[[list[int]], Any] = (
        slow_callable if is_async else lambda so_far: ends_batch(so_far[-1])
    )
    lists = split_after(items, ends_batch)
    assert await collect(SourceIterObj(items).batch_until(condition)) == lists
    full = [part for part in lists if ends_batch(part[-1])]
    assert await collect(SourceIterObj(items).batch_until(condition, partial="drop")) == full
    source = generate(items)
    middle = SourceIterObj(source).map(lambda n: n).batch_until(condition).flatten()
    assert await collect(middle.filter(lambda n: n % 2)) == [n for n in items if n % 2]


@pytest.mark.parametrize("seed", range(5))
async def test_law_2_cancelled_batch_and_tap_lose_nothing(seed: int) -> None:
    print("seed", seed)
    logged: list[int] = []

    async def slow(n: int) -> int:
        await yield_to_loop(n % 3)
        return n

    async def log_item(n: int) -> None:
        await yield_to_loop(1)
        logged.append(n)

    async def ends_batch(items: list[int]) -> bool:
        await yield_to_loop(1)
        return items[-1] % 4 == 3

    stream = SourceIterObj(range(30)).map(slow).tap(slow, log_item).batch_until(ends_batch)
    received, cancelled = await collect_with_cancellations(stream, random.Random(seed))
    assert received == split_after(range(30), lambda n: n % 4 == 3)
    assert list(dict.fromkeys(logged)) == list(range(30))
    assert cancelled > 3


async def test_law_3_failing_condition_costs_one_item() -> None:
    def condition(items: list[int]) -> bool:
        return 1 // (items[-1] - 2) == 1

    stream = SourceIterObj(range(6)).batch_until(condition)
    with pytest.raises(ZeroDivisionError) as caught:
        await anext(stream)
    assert caught.value.__notes__ == ["raised by condition of PullBufferObj: item 2"]
    assert await collect(stream) == [[0, 1, 3], [4, 5]]


BATCHES: dict[str, Callable[[Callable[[list[int]], Any]], PullObj[list[int]]]] = {
    "pull": lambda condition: SourceIterObj([1, 2, 10, 3, 4, 20]).batch_until(condition),
    "pull, stages": lambda condition: PullBufferObj(
        SourceIterObj(generate([1, 2, 10, 3, 4, 20])).map(lambda n: n), condition
    ),
}


@pytest.mark.parametrize("build", BATCHES.values(), ids=BATCHES)
async def test_condition_receives_the_list_so_far(
    build: Callable[[Callable[[list[int]], Any]], PullObj[list[int]]],
) -> None:
    received_lists: list[list[int]] = []

    def condition(items: list[int]) -> bool:
        assert type(items) is list
        received_lists.append(items.copy())
        return sum(items) > 10

    async def slow_callable(items: list[int]) -> bool:
        await yield_to_loop(1)
        return condition(items)

    for function in (condition, slow_callable):
        received_lists.clear()
        assert await collect(build(function)) == [[1, 2, 10], [3, 4, 20]]
        assert received_lists == [[1], [1, 2], [1, 2, 10], [3], [3, 4], [3, 4, 20]]


async def test_list_kept_by_a_condition_does_not_change() -> None:
    kept: list[list[int]] = []

    def condition(items: list[int]) -> bool:
        kept.append(items)
        return len(items) == 3

    lists = await collect(SourceIterObj(range(6)).batch_until(condition))
    assert lists == [[0, 1, 2], [3, 4, 5]]
    assert kept == [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5]]
    assert not any(one is other for one in lists for other in kept)


async def test_condition_cannot_change_a_batch() -> None:
    def condition(items: list[int]) -> bool:
        is_full = len(items) == 3
        items.clear()
        items.append(7)
        return is_full

    lists = await collect(SourceIterObj(range(7)).batch_until(condition))
    assert lists == [[0, 1, 2], [3, 4, 5], [6]]


async def test_law_2_cancelled_condition_is_called_again() -> None:
    received_lists: list[list[int]] = []
    hang = asyncio.Event()

    async def condition(items: list[int]) -> bool:
        received_lists.append(items.copy())
        if items == [1, 3]:
            await hang.wait()
        if items[-1] == 2:
            raise ValueError(items)
        return False

    stream = SourceIterObj([1, 2, 3, 4]).batch_until(condition)
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        await anext(stream)
    for _ in range(2):
        pulling = asyncio.ensure_future(anext(stream))
        await yield_to_loop(3)
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
    hang.set()
    assert await collect(stream) == [[1, 3, 4]]
    assert received_lists == [[1], [1, 2], [1, 3], [1, 3], [1, 3], [1, 3, 4]]


async def test_condition_may_push_into_its_own_batch() -> None:
    sink: SinkCollectObj[list[str]] = SinkCollectObj()
    received_lists: list[list[str]] = []

    def condition(items: list[str]) -> bool:
        received_lists.append(items.copy())
        if items[-1] == "c":
            # Push two more items: the first completes the list, the second starts the next one.
            for item in ("end", "x"):
                pipeline.next_nowait(item)
        return items[-1] == "end"

    pipeline = PushBufferObj(sink, condition)
    for item in ("a", "c", "d"):
        await pipeline.next(item)
    await pipeline.return_()
    assert sink.buffer == [["a", "end"], ["x", "c", "d"]]
    assert received_lists == [["a"], ["a", "c"], ["a", "end"], ["x"], ["x", "c", "d"]]


async def test_restart_drops_an_incomplete_list() -> None:
    stream = SourceIterObj([1, 2, 3]).batch_until(lambda items: items[-1] == 3)
    stream.condition = lambda items: items[-1] == 1
    assert await anext(stream) == [1]
    stream.condition = wrong(lambda items: 1 // 0 if items[-1] == 3 else False)
    with pytest.raises(ZeroDivisionError):
        await anext(stream)
    stream.restart()
    stream.condition = lambda items: items[-1] == 3
    assert await collect(stream) == [[1, 2, 3]]


async def test_callbacks_run_sequentially_in_order() -> None:
    log: list[Any] = []

    def log_call(name: str) -> Callable[[int], Any]:
        return lambda n: log.append((name, n))

    def slow_callable(name: str) -> Callable[[int], Any]:
        async def callback(n: int) -> str:
            log.append((name, n))
            await yield_to_loop(2)
            log.append((name + " through", n))
            return "ignored"

        return callback

    async def at_once(n: int) -> None:
        log.append(("e", n))

    callbacks = (log_call("a"), slow_callable("b"), log_call("c"), slow_callable("d"), at_once)
    stream = SourceIterObj(range(3)).map(lambda n: n).tap(*callbacks).filter(lambda n: n != 1)
    assert await collect(stream) == [0, 2]
    names = ["a", "b", "b through", "c", "d", "d through", "e"]
    assert log == [(name, n) for n in range(3) for name in names]


async def test_law_2_cancelled_callbacks_are_called_again() -> None:
    log: list[str] = []
    gate = asyncio.Event()

    async def waits(_: int) -> None:
        log.append("waits")
        await gate.wait()

    stream = PullCallbackObj([7, 8], lambda _: log.append("first"), waits)
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(3)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    gate.set()
    assert await collect(stream) == [7, 8]
    assert log == ["first", "waits"] * 3


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_law_3_failing_callback_costs_one_item(at: int) -> None:
    async def fails(n: int) -> None:
        await yield_to_loop(n)
        if n == 1:
            raise KeyError(n)

    def fails_at_once(n: int) -> None:
        if n == 1:
            raise KeyError(n)

    for failing in (fails, fails_at_once):
        called: list[int] = []

        async def fine(n: int, called: list[int] = called) -> None:
            called.append(n)

        callbacks: list[Callable[[int], Any]] = [fine, fine]
        callbacks.insert(at, failing)
        stream = PullCallbackObj(range(3), *callbacks)
        assert await anext(stream) == 0
        with pytest.raises(KeyError) as caught:
            await anext(stream)
        assert caught.value.__notes__ == ["raised by callbacks of PullCallbackObj: item 1"]
        assert await collect(stream) == [2]
        assert called == [0, 0] + [1] * at + [2, 2]


async def test_law_13_callbacks_are_live() -> None:
    log: list[str] = []
    stream = PullCallbackObj(range(3), lambda _: log.append("old"))
    assert await anext(stream) == 0
    new: list[Callable[[int], Any]] = [lambda _: log.append("new"), lambda _: log.append("newer")]
    stream.callbacks = wrong(iter(new))
    assert stream.callbacks == tuple(new)
    with pytest.raises(TypeError, match=r"callbacks\[0\] must be callable, got 3 \(int\)"):
        stream.callbacks = wrong([3])
    assert await collect(stream) == [1, 2]
    assert log == ["old", "new", "newer", "new", "newer"]


async def test_raw_map_does_not_await() -> None:
    async def double(n: int) -> int:
        return n * 2

    stream = SourceIterObj(range(4)).map(double, raw=True)
    coroutines = [item async for item in stream]
    assert all(map(inspect.iscoroutine, coroutines))
    assert [await coroutine for coroutine in coroutines] == [0, 2, 4, 6]
    assert await collect(PullMapObj(range(4), double)) == [0, 2, 4, 6]
    # A later stage awaits the coroutines.
    assert await collect(PullMapObj(range(4), double, raw=True).map(lambda c: c)) == [0, 2, 4, 6]
    plain = PullMapObj(range(2), lambda n: -n, raw=True)
    assert plain.transform(3) == -3
    assert await collect(plain) == [0, -1]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: PullBufferObj([1], wrong(3)),
            TypeError,
            r"condition must be callable, got 3 \(int\)",
        ),
        (lambda: PullBufferObj([1], bool, partial=wrong("no")), ValueError, "partial must be"),
        (lambda: PullBufferObj(wrong(3), bool), TypeError, "source must be an iterable"),
        (
            lambda: PullCallbackObj([1]),
            TypeError,
            "callbacks must be one callable at least, got none",
        ),
        (
            lambda: PullCallbackObj([1], print, wrong("x")),
            TypeError,
            r"callbacks\[1\] must be callable, got 'x' \(str\)",
        ),
        (
            lambda: PullInOrderObj([1], wrong(3)),
            TypeError,
            r"index must be callable, got 3 \(int\)",
        ),
        (
            lambda: PullInOrderObj([1], int, start=wrong("0")),
            TypeError,
            r"start must be an integer, got '0' \(str\)",
        ),
        (
            lambda: PullInOrderObj([1], int, start=2**63),
            ValueError,
            r"start must be from -2\*\*63 .*",
        ),
        (
            lambda: PullInOrderObj([1], int, maxsize=0),
            ValueError,
            "maxsize must be at least 1 .*, got 0",
        ),
    ],
)
def test_law_14_bad_input_is_refused(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


async def test_law_17_pipeline_of_10_000_stages_runs() -> None:
    stream: PullObj[Any] = SourceIterObj(range(3))
    for _ in range(2_500):
        stream = stream.batch_until(lambda _: True).flatten().tap(bool).map(int, raw=True)
    for _ in range(1_000):
        stream = stream.in_order(lambda n: n)
    assert await collect(stream) == [0, 1, 2]


class Holder:
    """An object that references a stream, which references it."""

    stream: Any = None

    def use(self, _: Any) -> None:
        pass


@pytest.mark.parametrize("make", [PullBufferObj, PullCallbackObj, PullInOrderObj])
def test_cycle_through_a_kernel_is_collected(make: Callable[..., Any]) -> None:
    holder = Holder()
    holder.stream = make([], holder.use)
    dropped = weakref.ref(holder)
    del holder
    gc.collect()
    assert dropped() is None
