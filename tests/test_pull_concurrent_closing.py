"""`map` with a concurrency: closing and dropping its stream, guarantees 4 and 5."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import warnings
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ClosedError, IteratorResult, PullMapObj, PullObj, SourceObj
from headrace.testing import shuffled_loop
from tests.concurrent_sources import VARIANTS, RecordedSource, slow
from tests.support import quiet, until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_law_4_closing_ends_calls_then_the_source() -> None:
    log: list[str] = []
    generator = RecordedSource(10)

    async def work(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await yield_to_loop(3)
            assert generator.closed_by is None
            log.append(f"call {n}")
        return n

    stream = PullMapObj(generator, work, concurrency=3)
    pulls = [asyncio.create_task(anext(stream)) for _ in range(2)]
    await yield_to_loop(10)
    await stream.aclose()
    assert sorted(log) == ["call 0", "call 1", "call 2"]
    assert generator.tasks == {generator.closed_by}
    assert generator.closed_by is not asyncio.current_task()
    for pull in pulls:
        with pytest.raises(ClosedError):
            await pull
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("waits", [0, 1, 2, 3, 5, 8])
async def test_law_4_second_cancel_waits_for_the_clean_up(waits: int) -> None:
    generator = RecordedSource(10)
    cleaned = 0

    async def work(n: int) -> int:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            await yield_to_loop(6)
            cleaned += 1
        return n

    async def body() -> None:
        async with PullMapObj(generator, work, concurrency=3) as stream:
            await anext(stream)

    task = asyncio.create_task(body())
    await yield_to_loop(10)
    for _ in range(4):
        task.cancel()
        await yield_to_loop(waits)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == 3
    assert generator.tasks == {generator.closed_by}


@pytest.mark.parametrize("pulled", range(6))
@pytest.mark.parametrize("after", range(8))
async def test_law_4_closing_at_any_time_leaves_nothing(pulled: int, after: int) -> None:
    generator = RecordedSource(4)
    stream = PullMapObj(generator, slow, concurrency=2, window=3)
    for _ in range(pulled):
        with contextlib.suppress(StopAsyncIteration):
            await anext(stream)
    await yield_to_loop(after)
    await asyncio.gather(stream.aclose(), stream.aclose())
    assert len(asyncio.all_tasks()) == 1
    assert (generator.closed_by is not None) == bool(generator.pulled_count)
    assert generator.closed_by is None or generator.tasks == {generator.closed_by}


@pytest.mark.parametrize("seed", range(60))
async def test_law_4_closing_any_stage_leaves_nothing(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    recorded = RecordedSource(30)
    started = ended = 0

    async def work(n: int) -> int:
        nonlocal started, ended
        started += 1
        try:
            try:
                await yield_to_loop(rng.randrange(6))
            finally:
                await yield_to_loop(rng.randrange(2))
        finally:
            ended += 1
        return n

    first = PullMapObj(recorded, work, concurrency=rng.randrange(2, 5), ordered=seed % 2 == 0)
    plain = first.map(work)
    second = plain.map(work, concurrency=rng.randrange(1, 5), window=8, on_cancel="keep")
    last = second.filter(lambda _: True).map(work).batch(2).flatten()
    pulls = [asyncio.ensure_future(anext(last)) for _ in range(rng.randrange(5))]
    await yield_to_loop(rng.randrange(25))
    streams: list[PullObj[int]] = [rng.choice([first, plain, second, last]), last]
    for stream in streams:
        closing = asyncio.ensure_future(stream.aclose())
        await yield_to_loop(1)
        for _ in range(rng.randrange(3)):
            await yield_to_loop(rng.randrange(5))
            closing.cancel()
        await asyncio.wait([closing])
    for outcome in await asyncio.gather(*pulls, return_exceptions=True):
        assert isinstance(outcome, (int, ClosedError, StopAsyncIteration))
    assert started == ended
    assert recorded.tasks <= {recorded.closed_by}


@pytest.mark.parametrize("pulled", [0, 1, 2])
async def test_law_4_each_closing_waits_until_it_is_done(pulled: int) -> None:
    log: list[str] = []

    class Source(SourceObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            yield 0

        async def aclose(self) -> None:
            await yield_to_loop(5)
            log.append("closed")

    async def close() -> None:
        await stream.aclose()
        log.append("done")

    stream = PullMapObj(Source(), slow, concurrency=2)
    for _ in range(pulled):
        await anext(stream, 0)
    await asyncio.gather(close(), close(), close())
    assert log == ["closed", "done", "done", "done"]


async def test_law_4_source_is_closed_in_an_uncancelled_task() -> None:
    pending: list[int] = []

    async def source() -> AsyncIterator[int]:
        try:
            for n in itertools.count():
                yield n
        finally:
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            pending.append(task.cancelling())

    async with PullMapObj(source(), slow, concurrency=2) as stream:
        assert await anext(stream) == 0
        await yield_to_loop(9)
    assert pending == [0]


async def test_law_4_item_after_closing_starts_no_call() -> None:
    called: list[int] = []

    class Stubborn(SourceObj[int]):
        async def __anext__(self) -> int:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return 1

    async def work(n: int) -> None:
        called.append(n)

    stream = PullMapObj(Stubborn(), work, concurrency=2)
    pull = asyncio.create_task(anext(stream))
    await yield_to_loop(5)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await pull
    assert called == []


async def test_law_4_closing_frees_results_not_pulled() -> None:
    class Result:
        pass

    made: list[weakref.ref[Result]] = []

    async def work(_: int) -> Result:
        result = Result()
        made.append(weakref.ref(result))
        return result

    stream = PullMapObj(range(9), work, concurrency=3)
    await anext(stream)
    # One was delivered, three wait to be pulled, and three are queued behind those.
    await until(lambda: len(made) == 7)
    await quiet()
    await stream.aclose()
    gc.collect()
    assert [result() for result in made] == [None] * 7


async def test_law_4_source_is_closed_without_a_pull() -> None:
    generator = RecordedSource(1).__aiter__()
    stream = PullMapObj(generator, slow, concurrency=2)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


async def test_law_4_errors_of_closing_are_raised_once() -> None:
    async def work(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError(n)

    async def broken() -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
            await asyncio.Event().wait()
        finally:
            raise LookupError("source")

    stream = PullMapObj(broken(), work, concurrency=2)
    pull = asyncio.create_task(anext(stream))
    await yield_to_loop(5)
    with pytest.raises(ExceptionGroup, match="failed to close") as caught:
        await stream.aclose()
    kinds = Counter(type(error) for error in caught.value.exceptions)
    assert kinds == {ValueError: 2, LookupError: 1}
    assert {n for error in caught.value.exceptions for n in getattr(error, "__notes__", [])} == {
        f"raised by transform of PullMapObj: item {n}" for n in (0, 1)
    }
    with pytest.raises(ClosedError):
        await pull
    await stream.aclose()


async def test_law_4_errors_not_pulled_are_not_logged() -> None:
    async def work(n: int) -> int:
        await yield_to_loop(n % 2)
        raise ValueError(n)

    async with PullMapObj(range(9), work, concurrency=4) as stream:
        with pytest.raises(ValueError, match="0"):
            await anext(stream)
        await yield_to_loop(5)
    del stream
    gc.collect()


async def test_law_4_return_and_throw_call_a_source_override() -> None:
    class Source(SourceObj[int]):
        ended_by: Any = None

        async def pull_impl(self) -> AsyncIterator[int]:
            for n in itertools.count():
                yield n

        async def return_(self, value: Any = None) -> IteratorResult[Any]:
            self.ended_by = asyncio.current_task()
            return IteratorResult(("mine", value), True)

        async def throw(self, error: BaseException) -> IteratorResult[Any]:
            raise LookupError from error

    source = Source()
    stream = source.map(slow, concurrency=2).map(lambda n: n)
    assert await anext(stream) == 0
    assert await stream.return_(5) == IteratorResult(("mine", 5), True)
    assert source.ended_by not in {None, asyncio.current_task()}
    stream = Source().map(slow, concurrency=2).map(lambda n: n)
    assert await anext(stream) == 0
    with pytest.raises(LookupError):
        await stream.throw(ValueError())
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_5_dropped_stream_warns_and_ends_its_calls() -> None:
    generator = RecordedSource(10)
    ended: list[int] = []

    async def work(n: int) -> int:
        if n == 0:
            return n
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(n)
        return n

    streams = [PullMapObj(generator, work, concurrency=3).map(lambda n: n)]
    assert await anext(streams[0]) == 0
    await yield_to_loop(5)
    with pytest.warns(ResourceWarning, match="unclosed <PullMapObj: 3 of 3 calls run>"):
        streams.clear()
    await yield_to_loop(12)
    assert len(asyncio.all_tasks()) == 1
    assert sorted(ended) == [1, 2, 3]
    assert generator.tasks == {generator.closed_by}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("after", range(12))
async def test_law_5_drop_at_any_time_ends_everything(variant: dict[str, Any], after: int) -> None:
    recorded = RecordedSource(14)
    streams = [PullMapObj(recorded, slow, **variant)]
    await anext(streams[0])
    pull = asyncio.ensure_future(anext(streams[0]))
    await yield_to_loop(after)
    pull.cancel()
    await asyncio.wait([pull])
    del pull
    with pytest.warns(ResourceWarning, match="unclosed <PullMapObj"):
        streams.clear()
        gc.collect()
    await yield_to_loop(12)
    assert len(asyncio.all_tasks()) == 1
    assert recorded.tasks == {recorded.closed_by}


async def test_law_5_ended_or_closed_stream_drops_silently() -> None:
    class Item:
        pass

    async def same(item: Item) -> Item:
        await asyncio.sleep(0)
        return item

    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for variant in VARIANTS:
                for count in (2, 5):
                    stream = PullMapObj([Item() for _ in range(4)], same, **variant)
                    item = await anext(stream)
                    for _ in range(count - 1):
                        item = await anext(stream, item)
                    if count == 2:
                        await stream.aclose()
                    stream_ref, source_ref = weakref.ref(stream), weakref.ref(stream.source)
                    del stream, item
                    await yield_to_loop(2)
                    assert stream_ref() is None
                    assert source_ref() is None
    finally:
        gc.enable()


async def test_law_5_errors_make_no_reference_cycle() -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        raise own_error(n)

    class own_error(ValueError):  # noqa: N801 - an exception type of its own
        pass

    gc.collect()
    gc.disable()
    try:
        stream = PullMapObj([1], work, concurrency=2)
        with pytest.raises(own_error) as caught:
            await anext(stream)
        stream_ref = weakref.ref(caught.value)
        del caught
        await stream.aclose()
        del stream
        assert stream_ref() is None
    finally:
        gc.enable()


def test_law_5_stream_does_not_delay_program_exit() -> None:
    ended: list[Any] = []
    streams: list[Any] = []

    async def work(n: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)
        return n

    async def source() -> AsyncIterator[int]:
        try:
            for n in range(5):
                yield n
        finally:
            ended.append("source")

    async def main() -> None:
        streams.append(PullMapObj(source(), work, concurrency=2))
        pull = asyncio.create_task(anext(streams[0]))
        await yield_to_loop(5)
        pull.cancel()

    asyncio.run(main())
    assert set(ended) == {0, 1, "source"}
    assert ended[-1] == "source"


@pytest.mark.parametrize("seed", range(20))
def test_law_4_closing_waits_for_the_tasks_of_ended_calls(seed: int) -> None:
    print("seed", seed)

    async def ready(n: int) -> int:
        return n

    async def main() -> None:
        stream = PullMapObj(range(9), ready, concurrency=3)
        for _ in range(seed % 4 + 1):
            await anext(stream)
        await stream.aclose()
        assert len(asyncio.all_tasks()) == 1

    with asyncio.Runner(loop_factory=shuffled_loop(seed)) as runner:
        runner.run(main())
