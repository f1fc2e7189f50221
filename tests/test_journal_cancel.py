"""A journaled run that is cancelled, left, dropped or forked at any moment, and calls of all kinds in it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    EnvelopeType,
    Final,
    HierarchicalTaskPoolRunner,
    Journal,
    JournalError,
    JournalWarning,
    RecordedError,
    Retry,
    RunStopped,
    SourceCancelledError,
    Task,
    amap,
)
from headrace.journal import read_records
from headrace.testing import Outcome, cancel_everywhere
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator

pytestmark = pytest.mark.filterwarnings("ignore:.*may be paid twice:headrace.JournalWarning")


class Calls:
    """A function that counts its calls."""

    def __init__(self) -> None:
        self.made: Counter[Any] = Counter()

    async def __call__(self, key: str) -> str:
        self.made[key] += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return f"done {key}"


def open_files(path: Path) -> list[str]:
    """Return the open descriptors of a journal and its lock."""
    links = Path("/proc/self/fd")
    if not links.exists():
        return []
    targets = [os.path.realpath(link) for link in links.iterdir()]
    return [target for target in targets if target.startswith(str(path))]


def ended(path: Path) -> set[Any]:
    """Return the keys of the calls with a result."""
    if not path.exists():
        return set()
    return {record.key for record in read_records(path) if record.status == "returned"}


def assert_free(path: Path, capacity: CapacitySource, *, is_suspended: bool = False) -> None:
    """Check that a run has left nothing behind. A suspended runner may keep the file open, without its lock."""
    assert capacity.held == 0
    gc.collect()
    left = open_files(path)
    expected = {str(path)} if is_suspended else set()
    assert set(left) <= expected, left
    Journal(path).open().close()


KEYS = ["a", "b", "c", "d"]


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("durability", ["disk", "process"])
@pytest.mark.parametrize("kind", ["amap", "runner"])
async def test_law_18_a_run_is_cancelled_everywhere(
    tmp_path: Path, durability: Any, kind: str
) -> None:
    numbers = itertools.count()

    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        path = tmp_path / f"{next(numbers)}.journal"
        capacity, calls = CapacitySource(2), Calls()

        async def work(calls: Calls) -> list[str]:
            journal = Journal(path, durability=durability)
            if kind == "amap":
                async with amap(calls, KEYS, limit=capacity, journal=journal) as stream:
                    return await stream.collect()
            tasks = [Task(calls, key, key=key) for key in KEYS]
            runner = HierarchicalTaskPoolRunner(tasks, capacity, ordered=True, journal=journal)
            return await runner.run()

        outcome = yield work(calls)
        assert outcome.cancelled or outcome.error is None
        # The traceback of the error refers to the runner, which could continue the pass.
        assert_free(path, capacity, is_suspended=kind == "runner")
        done = ended(path)
        again = Calls()
        assert await work(again) == [f"done {key}" for key in KEYS]
        assert again.made == Counter(set(KEYS) - done)
        assert_free(path, capacity, is_suspended=kind == "runner")

    assert await cancel_everywhere(case) > 0


@pytest.mark.parametrize("durability", ["disk", "process"])
@pytest.mark.parametrize("how", ["break", "raise", "abort", "drain"])
async def test_a_run_that_is_left_is_completed(tmp_path: Path, durability: Any, how: str) -> None:
    path, capacity = tmp_path / "run.journal", CapacitySource(2)

    def runner(calls: Calls) -> HierarchicalTaskPoolRunner[Any]:
        tasks = [Task(calls, key, key=key) for key in KEYS]
        return HierarchicalTaskPoolRunner(
            tasks, capacity, journal=Journal(path, durability=durability)
        )

    async def use(first: HierarchicalTaskPoolRunner[Any]) -> None:
        async with first.run_tasks() as events:
            async for _ in events:
                if how == "break":
                    break
                if how == "raise":
                    raise ValueError("the consumer")
                await (first.abort() if how == "abort" else first.drain())

    first = runner(Calls())
    try:
        await use(first)
    except ValueError:
        assert how == "raise"
    assert capacity.held == 0
    # The pass may be continued by the runner, but another may take the journal.
    done = ended(path)
    assert done
    again = Calls()
    assert len(await runner(again).run()) == len(KEYS)
    assert again.made == Counter(set(KEYS) - done)
    del first
    assert_free(path, capacity)


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("durability", ["disk", "process"])
def test_a_loop_that_ends_with_a_dropped_stream_ends(tmp_path: Path, durability: Any) -> None:
    """`asyncio.run` cancels all tasks, also the one that syncs the journal."""
    path, capacity = tmp_path / "run.journal", CapacitySource(2)
    streams = []

    async def main() -> None:
        calls = Calls()
        journal = Journal(path, durability=durability)
        stream = amap(calls, KEYS * 10, limit=capacity, journal=journal)
        streams.append(stream)
        pull = asyncio.ensure_future(anext(stream))
        await until(lambda: len(calls.made) >= 3)
        # With "disk", the first calls have ended, and their sync has not.
        assert pull.done() is (durability == "process")

    asyncio.run(main())
    del streams[:]
    gc.collect()
    assert_free(path, capacity)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_is_closed_in_the_middle_frees_the_lock(tmp_path: Path) -> None:
    path, capacity = tmp_path / "run.journal", CapacitySource(2)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    stream = amap(Calls(), KEYS * 10, limit=capacity, journal=path)
    loop.run_until_complete(anext(stream))
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del stream, loop
        gc.collect()
        gc.collect()
    Journal(path).open().close()
    results = asyncio.run(amap(Calls(), KEYS * 10, limit=2, journal=path).collect())
    assert results == [f"done {key}" for key in KEYS * 10]


async def test_a_dropped_stream_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    stream = amap(Calls(), KEYS * 10, limit=2, journal=path)
    await anext(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del stream
        gc.collect()

    def is_free() -> bool:
        gc.collect()
        try:
            Journal(path).open().close()
        except JournalError:
            return False
        return True

    await until(is_free)


# Forks and threads.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    for ends_by in ("close", "drop"):
        journal = Journal(path).open()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        if ends_by == "close":
            journal.close()
        del journal
        gc.collect()
        # The child still runs.
        Journal(path).open().close()
        os.close(write)
        os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_an_orphan_does_not_hold_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        journal = Journal(path).open()
        if os.fork() == 0:
            os.write(write, b"!")
            os.close(write)
            time.sleep(30)
        os.read(read, 1)
        assert journal.is_open
        # As by a kill: no clean-up.
        os._exit(9)
    os.waitpid(parent, 0)
    Journal(path).open().close()


async def test_a_fork_in_the_middle_leaves_the_run(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("it forks")
    path = tmp_path / "run.journal"
    async with amap(Calls(), KEYS, limit=1, journal=path) as stream:
        results = [await anext(stream)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it has ended
        with pytest.raises(JournalError, match="another driver uses it"):
            Journal(path).open()
        results += [result async for result in stream]
    assert results == [f"done {key}" for key in KEYS]


def test_two_threads_cannot_share_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.journal")
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    async def call(key: str) -> str:
        await asyncio.sleep(0.001)
        return key

    async def use() -> None:
        barrier.wait()
        try:
            results = await amap(call, KEYS * 20, limit=1, journal=journal).collect()
            outcomes.append("done" if results == KEYS * 20 else "wrong")
        except JournalError as error:
            outcomes.append("refused" if "another" in str(error) else "wrong")

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "done" in outcomes
    assert set(outcomes) <= {"done", "refused"}
    assert len(outcomes) == 2


def test_a_warning_that_is_an_error_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"

    async def is_cancelled(key: str) -> str:
        raise asyncio.CancelledError(key)

    async def use(journal: Journal, fn: Any) -> None:
        async with amap(fn, ["a"], limit=1, journal=journal) as stream:
            await anext(stream)

    with pytest.raises(SourceCancelledError):
        asyncio.run(use(Journal(path), is_cancelled))
    journal = Journal(path, accept_version=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", JournalWarning)
        with pytest.raises(JournalWarning, match="may be paid twice"):
            asyncio.run(use(journal, Calls()))
    assert not journal.is_open
    Journal(path).open().close()


# Calls of all kinds.


class Kinds:
    """Tasks of all kinds."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.capacity = CapacitySource(3, cooldown=True)

    async def acquires(self) -> str:
        self.made["acquires"] += 1
        other = CapacitySource(1)
        async with other.acquire():
            return "acquired"

    async def retries(self) -> str:
        self.made["retries"] += 1
        if self.made["retries"] == 1:
            raise ConnectionError("once")
        return "retried"

    async def times_out(self) -> str:
        self.made["times_out"] += 1
        await asyncio.sleep(3600)
        raise AssertionError

    async def is_throttled(self) -> str:
        self.made["is_throttled"] += 1
        if self.made["is_throttled"] == 1:
            error = RuntimeError("slow down")
            error.status_code = 429  # type: ignore[attr-defined]
            raise error
        return "throttled"

    async def yields(self) -> AsyncIterator[Any]:
        self.made["yields"] += 1
        yield 1
        yield 2
        yield Final(3)

    def in_thread(self) -> str:
        self.made["in_thread"] += 1
        return "threaded"

    def tasks(self) -> list[Task]:
        return [
            Task(self.acquires, key="acquires", queue_timeout=3600),
            Task(self.retries, key="retries", retry=Retry(3, backoff=0)),
            Task(self.times_out, key="times_out", timeout=0.01, priority=2),
            Task(self.is_throttled, key="is_throttled", priority=1),
            Task(self.yields, key="yields"),
            Task(self.in_thread, key="in_thread", thread=True),
        ]


@pytest.mark.parametrize("durability", ["disk", "process"])
async def test_tasks_of_all_kinds_are_replayed(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "run.journal"
    outcomes = []
    kinds = Kinds()
    for is_again in (False, True):
        runner = HierarchicalTaskPoolRunner(
            kinds.tasks(), kinds.capacity, journal=Journal(path, durability=durability)
        )
        ends: dict[Any, Any] = {}
        async with runner.run_tasks() as events:
            async for event in events:
                if event.type is EnvelopeType.INTERMEDIATE:
                    assert not is_again
                    continue
                assert event.replayed is is_again
                ends[event.key] = (event.attempt, str(event.error) if event.error else event.value)
                if is_again and event.error is not None:
                    assert isinstance(event.error, RecordedError)
        outcomes.append(ends)
        assert kinds.capacity.held == 0
    first, second = outcomes
    assert second.pop("times_out")[1].endswith(first.pop("times_out")[1])
    assert first == second
    assert first["yields"][1] == 3
    assert kinds.made == {
        "acquires": 1, "retries": 2, "times_out": 1, "is_throttled": 2, "yields": 1, "in_thread": 1,
    }  # fmt: skip
    assert_free(path, kinds.capacity)


@pytest.mark.parametrize("options", [{"on_error": "stop"}, {"max_failures": 0}])
async def test_recorded_failures_count(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "run.journal"
    made: Counter[str] = Counter()

    async def call(key: str) -> str:
        made[key] += 1
        raise ValueError(key)

    for _ in range(2):
        tasks = [Task(call, key, key=key) for key in KEYS]
        runner = HierarchicalTaskPoolRunner(tasks, 1, journal=path, **options)
        async with runner.run_tasks() as events:
            with suppress(RunStopped):
                async for _ in events:
                    pass
        del runner
    assert set(made.values()) == {1}


class Listening:
    """A source that is notified of outcomes."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.heard: list[tuple[str, Any]] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def completed(self, item: Any, value: Any) -> None:
        self.heard.append((item.key, value))

    def failed(self, item: Any, error: BaseException) -> None:
        self.heard.append((item.key, type(error)))


class ListeningAsync(Listening):
    """The same as an async iterable."""

    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.items:
            yield item


@pytest.mark.parametrize("kind", [Listening, ListeningAsync])
async def test_a_plain_source_is_notified(tmp_path: Path, kind: type[Listening]) -> None:
    async def call(key: str) -> str:
        if key == "b":
            raise ValueError(key)
        return key

    for error in (ValueError, RecordedError):
        source = kind([Task(call, key, key=key) for key in "ab"])
        runner = HierarchicalTaskPoolRunner(source, 1, journal=tmp_path / "run.journal")
        with pytest.raises(error):
            await runner.run()
        assert source.heard == [("a", "a"), ("b", error)]


if sys.platform == "win32":
    del test_an_orphan_does_not_hold_the_lock
