"""`SqliteStore`: results in a file, for several processes; damaged, read-only and locked files; values that cannot be pickled."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
import threading
import time
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ClosedError, StoreError
from headrace._internal.reprs import short_repr
from headrace.cache import Cache, CacheStore, SqliteStore
from headrace.cache._call_key import CallKey
from tests.cache_support import Calls, cache_of, count_rows, identity
from tests.support import Heart, eventually, quiet, until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "results.db"


def files_beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


async def test_results_survive_the_store(path: Path) -> None:
    calls = Calls()
    for item in ("a", "a", "b"):
        async with cache_of(SqliteStore(path)) as cache:
            assert await cache.wrap(calls)(item) == (item, "result")
    assert calls.begun == ["a", "b"]
    # The log is copied into the file at the end.
    assert files_beside(path) == ["results.db"]
    assert count_rows(path) == 2


async def test_result_is_visible_before_it_is_written(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        async with cache_of(SqliteStore(path)) as cache:
            ask = cache.wrap(Calls())
            # Another process holds the file, so that nothing can be written.
            other.execute("BEGIN IMMEDIATE")
            first = await ask("a")
            second = await ask("a")
            assert first == second
            # Each caller has an object of its own.
            assert first is not second
            assert cache.stats().hits == 1
            other.execute("COMMIT")
        assert count_rows(path) == 1


async def test_writes_do_not_block_the_loop(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        store = SqliteStore(path, max_unwritten=10)
        async with cache_of(store) as cache:
            ask = cache.wrap(Calls())
            other.execute("BEGIN IMMEDIATE")
            callers = [asyncio.create_task(ask(str(number))) for number in range(30)]
            async with Heart() as heart:
                await quiet()
                before = heart.beats
                # The first batch of the thread has one result or more; those above ten unwritten ones wait.
                await until(lambda: sum(caller.done() for caller in callers) >= 10)
                await quiet()
                assert heart.beats > before
                assert sum(caller.done() for caller in callers) <= 11
            # A caller that leaves now has paid: its result is accepted already.
            callers[-1].cancel()
            await asyncio.wait([callers[-1]])
            other.execute("COMMIT")
            await asyncio.wait(callers)
    assert count_rows(path) == 30


async def test_ttl_is_wall_clock_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("time.time", lambda: now)
    calls = Calls()
    async with cache_of(SqliteStore(path), ttl=10) as cache:
        ask = cache.wrap(calls)
        await ask("a")
        now = 1_009.0
        await ask("a")
        assert len(calls.begun) == 1
        now = 1_010.0
        await ask("a")
        assert len(calls.begun) == 2
        # The clock is set back: the result lives longer.
        now = 500.0
        await ask("a")
        assert len(calls.begun) == 2
    async with cache_of(SqliteStore(path), ttl=None) as cache:
        ask = cache.wrap(calls)
        now = 1_019.0
        await ask("a")
        assert len(calls.begun) == 2
        now = 1_021.0
        await ask("b")
    # Expired results are deleted at the first write.
    assert count_rows(path) == 1


@pytest.mark.virtual
async def test_virtual_clock_waits_for_the_disk(path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(1):
        async with cache_of(SqliteStore(path, max_unwritten=1)) as cache:
            ask = cache.wrap(Calls())
            await asyncio.gather(*(ask(str(number)) for number in range(100)))
        assert loop.time() < 1
    assert count_rows(path) == 100


async def test_value_that_cannot_be_pickled_is_warned_of_once(path: Path) -> None:
    async def fn(item: str) -> Any:
        return lambda: item

    async with cache_of(SqliteStore(path)) as cache:
        ask = cache.wrap(fn)
        with pytest.warns(
            RuntimeWarning, match="fn is delivered, but not stored: .*cannot be pickled"
        ):
            assert (await ask("a"))() == "a"
            await quiet()
        assert (await ask("a"))() == "a"
        await quiet()
        assert (cache.stats().flights, cache.stats().stored) == (2, 0)
    assert count_rows(path) == 0


class Moved:
    pass


async def test_value_that_cannot_be_unpickled_is_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Any] = [Moved(), "new"]

    async def fn(item: str) -> Any:
        return results.pop(0)

    async with cache_of(SqliteStore(path)) as cache:
        ask = cache.wrap(fn, version="1")
        assert isinstance(await ask("a"), Moved)
        monkeypatch.delattr(f"{__name__}.Moved")
        assert [await ask("a"), await ask("a")] == ["new", "new"]


async def test_concurrent_loops_share_a_store(path: Path) -> None:
    store = SqliteStore(path)
    ask = cache_of(store).wrap(Calls.__call__, version="1", key=lambda _, item: item)
    errors: list[BaseException] = []

    async def work(number: int) -> None:
        for item in range(200):
            assert await ask(Calls(iterations=0), item % 100 + number * 50) is not None

    def run(number: int) -> None:
        try:
            asyncio.run(work(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await store.aclose()
    assert errors == []
    assert count_rows(path) == 250


async def test_a_thread_without_a_loop_may_fill_the_store(path: Path) -> None:
    store = SqliteStore(path, max_unwritten=1)

    def put() -> None:
        for number in range(100):
            assert store.put(str(number).encode(), number, None) is None

    await asyncio.to_thread(put)
    await store.aclose()
    assert count_rows(path) == 100


async def test_written_results_are_not_kept_in_memory(path: Path) -> None:
    store = SqliteStore(path, max_unwritten=1)
    tracemalloc.start()
    try:
        for key in (b"1", b"2"):
            store.put(key, b"x" * 10_000_000, None)
        await eventually(lambda: count_rows(path) == 2)
        await eventually(lambda: tracemalloc.get_traced_memory()[0] < 10_000_000)
    finally:
        tracemalloc.stop()
        await store.aclose()


async def test_store_works_after_its_thread_could_not_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = SqliteStore(path)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            store.put(b"1", 1, None)
    store.put(b"2", 2, None)
    async with asyncio.timeout(30):
        await store.aclose()
    assert count_rows(path) == 2


async def test_closed_store_is_refused(path: Path) -> None:
    store = SqliteStore(path)
    store.put(b"1", 1, None)
    await store.aclose()
    await store.aclose()
    for use in (lambda: store.get(b"1", 0), lambda: store.put(b"1", 0, None)):
        with pytest.raises(ClosedError, match=r"results\.db is closed"):
            use()
    assert count_rows(path) == 1


async def test_store_may_be_closed_several_times(path: Path) -> None:
    for _ in range(20):
        store = SqliteStore(path)
        store.put(b"1", 1, None)
        # The thread may still be running when its last future is resolved.
        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()


async def test_cancelled_closing_writes(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        store = SqliteStore(path)
        other.execute("BEGIN IMMEDIATE")
        store.put(b"1", 1, None)
        task = asyncio.create_task(store.aclose())
        for _ in range(3):
            await quiet()
            task.cancel()
        assert not task.done()
        other.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await task
    assert count_rows(path) == 1


async def test_results_that_cannot_be_written_are_reported(path: Path) -> None:
    store = SqliteStore(path)
    connection: Any = store._writer._connection
    # As of a full disk.
    connection.execute(
        f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}"
    )
    with pytest.raises(
        StoreError, match=r"results\.db lacks 3 results, .*: database or disk is full"
    ):
        async with cache_of(store) as cache:
            ask = cache.wrap(Calls())
            large = "a" * 100_000
            assert (await ask(large))[0] == large
            await eventually(lambda: store._writer.error is not None)
            with pytest.warns(RuntimeWarning, match="cannot be written: database or disk is full"):
                assert (await ask("b" * 100_000))[1] == "result"
                await quiet()
            assert (await ask("c" * 100_000))[1] == "result"
    assert count_rows(path) == 0


def damage(path: Path) -> None:
    path.write_bytes(b"This is no database, but a text. " * 1_000)


def overwrite(path: Path, start: int, end: int | None) -> None:
    content = bytearray(path.read_bytes())
    content[start:end] = b"\xff" * len(content[start:end])
    path.write_bytes(content)


def damage_header(path: Path) -> None:
    asyncio.run(SqliteStore(path).aclose())
    overwrite(path, 60, 4096)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE results (a)")


def newer(path: Path) -> None:
    asyncio.run(SqliteStore(path).aclose())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda path: path.mkdir(), "is a directory; path must name a file"),
        (damage, "is damaged, or is no database; delete it, or name a new file: file is not a"),
        (damage_header, "results.db"),
        (foreign, "is a database of another program; name a new file"),
        (newer, "was written by a newer headrace, in format 7; this one knows format 1"),
    ],
)
def test_unfit_file_is_refused_and_left_alone(path: Path, prepare: Any, text: str) -> None:
    prepare(path)
    before = path.is_dir() or path.read_bytes()
    with pytest.raises(StoreError, match=f"results.db .*{text}" if " " in text else text):
        SqliteStore(path)
    assert (path.is_dir() or path.read_bytes()) == before
    assert files_beside(path) == ["results.db"]


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"x/results\.db is in a directory that does not exist"):
        SqliteStore(tmp_path / "x" / "results.db")


def test_locked_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.cache.sqlite._OPEN_WAIT", 0.05)
    asyncio.run(SqliteStore(path).aclose())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="is locked by another process"):
            SqliteStore(path)


async def test_damage_after_opening_is_an_error_of_the_caller(path: Path) -> None:
    calls = Calls(iterations=0)
    async with cache_of(SqliteStore(path)) as cache:
        for number in range(500):
            await cache.wrap(calls, version="1")(number)
    overwrite(path, 4096, None)
    async with cache_of(SqliteStore(path)) as cache:
        with pytest.raises(StoreError, match=r"results\.db cannot be read: .*malformed"):
            await cache.wrap(calls, version="1")(1)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"path": 3}, TypeError, "path must be a str"),
        ({"path": "x", "max_unwritten": 0}, ValueError, "max_unwritten must be at least 1"),
    ],
)
def test_law_14_sqlite_refuses(options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SqliteStore(**options)


async def test_store_follows_the_protocol_and_is_not_copied(path: Path) -> None:
    store = SqliteStore(path)
    assert isinstance(store, CacheStore)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        pickle.dumps(store)
    assert repr(store) == f"<SqliteStore: {short_repr(str(path))}, open>"
    await store.aclose()
    assert repr(store) == f"<SqliteStore: {short_repr(str(path))}, closed>"


@pytest.mark.loops("asyncio")
async def test_hit_is_cheap_with_many_entries(path: Path) -> None:
    count = 100_000
    key = CallKey(_answer, identity, "1")
    await SqliteStore(path).aclose()
    with closing(sqlite3.connect(path)) as connection:
        results = ((key.of((n,), {}), pickle.dumps(f"{n}" * 40, 5)) for n in range(count))
        connection.executemany("INSERT INTO results (key, value) VALUES (?, ?)", results)
        connection.commit()
    async with Cache(SqliteStore(path), key=identity) as cache:
        ask = cache.wrap(_answer, version="1")
        best = float("inf")
        for chunk in range(40):
            # The processor's time of this thread, in the best of many chunks: other programs run on the machine.
            begin = time.thread_time()
            for number in range(500):
                await ask((chunk * 500 + number) * 7919 % count)
            best = min(best, (time.thread_time() - begin) / 500)
        assert (cache.stats().hits, cache.stats().flights) == (20_000, 0)
    assert best < 20e-6, f"{best * 1e6:.1f} us"


async def _answer(number: int) -> str:
    return f"{number}" * 40
