"""`catch`: replace an error of any stage upstream by an item."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    SKIP,
    ClosedError,
    PullCatchObj,
    PullObj,
    PullObj1To1Link,
    Skip,
    SourceCancelledError,
    SourceIterObj,
)
from tests.support import collect, collect_with_cancellations, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def odd_fails(n: int) -> int:
    if n % 2:
        raise KeyError(n)
    return n


async def odd_fails_slowly(n: int) -> int:
    await yield_to_loop(n % 3)
    return odd_fails(n)


class Foreign(PullObj1To1Link[int, int]):
    """An operator that is not fused."""

    async def pull_impl(self) -> AsyncIterator[int]:
        async for item in self.source:
            yield item


class Failing:
    """A source that raises for each odd number, and continues."""

    def __init__(self, count: int) -> None:
        self._numbers = iter(range(count))

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return odd_fails(next(self._numbers))


class FailingSlowly:
    """An async source that raises for each odd number, and continues."""

    def __init__(self, count: int) -> None:
        self._numbers = iter(range(count))

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        try:
            n = next(self._numbers)
        except StopIteration:
            raise StopAsyncIteration from None
        return await odd_fails_slowly(n)


def negate(error: Exception) -> int:
    return -int(error.args[0])


async def negate_slowly(error: Exception) -> int:
    await yield_to_loop(1)
    return negate(error)


STREAMS: dict[str, Callable[[], PullObj[int]]] = {
    "stage": lambda: SourceIterObj(range(6)).map(odd_fails),
    "async stage": lambda: SourceIterObj(range(6)).map(odd_fails_slowly),
    "source": lambda: SourceIterObj(Failing(6)),
    "async source": lambda: SourceIterObj(FailingSlowly(6)),
    "flattened": lambda: SourceIterObj([Failing(6)]).flatten(),
    "flattened async": lambda: SourceIterObj([FailingSlowly(6)]).flatten(),
    "filter": lambda: SourceIterObj(range(6)).filter(lambda n: odd_fails(n) == n),
    "far upstream": lambda: (
        SourceIterObj(range(6)).map(odd_fails).map(lambda n: n).batch(1).flatten()
    ),
}


@pytest.mark.parametrize("made", STREAMS)
@pytest.mark.parametrize("is_async", [False, True])
async def test_handler_gets_errors_of_every_kind_of_stage(made: str, is_async: bool) -> None:
    handler: Callable[[Exception], Any] = negate_slowly if is_async else negate
    caught = STREAMS[made]().catch(handler)
    assert await collect(caught.map(lambda n: n)) == [0, -1, 2, -3, 4, -5]
    skipping = STREAMS[made]().catch(lambda _: SKIP)
    assert await collect(skipping.filter(lambda _: True)) == [0, 2, 4]


async def test_async_handler_may_return_skip() -> None:
    async def handler(error: Exception) -> int | Skip:
        await yield_to_loop(1)
        return SKIP if error.args == (1,) else 7

    stream = SourceIterObj(range(4)).map(odd_fails_slowly).catch(handler)
    assert await collect(stream) == [0, 2, 7]
    assert repr(SKIP) == "SKIP"


@pytest.mark.parametrize("is_async", [False, True])
async def test_law_3_error_of_a_handler_costs_one_item(is_async: bool) -> None:
    def again(error: Exception) -> int:
        if error.args == (1,):
            raise error
        raise OSError("other") from error

    async def again_slowly(error: Exception) -> int:
        await yield_to_loop(1)
        return again(error)

    handler: Callable[[Exception], Any] = again_slowly if is_async else again
    stream = SourceIterObj(range(5)).map(odd_fails).catch(handler)
    assert await anext(stream) == 0
    with pytest.raises(KeyError) as caught:
        await anext(stream)
    assert caught.value.__notes__ == [
        "raised by transform of PullMapObj: item 1",
        "raised by handler of PullCatchObj: item 1",
    ]
    assert await anext(stream) == 2
    with pytest.raises(OSError, match="other"):
        await anext(stream)
    assert await collect(stream) == [4]


async def test_handler_gets_only_errors_from_upstream() -> None:
    log: list[str] = []

    def log_and_raise(name: str) -> Callable[[Exception], int]:
        def handler(error: Exception) -> int:
            log.append(name)
            raise error

        return handler

    stream = (
        SourceIterObj(range(2))
        .catch(log_and_raise("above"))
        .map(odd_fails)
        .catch(log_and_raise("near"))
    )
    last = (
        stream.catch(log_and_raise("far"))
        .catch(lambda _: 9)
        .catch(log_and_raise("never"))
        .map(odd_fails)
    )
    assert await anext(last) == 0
    with pytest.raises(KeyError, match="9"):
        await anext(last)
    assert log == ["near", "far"]


async def test_handler_gets_errors_of_an_unfused_source() -> None:
    shared = SourceIterObj(range(4)).map(odd_fails)
    other = shared.map(lambda n: n)
    assert await collect(shared.catch(negate)) == [0, -1, 2, -3]
    assert await collect(other) == []
    own = Foreign(SourceIterObj(range(4)).map(odd_fails)).catch(lambda _: -1)
    # The error ends the generator of the subclass, as it ends any generator.
    assert await collect(own) == [0, -1]
    below = Foreign(SourceIterObj(range(4)).map(odd_fails).catch(negate)).map(lambda n: n)
    assert await collect(below) == [0, -1, 2, -3]


async def test_law_2_cancelled_pull_calls_no_handler() -> None:
    handled: list[Exception] = []

    async def slow(n: int) -> int:
        await yield_to_loop(3)
        return n

    def handler(error: Exception) -> Skip:
        handled.append(error)
        return SKIP

    stream = SourceIterObj(range(3)).map(slow).catch(handler)
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(1)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert await collect(stream) == [0, 1, 2]
    assert handled == []


async def test_cancelled_error_and_interrupt_are_not_caught() -> None:
    def fails(n: int) -> int:
        raise asyncio.CancelledError if n else KeyboardInterrupt

    stream = SourceIterObj(range(2)).map(fails).catch(lambda _: SKIP)
    with pytest.raises(KeyboardInterrupt):
        anext(stream).send(None)
    with pytest.raises(asyncio.CancelledError):
        await anext(stream)
    assert await collect(stream) == []


async def test_law_2_cancelled_handler_is_called_again() -> None:
    gate = asyncio.Event()
    handled_errors: list[Exception] = []

    async def handler(error: Exception) -> int:
        handled_errors.append(error)
        await gate.wait()
        return negate(error)

    stream = SourceIterObj(range(4)).map(odd_fails).catch(handler)
    last = stream.map(lambda n: n)
    assert await anext(last) == 0
    for _ in range(2):
        pull = asyncio.ensure_future(anext(last))
        await yield_to_loop(3)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
    gate.set()
    # The pull continues in the middle of the pipeline.
    assert await anext(stream) == -1
    assert len(handled_errors) == 3
    assert handled_errors[0] is handled_errors[1] is handled_errors[2]
    assert await collect(last) == [2, -3]


async def test_law_2_dropped_pull_keeps_its_error() -> None:
    gate = asyncio.Event()

    async def handler(error: Exception) -> int:
        await gate.wait()
        return negate(error)

    stream = SourceIterObj([1, 2]).map(odd_fails).catch(handler)
    pull = anext(stream)
    pull.send(None)
    pull.close()
    second = anext(stream)
    second.send(None)
    del second
    gate.set()
    assert await collect(stream) == [-1, 2]


@pytest.mark.parametrize("seed", range(10))
async def test_law_2_cancelled_anywhere_keeps_each_item_once(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)

    async def pair(n: int) -> list[int]:
        await yield_to_loop(n % 2)
        return [n, n]

    stream = SourceIterObj(range(30)).map(odd_fails_slowly).catch(negate_slowly).flat_map(pair)
    received, cancelled = await collect_with_cancellations(stream, rng, 6)
    assert received == [-n if n % 2 else n for n in range(30) for _ in (0, 1)]
    assert cancelled > 3


async def test_handler_gets_the_source_cancelled_error() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()

    def handler(error: Exception) -> str:
        assert isinstance(error, SourceCancelledError)
        return "lost"

    stream = SourceIterObj(generator()).catch(handler)
    assert await anext(stream) == 0
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(3)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert await collect(stream) == ["lost"]


async def test_closing_a_suspended_pull_calls_no_handler() -> None:
    async def waits() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    handled: list[Exception] = []

    def handler(error: Exception) -> Skip:
        handled.append(error)
        return SKIP

    stream = SourceIterObj([waits()]).flatten().catch(handler)
    pull = anext(stream)
    pull.send(None)
    pull.close()
    assert handled == []


async def test_law_4_closing_during_a_handler_cancels_pull() -> None:
    ended: list[str] = []

    async def handler(_: Exception) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await yield_to_loop(2)
            ended.append("handler")
        return 1

    stream = SourceIterObj([1]).map(odd_fails).catch(handler)
    last = stream.map(lambda n: n)
    pull = asyncio.create_task(anext(last))
    await yield_to_loop(3)
    await last.aclose()
    with pytest.raises(ClosedError):
        await pull
    assert ended == ["handler"]


async def test_law_11_after_the_end_and_after_restart() -> None:
    stream = SourceIterObj(range(3)).map(odd_fails).catch(negate)
    assert await collect(stream) == [0, -1, 2]
    assert await anext(stream, "end") == "end"
    stream.restart()
    assert await collect(stream) == [0, -1, 2]


async def test_law_13_handler_is_live() -> None:
    stream: PullCatchObj[int, Any] = PullCatchObj(SourceIterObj(range(6)).map(odd_fails), negate)
    assert [await anext(stream) for _ in range(2)] == [0, -1]
    stream.handler = lambda _: "new"
    assert await collect(stream) == [2, "new", 4, "new"]
    with pytest.raises(TypeError, match="handler must be callable, got None"):
        stream.handler = wrong(None)


def test_law_14_bad_input_is_refused() -> None:
    with pytest.raises(TypeError, match=r"handler must be callable, got 3 \(int\)"):
        PullCatchObj([1], wrong(3))
    with pytest.raises(TypeError, match="source must be an iterable"):
        PullCatchObj(wrong(3), negate)


@pytest.mark.virtual
@pytest.mark.parametrize("is_flattened", [False, True])
async def test_law_16_endless_errors_yield_to_the_loop(
    is_flattened: bool,
) -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            raise OSError("again")

    source: PullObj[int] = (
        SourceIterObj([Broken()]).flatten() if is_flattened else SourceIterObj(Broken())
    )
    stream = source.catch(lambda _: SKIP)
    pull = asyncio.create_task(anext(stream, None))
    for _ in range(10):
        await asyncio.sleep(0)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull


async def test_law_17_error_passes_ten_thousand_handlers() -> None:
    def again(error: Exception) -> int:
        raise error

    stream: PullObj[int] = SourceIterObj(range(3)).map(odd_fails)
    for _ in range(10_000):
        stream = stream.catch(again)
    assert await collect(stream.catch(negate)) == [0, -1, 2]


def test_cycle_through_a_handler_is_collected() -> None:
    class Holder:
        stream: Any = None

        async def handle(self, _: Exception) -> int:
            await asyncio.Event().wait()
            return 1

    async def main() -> weakref.ref[Holder]:
        holder = Holder()
        holder.stream = SourceIterObj([1]).map(odd_fails).catch(holder.handle)
        pull = asyncio.ensure_future(anext(holder.stream))
        await yield_to_loop(2)
        pull.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pull
        return weakref.ref(holder)

    dropped = asyncio.run(main())
    gc.collect()
    assert dropped() is None


def test_types_follow_the_result_of_a_handler() -> None:
    """Type checkers check this function too."""

    async def slowly(error: Exception) -> str | Skip:
        return SKIP if error.args else "no"

    def only_skips(_: Exception) -> Skip:
        return SKIP

    def text(error: Exception) -> str | Skip:
        return SKIP if error.args else "no"

    stream = SourceIterObj([1])
    skipped: PullObj[int] = stream.catch(only_skips)
    changed: list[PullObj[int | str]] = [stream.catch(text), stream.catch(slowly)]
    assert {type(made) for made in [skipped, *changed]} == {PullCatchObj}
