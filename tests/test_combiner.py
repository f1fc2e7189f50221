"""`AsyncIteratorCombiner`: order, read-ahead, rotation, cancellation, errors and construction."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    IteratorResult,
    PushPullBufferObj,
    SourceBufferObj,
    SourceCancelledError,
    SourceObj,
)
from tests.support import quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

where: ContextVar[str] = ContextVar("where", default="nowhere")


async def ready(name: str, count: int) -> AsyncIterator[tuple[str, int]]:
    """Yield items without waiting."""
    for index in range(count):
        yield name, index


async def slow(name: str, count: int, iterations: int = 1) -> AsyncIterator[tuple[str, int]]:
    """Yield items that take some loop iterations each."""
    for index in range(count):
        for _ in range(iterations):
            await asyncio.sleep(0)
        yield name, index


def in_order(items: list[tuple[str, int]]) -> bool:
    """Return whether the items of each source arrived in order, each once."""
    seen: Counter[str] = Counter()
    for name, index in items:
        if seen[name] != index:
            return False
        seen[name] += 1
    return True


async def test_race_yields_the_items_of_all_sources() -> None:
    sources = [ready("a", 5), slow("b", 3), slow("c", 7, 4)]
    async with AsyncIteratorCombiner(*sources).race_generator() as race:
        items = [item async for item in race]
    assert in_order(items)
    assert Counter(name for name, _ in items) == {"a": 5, "b": 3, "c": 7}


async def test_items_are_yielded_as_they_are_ready() -> None:
    left: PushPullBufferObj[str] = PushPullBufferObj()
    right: PushPullBufferObj[str] = PushPullBufferObj()
    async with AsyncIteratorCombiner(left.source, right.source).race_generator() as race:
        for buffer, item in ((right, "r1"), (left, "l1"), (right, "r2"), (right, "r3")):
            await buffer.sink.next(item)
            assert await anext(race) == item


async def test_source_may_be_any_iterable() -> None:
    class Stream:
        def __aiter__(self) -> AsyncIterator[int]:
            return self.items()

        async def items(self) -> AsyncIterator[int]:
            yield 1

    class Old:
        def __getitem__(self, index: int) -> int:
            return [2][index]

    class Own(SourceObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            yield 3

    old: Any = Old()
    combiner = AsyncIteratorCombiner(
        Stream(), old, Own(), SourceBufferObj([4]), [5], iter([6]), range(7, 8)
    )
    assert sorted([item async for item in combiner.race_generator()]) == [1, 2, 3, 4, 5, 6, 7]


async def test_nothing_runs_before_the_first_pull() -> None:
    began: list[str] = []

    class Stream:
        def __aiter__(self) -> AsyncIterator[int]:
            began.append("aiter")
            return self.items()

        async def items(self) -> AsyncIterator[int]:
            began.append("step")
            yield 1

    race = AsyncIteratorCombiner(Stream()).race_generator()
    await quiet()
    assert (began, len(asyncio.all_tasks())) == ([], 1)
    assert await anext(race) == 1
    assert began == ["aiter", "step"]
    await race.aclose()


async def test_read_ahead_is_one_item_a_source() -> None:
    pulled: Counter[str] = Counter()

    async def count(name: str) -> AsyncIterator[str]:
        while True:
            pulled[name] += 1
            yield name

    async with AsyncIteratorCombiner(count("a"), count("b")).race_generator() as race:
        for pulls in range(1, 20):
            await anext(race)
            await quiet()
            # Both sources are pulled again, for one item each, once both items were taken.
            each = (pulls + 1) // 2
            assert pulled == {"a": each, "b": each}


async def test_read_ahead_of_waiting_sources_is_one_item() -> None:
    pulled: Counter[str] = Counter()

    async def count(name: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        while True:
            pulled[name] += 1
            yield name

    async with AsyncIteratorCombiner(count("a"), count("b")).race_generator() as race:
        await anext(race)
        await quiet()
        # One of the two items was taken; its source is pulled again only by the next pull.
        assert pulled == {"a": 1, "b": 1}
        for pulls in range(2, 20):
            await anext(race)
            await quiet()
            assert pulled.total() == pulls + 1


@pytest.mark.parametrize("waits", [(0,), (3,), (0, 3), (1, 2, 3)])
async def test_waiting_and_ready_sources_rotate(waits: tuple[int, ...]) -> None:
    async def source(number: int) -> AsyncIterator[int]:
        if number in waits:
            await asyncio.sleep(0)
        for _ in range(50):
            yield number

    async with AsyncIteratorCombiner(*map(source, range(4))).race_generator() as race:
        await anext(race)
        # The sources that wait have their first item ready now.
        await quiet()
        items = [await anext(race) for _ in range(100)]
    for start in range(len(items) - 4):
        assert set(items[start : start + 4]) == set(range(4))


async def test_many_ready_sources_rotate() -> None:
    names = [str(number) for number in range(7)]
    async with AsyncIteratorCombiner(*(ready(name, 50) for name in names)).race_generator() as race:
        items = [await anext(race) for _ in range(7 * 20)]
    for start in range(len(items) - 7):
        assert {name for name, _ in items[start : start + 7]} == set(names)


async def test_ready_source_starves_no_other() -> None:
    event = asyncio.Event()

    async def waits() -> AsyncIterator[str]:
        await event.wait()
        yield "waited"

    def forever() -> Iterator[str]:
        while True:
            yield "ready"

    async with AsyncIteratorCombiner(forever(), waits()).race_generator() as race:
        for _ in range(10):
            assert await anext(race) == "ready"
        event.set()
        await quiet()
        assert "waited" in [await anext(race) for _ in range(2)]


async def test_cancelled_pull_loses_nothing() -> None:
    chance = random.Random(5)
    sources = [slow(name, 50, iterations) for name, iterations in (("a", 1), ("b", 3), ("c", 8))]
    items: list[tuple[str, int]] = []
    async with AsyncIteratorCombiner(*sources).race_generator() as race:
        while True:
            pulling = asyncio.ensure_future(anext(race))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            pulling.cancel()
            try:
                items.append(await pulling)
            except asyncio.CancelledError:
                pass
            except StopAsyncIteration:
                break
            if len(items) < 150:
                items.append(await anext(race))
    assert in_order(items)
    assert len(items) == 150


async def test_concurrent_pulls_are_all_served() -> None:
    async with AsyncIteratorCombiner(slow("a", 6)).race_generator() as race:
        items = await asyncio.gather(*(anext(race) for _ in range(6)))
    assert [index for _, index in items] == list(range(6))


async def test_each_source_has_its_own_task_and_context() -> None:
    async def source(name: str) -> AsyncIterator[str]:
        token = where.set(name)
        task = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                helper = group.create_task(asyncio.sleep(0, name))
                for _ in range(3):
                    yield name
                    await asyncio.sleep(0)
                    assert where.get() == name
                    assert asyncio.current_task() is task
                assert await helper == name
            try:
                async with asyncio.timeout(0):
                    yield name
                    await asyncio.Event().wait()
            except TimeoutError:
                yield f"{name} in time"
        finally:
            assert asyncio.current_task() is task
            where.reset(token)

    names = list("abcde")
    async with AsyncIteratorCombiner(*map(source, names)).race_generator() as race:
        items = [item async for item in race]
    assert Counter(items) == dict.fromkeys(names, 4) | {f"{name} in time": 1 for name in names}
    assert where.get() == "nowhere"


async def test_timeout_interrupts_a_source_at_its_yield() -> None:
    timed_out = asyncio.Event()
    resumed = 0

    async def source() -> AsyncIterator[int]:
        nonlocal resumed
        try:
            async with asyncio.timeout(0):
                yield 1
        except TimeoutError:
            timed_out.set()
        for number in (2, 3):
            resumed += 1
            yield number

    async with AsyncIteratorCombiner(source()).race_generator() as race:
        assert await anext(race) == 1
        await timed_out.wait()
        await quiet()
        # The source ran to its next `yield`, and no further before the next pull.
        assert resumed == 1
        assert [item async for item in race] == [2, 3]


# Errors.


async def test_error_reaches_the_consumer_once() -> None:
    raised = ValueError("bad")

    async def fails() -> AsyncIterator[tuple[str, int]]:
        yield "f", 0
        raise raised

    items: list[tuple[str, int]] = []
    errors: list[ValueError] = []
    async with AsyncIteratorCombiner(slow("a", 5), fails()).race_generator() as race:
        while True:
            try:
                items.append(await anext(race))
            except ValueError as error:
                errors.append(error)
            except StopAsyncIteration:
                break
    assert len(items) == 6
    assert errors == [raised]
    [note] = raised.__notes__
    assert note.startswith("raised by source 1 of AsyncIteratorCombiner, test_error_reaches")


async def test_source_may_continue_after_its_error() -> None:
    class Flaky(SourceObj[int]):
        def __init__(self) -> None:
            super().__init__()
            self.pulls = 0

        async def __anext__(self) -> int:
            self.pulls += 1
            if self.pulls == 2:
                raise ValueError(self.pulls)
            if self.pulls == 4:
                raise StopAsyncIteration
            return self.pulls

    race = AsyncIteratorCombiner(Flaky()).race_generator()
    assert await anext(race) == 1
    with pytest.raises(ValueError):
        await anext(race)
    assert [item async for item in race] == [3]


async def test_failing_aiter_is_an_error_and_ends_its_source() -> None:
    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise ValueError("no")

    race = AsyncIteratorCombiner(Broken(), [1]).race_generator()
    seen: list[object] = []
    for _ in range(2):
        try:
            seen.append(await anext(race))
        except ValueError as error:
            seen.append(str(error))
    assert seen in ([1, "no"], ["no", 1])
    assert [item async for item in race] == []


async def test_cancelled_source_does_not_cancel_the_consumer() -> None:
    async def cancelled() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError("mine")

    race = AsyncIteratorCombiner(cancelled()).race_generator()
    assert await anext(race) == 1
    with pytest.raises(SourceCancelledError) as error:
        await anext(race)
    assert isinstance(error.value.__cause__, asyncio.CancelledError)
    assert [item async for item in race] == []


async def test_keyboard_interrupt_reaches_the_consumer() -> None:
    async def stop() -> AsyncIterator[int]:
        yield 1
        raise KeyboardInterrupt

    async with AsyncIteratorCombiner(stop()).race_generator() as race:
        assert await anext(race) == 1
        with pytest.raises(KeyboardInterrupt):
            await anext(race)


async def test_source_cannot_pull_its_own_race() -> None:
    races: list[Any] = []

    async def source() -> AsyncIterator[int]:
        yield await anext(races[0])

    races.append(AsyncIteratorCombiner(source()).race_generator())
    with pytest.raises(RuntimeError, match="cannot pull or close the merge"):
        await anext(races[0])
    assert [item async for item in races[0]] == []


# Protocols, construction.


async def test_race_is_a_pull_object() -> None:
    race = AsyncIteratorCombiner([1, 2, 3]).race_generator()
    assert await race.next() == IteratorResult(1, False)
    assert [item async for item in race.map(lambda item: item * 10)] == [20, 30]
    assert (await race.next()).done


async def test_return_and_throw_reach_the_sources() -> None:
    ended: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.append("ended")

    race = AsyncIteratorCombiner(source()).race_generator()
    await anext(race)
    assert await race.return_(5) == IteratorResult(5, True)
    assert ended == ["ended"]
    race = AsyncIteratorCombiner(source()).race_generator()
    await anext(race)
    with pytest.raises(ZeroDivisionError):
        await race.throw(ZeroDivisionError())
    assert ended == ["ended"] * 2


async def test_races_nest() -> None:
    inner = AsyncIteratorCombiner(slow("a", 5), ready("b", 5)).race_generator()
    outer = AsyncIteratorCombiner(inner, slow("c", 5)).race_generator()
    async with outer:
        items = [item async for item in outer]
    assert in_order(items)
    assert len(items) == 15


async def test_race_generator_is_always_the_same_stream() -> None:
    combiner = AsyncIteratorCombiner([1, 2, 3])
    assert combiner.race_generator() is combiner.race_generator()
    assert [item async for item in combiner.race_generator()] == [1, 2, 3]
    assert [item async for item in combiner.race_generator()] == []


async def test_thousand_sources_start_and_end() -> None:
    race = AsyncIteratorCombiner(
        *(slow(str(number), 2) for number in range(1_000))
    ).race_generator()
    async with race:
        items = [item async for item in race]
    assert in_order(items)
    assert len(items) == 2_000


async def test_race_read_to_its_end_may_be_dropped() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = [item async for item in AsyncIteratorCombiner(slow("a", 3)).race_generator()]
    assert len(items) == 3
    assert len(asyncio.all_tasks()) == 1


def test_bad_sources_of_a_combiner_are_refused() -> None:
    bad: Any = 3
    with pytest.raises(ValueError, match="sources must be one stream at least, got none"):
        AsyncIteratorCombiner()
    with pytest.raises(
        TypeError, match=r"sources\[1\] must be an iterable or an async iterable, not 3 \(int\)"
    ):
        AsyncIteratorCombiner([1], bad)
    same = [1]
    with pytest.raises(
        ValueError,
        match=r"sources\[2\] must not be sources\[0\] again, \[1\]: its items would be split",
    ):
        AsyncIteratorCombiner(same, [2], same)


@pytest.mark.parametrize("seed", range(20))
async def test_random_cancellations_deliver_each_item_once(seed: int) -> None:
    chance = random.Random(seed)
    counts = {str(number): chance.randrange(12) for number in range(chance.randint(1, 5))}
    items: list[tuple[str, int]] = []

    async def source(name: str, count: int) -> AsyncIterator[tuple[str, int]]:
        for index in range(count):
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                try:
                    async with asyncio.timeout(0):
                        yield name, index
                except TimeoutError:
                    pass
            else:
                yield name, index

    race = AsyncIteratorCombiner(*(source(*each) for each in counts.items())).race_generator()

    async def consume() -> None:
        while True:
            pulling = asyncio.ensure_future(anext(race))
            if chance.random() < 0.4:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                pulling.cancel()
            try:
                items.append(await pulling)
            except asyncio.CancelledError:
                pass
            except StopAsyncIteration:
                return

    async with race, asyncio.TaskGroup() as group:
        for _ in range(chance.randint(1, 3)):
            group.create_task(consume())
    assert sorted(items) == sorted(
        (name, index) for name, count in counts.items() for index in range(count)
    )
