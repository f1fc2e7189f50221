"""The pull driver: cancelled pulls and errors, guarantees 2 and 3."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import SourceCancelledError, SourceIterObj
from tests.support import Gate, collect, collect_with_cancellations, step_into, until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_law_2_cancelled_callable_is_called_again() -> None:
    gate = Gate()
    stream = SourceIterObj([1, 2, 3]).map(gate)
    for _ in range(3):
        task = asyncio.ensure_future(anext(stream))
        await until(lambda: bool(gate.calls))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.open.set()
    assert await collect(stream) == [10, 20, 30]
    assert sorted(set(gate.calls)) == [1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
async def test_law_2_cancelled_at_random_loses_nothing(seed: int) -> None:
    rng = random.Random(seed)
    print("seed", seed)

    async def slow(n: int) -> int:
        await yield_to_loop(n % 4)
        return n

    async def keep(n: int) -> bool:
        await yield_to_loop(n % 3)
        return n % 5 != 0

    stream = SourceIterObj(range(60)).map(slow).filter(keep).map(slow)
    received, cancelled = await collect_with_cancellations(stream, rng, 12, spare=3)
    assert received == [n for n in range(60) if n % 5]
    assert cancelled > 10


async def test_law_2_wait_for_delivers_every_item() -> None:
    async def slow(n: int) -> int:
        await yield_to_loop(5)
        return n

    stream = SourceIterObj(range(200)).map(slow)
    received: list[int] = []
    tries = 0
    while len(received) < 200:
        tries += 1
        with contextlib.suppress(TimeoutError):
            received.append(await asyncio.wait_for(anext(stream), 0 if tries % 2 else 10))
    assert received == list(range(200))


async def test_law_2_pull_dropped_in_a_callable_keeps_its_item() -> None:
    gate = Gate()
    stream = SourceIterObj([1, 2]).map(gate)
    pull = anext(stream)
    pull.send(None)
    del pull
    gc.collect()
    gate.open.set()
    assert await collect(stream) == [10, 20]
    assert gate.calls == [1, 1, 2]


async def test_law_2_callable_may_handle_its_own_timeout() -> None:
    async def impatient(n: int) -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return f"gave up on {n}"
        return "never"

    assert await collect(SourceIterObj([1, 2]).map(impatient)) == ["gave up on 1", "gave up on 2"]


async def test_law_2_raised_cancelled_error_costs_one_item() -> None:
    calls: list[int] = []

    async def fickle(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0)
        if n == 2:
            raise asyncio.CancelledError("mine")
        return n

    stream = SourceIterObj([1, 2, 3]).map(fickle)
    assert await anext(stream) == 1
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await anext(stream)
    assert await collect(stream) == [3]
    assert calls == [1, 2, 3]


async def test_law_2_callable_may_suppress_cancellation() -> None:
    async def stubborn(n: int) -> int:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return n

    stream = SourceIterObj([1, 2]).map(stubborn)
    task = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
    task.cancel()
    assert await task == 1


async def test_law_2_cancelled_generator_raises_at_next_pull() -> None:
    closed: list[bool] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.append(True)

    stream = SourceIterObj(generator()).map(lambda n: n)
    assert await anext(stream) == 0
    task = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]
    with pytest.raises(SourceCancelledError):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_2_generator_may_survive_cancellation() -> None:
    async def generator() -> AsyncIterator[str]:
        yield "first"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "caught"
        yield "last"

    stream = SourceIterObj(generator())
    assert await anext(stream) == "first"
    task = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
    task.cancel()
    assert await task == "caught"
    assert await collect(stream) == ["last"]


@pytest.mark.parametrize("taken", [0, 1])
async def test_pull_dropped_in_a_generator_is_an_error(taken: int) -> None:
    closed: list[bool] = []

    async def generator() -> AsyncIterator[int]:
        try:
            for n in range(taken):
                yield n
            await asyncio.Event().wait()
            yield -1
        finally:
            closed.append(True)

    source = generator()
    stream = SourceIterObj(source)
    for n in range(taken):
        assert await anext(stream) == n
    pull = anext(stream)
    step_into(source, pull)
    del pull
    gc.collect()
    with pytest.raises(SourceCancelledError):
        await anext(stream)
    await stream.aclose()
    assert closed == [True]


async def test_law_3_error_costs_one_item_and_names_it() -> None:
    error = ValueError("bad")

    def picky(n: int) -> int:
        if n % 2:
            raise error
        return n

    stream = SourceIterObj(range(4)).map(picky)
    received: list[Any] = []
    for _ in range(4):
        try:
            received.append(await anext(stream))
        except ValueError as caught:
            received.append(caught)
    assert received == [0, error, 2, error]
    assert error.__notes__ == [f"raised by transform of PullMapObj: item {n}" for n in (1, 3)]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
@pytest.mark.parametrize("is_async", [False, True])
async def test_law_3_iteration_error_becomes_runtime_error(
    kind: type[BaseException], is_async: bool
) -> None:
    def sync(n: int) -> int:
        raise kind

    async def asynchronous(n: int) -> int:
        await asyncio.sleep(0)
        raise kind

    stream = SourceIterObj([1]).map(asynchronous if is_async else sync)
    with pytest.raises(RuntimeError) as caught:
        await anext(stream)
    cause = caught.value.__cause__
    # A coroutine turns StopIteration into a RuntimeError by itself.
    assert isinstance(cause, kind) or isinstance(caught.value.__context__, kind)
    assert await collect(stream) == []


def test_law_3_keyboard_interrupt_propagates() -> None:
    async def main() -> None:
        def interrupt(n: int) -> int:
            raise KeyboardInterrupt

        await anext(SourceIterObj([1]).map(interrupt))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
