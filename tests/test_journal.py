"""The journal of a run: what a later run delivers without a call, and what it calls."""

from __future__ import annotations

import asyncio
import itertools
import json
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    Budget,
    CapacitySource,
    HierarchicalTaskPoolRunner,
    Journal,
    JournalError,
    JournalWarning,
    MapError,
    PullMapPoolObj,
    RecordedError,
    SinkJournal,
    Task,
    amap,
)
from headrace.journal import read_records
from headrace.task import current_lease

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Calls:
    """A function that counts its calls, and does what the test says for an item."""

    def __init__(self, *, fails: set[Any] | None = None) -> None:
        self.made: Counter[Any] = Counter()
        self.fails = fails or set()

    async def __call__(self, item: Any) -> str:
        self.made[item] += 1
        await asyncio.sleep(0)
        if item in self.fails:
            raise ValueError(f"bad {item}")
        return f"done {item}"


def content_of(path: Path) -> bytes:
    """Return the content of a file."""
    return path.read_bytes()


def write(path: Path, content: bytes | bytearray) -> None:
    """Replace the content of a file."""
    path.write_bytes(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a journal that does not exist."""
    return tmp_path / "run.journal"


@pytest.fixture(params=["disk", "process"])
def make(request: pytest.FixtureRequest, path: Path) -> Callable[..., Journal]:
    """Return a function that makes a journal at the path."""

    def make(**options: Any) -> Journal:
        return Journal(path, durability=request.param, **options)

    return make


# Law 18. Paid work is paid once.


async def test_law_18_a_repeated_run_calls_nothing_again(make: Callable[..., Journal]) -> None:
    items = [f"item {number}" for number in range(50)]
    first, second = Calls(), Calls()
    expected = [f"done {item}" for item in items]
    assert await amap(first, items, limit=7, journal=make()).collect() == expected
    assert set(first.made.values()) == {1}
    assert await amap(second, items, limit=7, journal=make()).collect() == expected
    assert second.made == {}


@pytest.mark.parametrize("ordered", [True, False])
async def test_law_18_a_cancelled_run_is_completed(
    make: Callable[..., Journal], *, ordered: bool
) -> None:
    items = list(range(40))
    first, second = Calls(), Calls()
    results = []
    async with amap(first, items, limit=5, ordered=ordered, journal=make()) as stream:
        async for result in stream:
            results.append(result)
            if len(results) == 11:
                break
    ended = {record.key for record in read_records(make().path) if record.status == "returned"}
    assert len(ended) >= 11
    # The call in flight may have ended meanwhile, and is then named.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JournalWarning)
        resumed = await amap(second, items, limit=5, ordered=ordered, journal=make()).collect()
    expected = [f"done {item}" for item in items]
    assert (resumed if ordered else sorted(resumed, key=expected.index)) == expected
    assert second.made.keys() == set(items) - ended


async def test_law_18_results_of_all_kinds_are_restored(make: Callable[..., Journal]) -> None:
    values: list[Any] = [
        None, True, 0, -(10**30), 1.5, float("inf"), "text", "\ud800", b"bytes", "",
        {"a": [1, (2, 3)]}, {1, 2}, Counter("aab"),
    ]  # fmt: skip

    async def value_of(index: int) -> Any:
        return values[index]

    indexes = range(len(values))
    await amap(value_of, indexes, limit=3, journal=make()).collect()

    async def never(index: int) -> Any:
        raise AssertionError(index)

    journal = make(accept_version=True)
    restored = await amap(never, indexes, limit=3, journal=journal).collect()
    assert [(type(value), value) for value in restored] == [
        (type(value), value) for value in values
    ]


async def test_equal_items_are_occurrences(make: Callable[..., Journal]) -> None:
    numbers = iter(range(100))

    async def number(_item: str) -> int:
        return next(numbers)

    items = ["a", "b", "a", "a", "b"]
    first = await amap(number, items, limit=3, journal=make()).collect()
    assert sorted(first) == [0, 1, 2, 3, 4]
    again = await amap(number, [*items, "a"], limit=3, journal=make()).collect()
    assert again == [*first, 5]


async def test_replayed_envelopes_say_so(make: Callable[..., Journal]) -> None:
    async def run(keys: list[str]) -> list[tuple[Any, Any, bool, int]]:
        tasks = [Task(Calls(), key, key=key) for key in keys]
        runner = HierarchicalTaskPoolRunner(tasks, 2, ordered=True, journal=make())
        async with runner.run_tasks() as events:
            return [
                (event.key, event.value, event.replayed, event.attempt) async for event in events
            ]

    assert await run(["a", "b"]) == [("a", "done a", False, 1), ("b", "done b", False, 1)]
    assert await run(["a", "c", "b"]) == [
        ("a", "done a", True, 1),
        ("c", "done c", False, 1),
        ("b", "done b", True, 1),
    ]


async def test_replayed_results_take_no_capacity(make: Callable[..., Journal]) -> None:
    await amap(Calls(), ["a", "b"], limit=1, journal=make()).collect()
    capacity = CapacitySource(1)
    async with (
        capacity.acquire(owner=None),
        amap(Calls(), ["a", "b"], limit=capacity, journal=make()) as stream,
    ):
        assert await stream.collect() == ["done a", "done b"]


async def test_failed_calls_are_not_repeated(make: Callable[..., Journal]) -> None:
    calls = Calls(fails={"b"})
    items = ["a", "b", "c"]
    with pytest.raises(MapError):
        await amap(calls, items, limit=2, journal=make()).collect()
    again = Calls()
    with pytest.raises(MapError) as raised:
        await amap(again, items, limit=2, journal=make()).collect()
    assert again.made == {}
    (error,) = raised.value.exceptions
    assert isinstance(error, RecordedError)
    assert (error.kind, error.text) == ("ValueError", "bad b")
    results = await amap(again, items, limit=2, journal=make(retry_failed=True)).collect()
    assert results == ["done a", "done b", "done c"]
    assert again.made == {"b": 1}


async def test_a_fatal_error_does_not_end_a_call(make: Callable[..., Journal]) -> None:
    class Refused(Exception):
        status_code = 401

    async def refuse(_item: str) -> str:
        raise Refused

    with pytest.raises(MapError):
        await amap(refuse, ["a"], limit=1, journal=make()).collect()
    with pytest.warns(JournalWarning, match=r"1 call had begun .*: 'a'"):
        journal = make(accept_version=True)
        assert await amap(Calls(), ["a"], limit=1, journal=journal).collect() == ["done a"]


async def test_map_pool_takes_a_journal(make: Callable[..., Journal]) -> None:
    items = [{"id": number} for number in range(10)]
    for expected in (10, 0):
        calls = Counter[int]()

        async def fetch(item: dict[str, int], calls: Counter[int] = calls) -> int:
            calls[item["id"]] += 1
            return item["id"] * 2

        journal = make(accept_version=True)
        stream = PullMapPoolObj(
            items, fetch, 3, key=lambda item: item["id"], ordered=True, journal=journal
        )
        assert await stream.collect() == [number * 2 for number in range(10)]
        assert calls.total() == expected
        assert not journal.is_open


def test_map_takes_a_path(path: Path) -> None:
    calls = Calls()
    for _ in range(2):
        assert headrace.map(calls, ["a"], limit=1, journal=path) == ["done a"]
    assert calls.made == {"a": 1}


async def test_a_plain_function_in_threads_is_journaled(make: Callable[..., Journal]) -> None:
    made = itertools.count()

    def square(number: int) -> int:
        next(made)
        return number**2

    for _ in range(2):
        results = await amap(square, range(20), limit=4, journal=make()).collect()
        assert results == [number**2 for number in range(20)]
    assert next(made) == 20


async def test_a_drained_task_is_called_by_the_next_run(make: Callable[..., Journal]) -> None:
    calls = Calls()
    runner = HierarchicalTaskPoolRunner(
        [Task(calls, key, key=key) for key in "abcdef"], 1, journal=make()
    )
    async with runner.run_tasks() as events:
        await anext(events)
        left = await runner.drain()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rest = await HierarchicalTaskPoolRunner(left, 1, journal=make()).run() if left else []
    assert len(rest) == len(left)
    assert set(calls.made.values()) == {1}


async def test_runs_of_one_runner_are_one_pass(make: Callable[..., Journal]) -> None:
    async def pause(item: str) -> str:
        runner.pause()
        return item

    runner = HierarchicalTaskPoolRunner(
        [Task(pause, number, key="same") for number in "12"], 1, journal=make()
    )
    async with runner.run_tasks() as events:
        assert (await anext(events)).value == "1"
    runner.resume()
    async with runner.run_tasks() as events:
        # It is the second occurrence of the key, not a replay of the first.
        event = await anext(events)
        assert (event.value, event.replayed) == ("2", False)


# Spend.


async def test_the_spend_of_a_budget_is_restored(make: Callable[..., Journal]) -> None:
    def limits() -> CapacitySource:
        return CapacitySource({"slots": 2, "tokens": Budget(100)})

    async def call(item: int) -> int:
        current_lease().settle(tokens=7.5)
        return item

    async def run(capacity: CapacitySource, items: range) -> None:
        await PullMapPoolObj(
            items, call, capacity, cost={"slots": 1, "tokens": 10}, journal=make()
        ).collect()

    capacity = limits()
    await run(capacity, range(4))
    assert capacity.available["tokens"] == 70
    # In the same process nothing is charged twice.
    await run(capacity, range(4))
    assert capacity.available["tokens"] == 70
    capacity = limits()
    await run(capacity, range(5))
    assert capacity.available["tokens"] == 62.5


# Versions.


async def test_other_code_warns(make: Callable[..., Journal]) -> None:
    async def one(item: str) -> str:
        return item

    async def other(item: str) -> str:
        return item + "!"

    await amap(one, ["a"], limit=1, journal=make()).collect()
    with pytest.warns(JournalWarning, match="results of other code"):
        assert await amap(other, ["a"], limit=1, journal=make()).collect() == ["a"]
    # It is the version now.
    await amap(other, ["a"], limit=1, journal=make()).collect()


async def test_another_explicit_version_is_refused(make: Callable[..., Journal]) -> None:
    await amap(Calls(), ["a"], limit=1, journal=make(version="1")).collect()
    await amap(Calls(), ["a"], limit=1, journal=make(version="1")).collect()
    with pytest.raises(JournalError, match=r"results of version '1'.* version '2'.* new file"):
        await anext(amap(Calls(), ["a"], limit=1, journal=make(version="2")))
    journal = make(version="2", accept_version=True)
    assert await amap(Calls(), ["a"], limit=1, journal=journal).collect() == ["done a"]


# Results that cannot be stored.


async def test_a_result_that_cannot_be_stored_is_delivered(make: Callable[..., Journal]) -> None:
    async def lock(_item: str) -> Any:
        return asyncio.Lock if _item == "class" else (lambda: _item)

    items = ["class", "x", "y"]
    with pytest.warns(JournalWarning, match="cannot be stored"):
        results = await amap(lock, items, limit=1, journal=make()).collect()
    assert results[1]() == "x"
    with pytest.raises(MapError) as raised:
        await amap(lock, items, limit=1, journal=make()).collect()
    assert "rerun=True" in str(raised.value.exceptions[0])
    with pytest.warns(JournalWarning, match="cannot be stored"):
        results = await amap(lock, items, limit=1, journal=make(rerun=True)).collect()
    assert results[0] is asyncio.Lock
    assert results[2]() == "y"


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "ram"}, "durability must be 'disk' or 'process', got 'ram'"),
        ({"damaged": "ignore"}, "damaged must be 'refuse' or 'skip'"),
        ({"version": 2}, "version must be a string or None, not 2"),
        ({"rerun": 1}, "rerun must be True or False"),
    ],
)
def test_bad_options_are_refused(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Journal(path, **options)
    assert not path.exists()


@pytest.mark.parametrize("item", [1.5, None, True, {"a": 1}])
async def test_an_item_that_is_no_key_is_refused(path: Path, item: Any) -> None:
    async with amap(Calls(), [item], limit=1, journal=path) as stream:
        with pytest.raises(TypeError, match="pass key="):
            await anext(stream)


async def test_a_task_without_a_key_is_refused(path: Path) -> None:
    runner = HierarchicalTaskPoolRunner([Task(Calls(), "a")], 1, journal=path)
    with pytest.raises(TypeError, match=r"Task\(fn, item, key=\.\.\.\)"):
        await runner.run()


async def test_a_journal_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="journal must be a Journal or a path, not 3"):
        amap(Calls(), [1], limit=1, journal=3)  # type: ignore[call-overload]


async def test_a_second_driver_is_refused(path: Path) -> None:
    with Journal(path) as first:
        assert first.is_open
        with pytest.raises(JournalError, match="another driver uses it; wait for its end"):
            Journal(path).open()


async def test_two_runs_cannot_share_a_journal(path: Path) -> None:
    journal = Journal(path)
    gate = asyncio.Event()

    async def wait(item: str) -> str:
        await gate.wait()
        return item

    async with amap(wait, ["a", "b"], limit=1, journal=journal) as first:
        pull = asyncio.ensure_future(anext(first))
        await asyncio.sleep(0)
        with pytest.raises(JournalError, match="another run uses this journal"):
            await anext(amap(wait, ["b"], limit=1, journal=journal))
        with pytest.raises(RuntimeError, match="a run uses this journal"):
            journal.close()
        gate.set()
        assert await pull == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text that is no journal at all", "it is not a journal; give the path of a new file"),
        (b"headrace\x01\x00\x00\x00\x00\x00\x00\x00", "its header is damaged"),
    ],
)
async def test_a_file_of_something_else_is_refused(
    path: Path, content: bytes, message: str
) -> None:
    write(path, content)
    with pytest.raises(JournalError, match=message):
        await anext(amap(Calls(), ["a"], limit=1, journal=path))
    assert content_of(path) == content


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        await anext(amap(Calls(), ["a"], limit=1, journal=tmp_path))


async def test_a_flipped_bit_is_named_and_skipped(path: Path) -> None:
    items = list("abcdef")
    journal = Journal(path, durability="process")
    await amap(Calls(), items, limit=1, journal=journal).collect()
    content = bytearray(content_of(path))
    at = content.index(b"done c")
    content[at] ^= 1
    write(path, content)
    with pytest.raises(JournalError, match=r"bytes at byte \d+ are damaged.*damaged=\"skip\""):
        await anext(amap(Calls(), items, limit=1, journal=path))
    calls = Calls()
    with pytest.warns(JournalWarning):
        journal = Journal(path, damaged="skip")
        results = await amap(calls, items, limit=1, journal=journal).collect()
    assert results == [f"done {item}" for item in items]
    assert calls.made == {"c": 1}


# Records.


async def test_records_can_be_read_without_trust(path: Path) -> None:
    async def call(item: str) -> Any:
        return item if item == "text" else {"item": item}

    journal = Journal(path, durability="process")
    await amap(call, ["text", "pickle"], limit=1, journal=journal).collect()
    records = [record for record in read_records(path) if record.status == "returned"]
    assert [record.is_pickle for record in records] == [False, True]
    assert records[0].value() == "text"
    assert json.dumps(records[1].value()) == '{"item": "pickle"}'


async def test_a_journal_is_used_in_a_with_statement(path: Path) -> None:
    with Journal(path) as journal:
        await amap(Calls(), ["a", "b"], limit=1, journal=journal).collect()
        assert (journal.is_open, journal.ended) == (True, 2)
        calls = Calls()
        await amap(calls, ["a", "b", "c"], limit=1, journal=journal).collect()
        assert calls.made == {"c": 1}
    assert not journal.is_open
    with pytest.raises(RuntimeError, match="not open"):
        _ = journal.ended


def test_recorded_version(path: Path) -> None:
    with Journal(path, version="one") as journal:
        versions = [journal.recorded_version]
        headrace.map(str.upper, ["a"], limit=1, journal=journal)
        versions.append(journal.recorded_version)
    assert versions == [None, "one"]
    with pytest.raises(RuntimeError, match="not open"):
        print(journal.recorded_version)


async def test_a_key_of_deeply_nested_tuples_is_refused(path: Path) -> None:
    def nested(depth: int) -> Any:
        key: Any = "key"
        for _ in range(depth):
            key = (key,)
        return key

    async with SinkJournal(path, key=nested) as sink:
        await sink.next(100)
        for depth in (101, 100_000):
            with pytest.raises(ValueError, match="at most 100 tuples inside one another"):
                await sink.next(depth)
    assert [record.key for record in read_records(path)] == [nested(100)]
