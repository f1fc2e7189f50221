"""The pull driver: closing and dropping a stream, guarantees 4 and 5."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ClosedError, PullMapObj, PullObj1To1Link, SourceIterObj
from tests.support import collect, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_law_4_closing_cancels_a_pull_in_its_own_task() -> None:
    cleaned: list[Any] = []

    async def stuck(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(asyncio.current_task())
        return n

    stream = SourceIterObj([1, 2]).map(stuck)
    first = asyncio.create_task(anext(stream))
    second = asyncio.create_task(anext(stream))
    await yield_to_loop(2)
    await stream.aclose()
    assert cleaned == [first]
    with pytest.raises(ClosedError):
        await first
    with pytest.raises(ClosedError):
        await second
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_4_closing_runs_from_consumer_to_source() -> None:
    order: list[str] = []

    class Noisy(PullObj1To1Link[Any, Any]):
        def __init__(self, source: Any, name: str) -> None:
            super().__init__(source)
            self.name = name

        async def pull_impl(self) -> AsyncIterator[Any]:
            try:
                async for item in self.source:
                    yield item
            finally:
                order.append(self.name)

    async def generator() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            order.append("source")

    async with Noisy(PullMapObj(Noisy(generator(), "upper"), str), "lower") as stream:
        assert await anext(stream) == "1"
    assert order == ["lower", "upper", "source"]


async def test_law_4_error_of_the_block_notes_closing_errors() -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise OSError("disk")

    stream = SourceIterObj(generator())
    with pytest.raises(KeyError) as caught:
        async with stream:
            await anext(stream)
            raise KeyError("body")
    assert caught.value.__notes__ == ["while closing: OSError('disk')"]


async def test_law_4_closing_a_middle_stage_ends_the_pull() -> None:
    cleaned: list[Any] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(asyncio.current_task())

    source = SourceIterObj(generator())
    last = source.map(lambda n: n).map(lambda n: n)
    assert await anext(last) == 1
    pull = asyncio.create_task(anext(last))
    await yield_to_loop(3)
    await source.aclose()
    assert cleaned == [pull]
    with pytest.raises(ClosedError):
        await pull
    assert await collect(last) == []


def test_law_4_interrupt_during_closing_is_raised() -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyboardInterrupt

    async def main() -> None:
        async with SourceIterObj(generator()) as stream:
            await anext(stream)
            raise ValueError("body")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


async def test_law_4_closing_from_own_callable_is_refused() -> None:
    async def close_own_stream(n: int) -> int:
        await stream.aclose()
        return n

    stream = SourceIterObj([1]).map(close_own_stream)
    with pytest.raises(RuntimeError, match="inside its own callable"):
        await anext(stream)


async def test_law_5_dropped_stream_is_freed_at_once() -> None:
    class Item:
        pass

    gc.collect()
    gc.disable()
    try:
        stream = SourceIterObj([Item() for _ in range(3)]).map(lambda item: item)
        item = await anext(stream)
        stream_ref = weakref.ref(stream)
        item_ref = weakref.ref(item)
        del stream, item
        assert stream_ref() is None
        assert item_ref() is None
    finally:
        gc.enable()


async def test_law_5_cycles_through_a_stream_are_collected() -> None:
    class Holder:
        stream: Any

        def step(self, n: int) -> int:
            return n

    holder = Holder()
    holder.stream = SourceIterObj([1, 2]).map(holder.step)
    assert await anext(holder.stream) == 1
    stream_ref = weakref.ref(holder)
    del holder
    gc.collect()
    assert stream_ref() is None
