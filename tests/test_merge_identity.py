"""Each source of a merge runs in its own task and context, as if it were alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    PullObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
)
from tests.support import quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MERGES: list[Callable[..., PullObj[Any]]] = [
    PullRaceObj,
    PullRoundRobinObj,
    PullRaceRobinObj,
    PullZipObj,
]
NAMES = "abcde"

where: ContextVar[str] = ContextVar("where", default="nowhere")


def flat(items: list[Any]) -> list[Any]:
    return [part for item in items for part in (item if isinstance(item, tuple) else (item,))]


async def count_merged(
    make: Callable[..., PullObj[Any]], source: Callable[[str], AsyncIterator[str]]
) -> Counter[str]:
    """Count the items of five merged sources. The merge must not affect the task and context of the consumer."""
    consumer = asyncio.current_task()
    assert consumer is not None
    items: list[Any] = []
    async with make(*map(source, NAMES)) as stream:
        async for item in stream:
            items.append(item)
            assert asyncio.current_task() is consumer
            assert consumer.cancelling() == 0
            assert where.get() == "nowhere"
    assert len(asyncio.all_tasks()) == 1
    return Counter(flat(items))


async def count_unmerged(source: Callable[[str], AsyncIterator[str]]) -> Counter[str]:
    """Count the items of five sources, each read in its own task."""

    async def read(name: str) -> list[str]:
        return [item async for item in source(name)]

    lists = await asyncio.gather(*(read(name) for name in NAMES))
    return Counter(item for items in lists for item in items)


@pytest.mark.virtual
@pytest.mark.parametrize("make", MERGES)
async def test_timeouts_may_span_a_yield(make: Callable[..., PullObj[Any]]) -> None:
    async def source(name: str) -> AsyncIterator[str]:
        for number in range(4):
            try:
                async with asyncio.timeout(1):
                    yield f"{name}{number}"
                    await asyncio.sleep(3 if number % 2 else 0.1)
                yield f"{name}{number} done"
            except TimeoutError:
                yield f"{name}{number} late"

    assert await count_merged(make, source) == await count_unmerged(source)


@pytest.mark.parametrize("make", MERGES)
async def test_task_groups_may_span_a_yield(make: Callable[..., PullObj[Any]]) -> None:
    async def helper(name: str) -> str:
        await asyncio.sleep(0)
        return name

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def source(name: str) -> AsyncIterator[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(helper(name)) for _ in range(3)]
            for task in tasks:
                yield f"{name} waits"
                yield await task
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                yield f"{name} fails"
                await asyncio.Event().wait()
        except ExceptionGroup as group_error:
            yield f"{name} {len(group_error.exceptions)}"

    assert await count_merged(make, source) == await count_unmerged(source)


@pytest.mark.parametrize("make", MERGES)
async def test_context_tokens_may_span_a_yield(make: Callable[..., PullObj[Any]]) -> None:
    async def source(name: str) -> AsyncIterator[str]:
        token = where.set(name)
        task = asyncio.current_task()
        try:
            for yields in range(4):
                yield where.get()
                for _ in range(yields):
                    await asyncio.sleep(0)
                assert asyncio.current_task() is task
        finally:
            assert asyncio.current_task() is task
            where.reset(token)
            assert where.get() == "nowhere"

    assert await count_merged(make, source) == dict.fromkeys(NAMES, 4)


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("make", MERGES)
async def test_anyio_scopes_may_span_a_yield(make: Callable[..., PullObj[Any]]) -> None:
    anyio = pytest.importorskip("anyio")

    async def source(name: str) -> AsyncIterator[str]:
        with anyio.move_on_after(0.01) as scope:
            yield f"{name} begins"
            await anyio.sleep_forever()
        yield f"{name} {scope.cancelled_caught}"

    assert await count_merged(make, source) == await count_unmerged(source)


@pytest.mark.parametrize("make", MERGES)
async def test_async_callable_of_a_source_has_one_task(make: Callable[..., PullObj[Any]]) -> None:
    tasks: dict[str, set[Any]] = {name: set() for name in NAMES}

    async def transform(name: str) -> str:
        where.set(name)
        tasks[name].add(asyncio.current_task())
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            tasks[name].add(asyncio.current_task())
        return name

    items = await count_merged(make, lambda name: SourceIterObj([name] * 3).map(transform))
    assert items == dict.fromkeys(NAMES, 3)
    assert all(len(log) == 1 for log in tasks.values())
    assert len(set.union(*tasks.values())) == 5


async def test_timeout_in_a_source_does_not_affect_others() -> None:
    async def slow() -> AsyncIterator[int]:
        for number in range(10):
            await asyncio.sleep(0)
            yield number

    async def late() -> AsyncIterator[int]:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        yield 0

    items: list[int] = []
    notes: list[str] = []
    errors = 0
    async with PullRaceObj(slow(), late()) as race:
        while True:
            try:
                items.append(await anext(race))
            except TimeoutError as error:
                errors += 1
                notes = error.__notes__
            except StopAsyncIteration:
                break
    assert (items, errors) == (list(range(10)), 1)
    assert notes == [f"raised by source 1 of PullRaceObj, {late.__qualname__}"]


async def test_source_may_cancel_itself() -> None:
    async def source() -> AsyncIterator[int]:
        task = asyncio.current_task()
        assert task is not None
        yield 1
        task.cancel()
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            task.uncancel()
            yield 2
        yield 3
        task.cancel()
        await asyncio.Event().wait()

    async with PullRaceObj(source()) as race:
        assert [await anext(race) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(SourceCancelledError):
            await anext(race)
        with pytest.raises(StopAsyncIteration):
            await anext(race)


async def test_source_continues_after_uncancel() -> None:
    async def source() -> AsyncIterator[int]:
        task = asyncio.current_task()
        assert task is not None
        for number in range(5):
            task.cancel()
            task.uncancel()
            yield number
            await asyncio.sleep(0)

    async with PullRaceObj(source()) as race:
        assert [item async for item in race] == list(range(5))


async def test_cancel_of_a_plain_iterator_may_be_withdrawn() -> None:
    class Source:
        def __init__(self) -> None:
            self.log: list[str] = []

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> int:
            self.task = asyncio.current_task()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.log.append("cancelled")
                raise
            return 1

    source = Source()
    async with PullRaceObj(source) as race:
        assert await anext(race) == 1
        await quiet()
        task: Any = source.task
        task.cancel()
        await quiet()
        task.uncancel()
        assert await anext(race) == 1


async def test_bad_awaitable_is_an_error_of_its_source() -> None:
    class Bad:
        def __init__(self, yielded: object) -> None:
            self.yielded = yielded

        def __await__(self) -> Any:
            yield self.yielded

    other = asyncio.new_event_loop()

    async def source(yielded: object) -> AsyncIterator[int]:
        yield 1
        await Bad(yielded)

    async def foreign() -> AsyncIterator[int]:
        yield 1
        await other.create_future()

    async def bare() -> AsyncIterator[int]:
        yield 1
        await Bad(asyncio.get_running_loop().create_future())

    bad: list[tuple[Callable[[], AsyncIterator[int]], str]] = [
        (lambda: source(3), "cannot wait for: 3"),
        (bare, "instead of awaiting it"),
        (foreign, "of another event loop"),
    ]
    for make, message in bad:
        async with PullRaceObj(make()) as race:
            assert await anext(race) == 1
            with pytest.raises(RuntimeError, match=message):
                await anext(race)
            with pytest.raises(StopAsyncIteration):
                await anext(race)
    other.close()


async def test_future_that_fails_raises_in_the_source() -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]

    async def source() -> AsyncIterator[object]:
        for future in futures:
            try:
                yield await future
            except (ValueError, asyncio.CancelledError) as error:
                yield type(error)

    async with PullRaceObj(source()) as race:
        pulls = [asyncio.ensure_future(anext(race)) for _ in futures]
        await quiet()
        futures[0].set_result(5)
        futures[1].set_exception(ValueError())
        futures[2].cancel()
        assert await asyncio.gather(*pulls) == [5, ValueError, asyncio.CancelledError]


async def test_task_is_named_after_its_source() -> None:
    async def source() -> AsyncIterator[str]:
        task = asyncio.current_task()
        assert task is not None
        assert task in asyncio.all_tasks()
        yield task.get_name()

    async with AsyncIteratorCombiner([""], source()).race_generator() as race:
        names = [await anext(race), await anext(race)]
    assert names[1] == f"source 1 of AsyncIteratorCombiner, {source.__qualname__}"


async def test_law_12_source_cannot_wait_for_itself() -> None:
    races: list[Any] = []

    async def at_once() -> AsyncIterator[Any]:
        yield await anext(races[0])

    async def later() -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield await anext(races[0])

    async def closes() -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        await races[0].aclose()
        yield 1

    for source in (at_once, later, closes):
        for is_mapped in (False, True):
            race: PullObj[Any] = PullRaceObj(source(), [1])
            races[:] = [race.map(str) if is_mapped else race]
            log: list[str] = []
            async with races[0]:
                for _ in range(2):
                    try:
                        log.append(str(await anext(races[0])))
                    except RuntimeError as error:
                        log.append(str(error))
            assert any("a source cannot pull or close the merge" in text for text in log), log


async def test_task_exists_before_the_first_step() -> None:
    class Source(SourceObj[int]):
        def __aiter__(self) -> Any:
            self.made_by = asyncio.current_task()
            where.set("source")
            return self

        async def __anext__(self) -> int:
            assert asyncio.current_task() is self.made_by
            assert where.get() == "source"
            return 1

    source = Source()
    async with PullRaceObj(source) as race:
        assert await anext(race) == 1
        assert source.made_by is not asyncio.current_task()
        assert where.get() == "nowhere"


PROGRAM = """
import asyncio
from headrace import PullRaceObj

async def source():
    task = asyncio.current_task()
    for _ in range(3):
        yield task
        assert asyncio.current_task() is task
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
    try:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    except TimeoutError:
        yield task

async def main():
    me = asyncio.current_task()
    tasks = []
    async with PullRaceObj(source(), source()) as race:
        async for task in race:
            assert asyncio.current_task() is me
            tasks.append(task)
    assert len(tasks) == 8 and len(set(tasks)) == 2 and me not in tasks

asyncio.run(main())
"""


@pytest.mark.parametrize("refused", ["", "current_tasks", "current_tasks,swap_current_task"])
def test_current_task_is_set_by_what_python_offers(refused: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "HEADRACE_NO_PRIVATE_LAYOUTS": refused},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
