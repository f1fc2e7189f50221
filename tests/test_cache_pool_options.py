"""`cache=` of the pool together with its other options, and its errors."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    CapacitySource,
    ClosedError,
    HierarchicalTaskPoolRunner,
    MapError,
    PullMapPoolObj,
    Retry,
    Task,
    WouldDeadlock,
    amap,
)
from headrace.cache import Cache, SqliteStore
from headrace.journal import read_records
from headrace.pool import ThreadExecutor
from tests.cache_support import Calls, cache_of, count_rows, identity
from tests.support import collect, until, wrong

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.virtual
async def test_flight_goes_on_through_retries() -> None:
    made: list[float] = []

    async def fn(item: str) -> str:
        made.append(asyncio.get_running_loop().time())
        if len(made) < 3:
            await asyncio.sleep(5 if len(made) == 2 else 0)
            raise ConnectionError
        return item

    async with cache_of() as cache:
        retry = Retry(retries=5, backoff=1)
        found = await amap(fn, ["a"] * 9, limit=9, retry=retry, timeout=2, cache=cache).collect()
        assert (found, len(made)) == (["a"] * 9, 3)


@pytest.mark.virtual
async def test_follower_has_its_queue_timeout() -> None:
    async def fn(item: str) -> str:
        await asyncio.sleep(10)
        return item

    async with cache_of() as cache:
        tasks = [Task(fn, "a"), Task(fn, "a", queue_timeout=3), Task(fn, "a")]
        async with HierarchicalTaskPoolRunner(tasks, 3, cache=cache).run_tasks() as run:
            events = [event async for event in run]
    kinds = [(event.task_id, type(event.error).__name__) for event in events]
    assert kinds == [(2, "TimeoutError"), (1, "NoneType"), (3, "NoneType")]


async def test_plain_functions_in_threads() -> None:
    made: list[str] = []

    def fn(item: str) -> str:
        made.append(item)
        time.sleep(0.01)
        return item

    async with cache_of() as cache:
        items = "aabba" * 3
        assert await amap(fn, items, limit=3, cache=cache).collect() == [*items]
        assert sorted(made) == ["a", "b"]
        made.clear()
        executor = ThreadExecutor()
        options: Any = {"executor": executor, "ordered": True, "cache": cache}
        assert await collect(PullMapPoolObj("cac", fn, 2, **options)) == [*"cac"]
        await executor.aclose()
        assert made == ["c"]


def test_map_takes_a_cache(tmp_path: Path) -> None:
    made: list[str] = []

    async def fn(item: str) -> str:
        made.append(item)
        return item

    async def close() -> None:
        await cache.aclose()

    path = tmp_path / "cache.db"
    for _ in range(2):
        cache = Cache(SqliteStore(path), key=identity)
        assert headrace.map(fn, "aab", limit=2, cache=cache) == [*"aab"]
        asyncio.run(close())
    # A list in the closure is part of the version of the function: it has changed.
    assert count_rows(path) in {2, 4}


@pytest.mark.parametrize("durability", ["disk", "process"])
async def test_law_18_hits_and_followers_are_recorded(tmp_path: Path, durability: Any) -> None:
    calls = Calls()
    journal = headrace.Journal(tmp_path / "run.journal", durability=durability)
    async with cache_of() as cache:
        stream = amap(calls, "aab", limit=2, journal=journal, cache=cache)
        found = await stream.collect()
        assert [key for key, _ in found] == [*"aab"]
        stream.restart()
        assert await stream.collect() == found
    records = list(read_records(tmp_path / "run.journal"))
    ended = [one for one in records if one.status != "started"]
    assert sorted((one.key, one.occurrence, one.attempts) for one in ended) == [
        ("a", 0, 1),
        ("a", 1, 0),
        ("b", 0, 1),
    ]
    # Without the cache, the journal has them all.
    assert await amap(calls, "aab", limit=2, journal=journal).collect() == found
    assert calls.begun == ["a", "b"]


async def test_store_that_is_behind_gates_calls(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.db", max_unwritten=1)
    async with Cache(store, key=identity) as cache:
        found = await amap(Calls(), range(50), limit=9, cache=cache).collect()
        assert len(found) == 50
    assert count_rows(tmp_path / "cache.db") == 50


# Errors.


async def test_errors_of_key_and_store_cost_one_item() -> None:
    def key(item: int) -> Any:
        if item == 1:
            raise ValueError("no key")
        return 0.5 if item == 2 else item

    async with cache_of(key=key) as cache:
        node = CapacitySource(1)
        found = await amap(Calls(), range(4), limit=node, errors="return", cache=cache).collect()
        kinds = [type(getattr(one, "error", None)) for one in found]
        assert kinds == [type(None), ValueError, TypeError, type(None)]
    found = await amap(Calls(), [0], limit=node, errors="return", cache=cache).collect()
    assert isinstance(found[0].error, ClosedError)
    assert node.held == 0


async def test_closing_the_cache_leaves_running_tasks() -> None:
    calls = Calls(is_open=False)
    cache = cache_of()
    stream = amap(calls, ["a"] * 3, limit=2, errors="return", cache=cache)
    results = asyncio.create_task(stream.collect())
    await until(lambda: stream.runner.snapshot().queued == 2)
    await cache.aclose()
    calls.open.set()
    found = await results
    assert found[0] == ("a", "result")
    assert [type(one.error) for one in found[1:]] == [ClosedError] * 2


async def test_pool_inside_its_own_call_is_detected() -> None:
    async with cache_of() as cache:

        async def fn(item: str) -> Any:
            return await amap(fn, [item], limit=1, cache=cache).collect()

        with pytest.raises(MapError) as failed:
            await amap(fn, ["a"], limit=1, cache=cache).collect()
        error: Any = failed.value
        while isinstance(error, MapError):
            error = error.exceptions[0]
        assert isinstance(error, WouldDeadlock)


async def test_cache_must_be_one() -> None:
    for make in (
        lambda: HierarchicalTaskPoolRunner([], 1, cache=wrong({})),
        lambda: PullMapPoolObj([], Calls(), 1, cache=wrong("file")),
        lambda: amap(Calls(), [], limit=1, cache=wrong(0)),
    ):
        with pytest.raises(TypeError, match="cache must be a Cache"):
            make()
