"""`headrace map --group-by`: limits of groups, and fairness among them."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING

import pytest

from headrace import CapacitySource
from headrace.cli.groups import Groups, group_name
from headrace.task import Task
from tests.command import Files, assert_one_line_error, no_limits, results, run
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path


async def as_source(tasks: Iterable[tuple[str, Task]]) -> AsyncIterator[tuple[str, Task]]:
    for task in tasks:
        yield task


# The class Groups


@pytest.mark.virtual
@pytest.mark.parametrize("seed", range(12))
async def test_limits_and_group_order_hold(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    limit, group_limit, window = chance.randint(1, 8), chance.randint(1, 4), chance.randint(1, 30)
    names = [f"group {number}" for number in range(chance.randint(1, 9))]
    root = CapacitySource(limit)
    running: Counter[str] = Counter()
    begun: defaultdict[str, list[int]] = defaultdict(list)
    failed: set[int] = set()
    read = called = 0

    async def work(name: str, number: int, seconds: float) -> None:
        nonlocal called
        called += 1
        begun[name].append(number)
        running[name] += 1
        assert running[name] <= group_limit
        assert running.total() <= limit
        try:
            await asyncio.sleep(seconds)
            if number % 7 == 0:
                raise ValueError(number)
        finally:
            running[name] -= 1

    async def source() -> AsyncIterator[tuple[str, Task]]:
        nonlocal read
        for number in range(300):
            # Pauses in which groups become idle and end.
            if chance.random() < 0.05:
                await asyncio.sleep(chance.choice([0, 1, 30]))
            name = chance.choice(names)
            read += 1
            # `called` may lag within an event-loop iteration; `read` does not.
            assert read - called <= window + limit
            fail = partial(note, number)
            yield name, Task(work, name, number, chance.expovariate(1), on_error=fail)

    def note(number: int, error: BaseException) -> None:
        assert isinstance(error, ValueError)
        failed.add(number)

    groups = Groups(root, group_limit, window, no_limits(), {})
    await groups.run(source())
    assert sorted(number for numbers in begun.values() for number in numbers) == list(range(300))
    assert all(numbers == sorted(numbers) for numbers in begun.values())
    assert failed == set(range(0, 300, 7))
    assert (groups.waiting, root.held, root.waiting) == (0, 0, 0)


@pytest.mark.virtual
async def test_no_group_starves_another() -> None:
    """Serve all groups alike, although the first one has a hundred times as many tasks."""
    done: list[str] = []

    async def work(name: str) -> None:
        await asyncio.sleep(1)
        done.append(name)

    order = ["big"] * 500 + ["small", "tiny"] * 5
    root = CapacitySource(3)
    await Groups(root, 3, 10_000, no_limits(), {}).run(
        as_source((name, Task(work, name)) for name in order)
    )
    # The first three tasks have no competition, unless the machine is busy. Then each group has a third of the slots
    # for the five rounds in which it has tasks.
    assert Counter(done[: 3 + 5 * 3]) == {"big": 8, "small": 5, "tiny": 5}


@pytest.mark.virtual
async def test_reading_stops_while_the_window_is_full() -> None:
    gate, read = asyncio.Event(), 0

    async def source() -> AsyncIterator[tuple[str, Task]]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield str(read % 3), Task(gate.wait)

    groups = Groups(CapacitySource(4), 2, 10, no_limits(), {})
    running = asyncio.create_task(groups.run(source()))
    await asyncio.sleep(1)
    assert (read, groups.waiting) == (14, 10)
    # Usually the slots are taken before the third group has a task. Without the fast path, or on a busy machine, a group
    # starts its second task one event-loop iteration later, and the third group gets a slot.
    prompt, late = {"1": 2, "2": 2, "0": 0}, ({"1": 2, "2": 1, "0": 1}, {"1": 1, "2": 2, "0": 1})
    assert groups.running() in (prompt, *late)
    gate.set()
    await running
    assert read == 100


@pytest.mark.virtual
async def test_idle_group_is_dropped_and_recreated() -> None:
    root = CapacitySource(4)
    seen: list[list[str]] = []

    async def work() -> None:
        await asyncio.sleep(1)
        gc.collect()  # an ended run is a reference cycle
        seen.append(sorted(str(child.name) for child in root.children))

    async def source() -> AsyncIterator[tuple[str, Task]]:
        for pause, name in ((0, "a"), (0.5, "b"), (10, "a"), (0.5, "a"), (10, "c")):
            await asyncio.sleep(pause)
            yield name, Task(work)

    groups = Groups(root, 1, 10, no_limits(), {})
    await groups.run(source())
    assert seen == [["a", "b"], ["b"], ["a"], ["a"], ["c"]]


async def test_cancelling_run_stops_all_tasks() -> None:
    root, ended = CapacitySource(3), []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    groups = Groups(root, 2, 5, no_limits(), {})
    tasks = as_source((name, Task(work, name)) for name in "abcabcabcabc")
    running = asyncio.create_task(groups.run(tasks))
    await until(lambda: groups.waiting == 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    # Three slots, of which the first group may have two; see above.
    prompt, late = ["a", "a", "b"], ["a", "b", "c"]
    assert sorted(ended) in (prompt, late)
    assert (root.held, root.waiting) == (0, 0)


async def test_error_in_a_group_is_raised() -> None:
    root = CapacitySource(3)

    async def endless() -> AsyncIterator[tuple[str, Task]]:
        while True:
            await asyncio.sleep(0)
            yield "a", Task(asyncio.sleep, 0)

    with pytest.raises(ExceptionGroup) as caught:
        await Groups(root, 2, 5, no_limits(), {"timeout": -1}).run(endless())
    assert "timeout must be positive, got -1" in str(caught.value.exceptions[0])
    assert (root.held, root.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"f": "x"}, "x"),
        ({"f": ""}, ""),
        ({"f": "\ud800 é"}, "\\ud800 é"),
        ({"f": {"\ud800": 1}}, '{"\\ud800": 1}'),
        ({"f": 7}, "7"),
        ({"f": "7"}, "7"),
        ({"f": 7.0}, "7.0"),
        ({"f": None}, "null"),
        ({"f": True}, "true"),
        ({"f": {"b": 1, "a": [2]}}, '{"a": [2], "b": 1}'),
    ],
)
def test_group_name_is_the_value_of_its_field(value: object, name: str) -> None:
    assert group_name(value, "f") == name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"g": 1}, "the record has no field 'f'"),
        ([{"f": 1}], "the record is not a JSON object, so it has no field 'f'"),
        (None, "the record is not a JSON object, so it has no field 'f'"),
    ],
)
def test_group_name_needs_the_field(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_name(value, "f")


# The command


@pytest.mark.parametrize("function", ["work:crowd_of_groups", "work:crowd_of_threads"])
def test_group_limit_is_kept(tmp_path: Path, files: Files, function: str) -> None:
    files(*({"group": "abc"[number % 3], "number": number} for number in range(60)))
    options = ["--group-by", "group", "--group-limit", "2", "--report", "report.html"]
    done = run(tmp_path, function, *options, limit=5)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "out.jsonl")
    assert [one["number"] for one in found] == list(range(60))
    assert max(one["inside"] for one in found) == 2
    assert max(one["inside in all"] for one in found) <= 5
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "running calls by group, at most 2 each" in page


def test_group_field_may_have_any_value(tmp_path: Path, files: Files) -> None:
    values = [None, True, 1, 1.5, [1], {"a": 1}, "x", "", "\ud800", "1"]
    files(*({"group": value} for value in values))
    done = run(tmp_path, "work:picky", "--group-by", "group", "--report", "report.html")
    assert done.returncode == 0, done.stderr
    assert [one["group"] for one in results(tmp_path / "out.jsonl")] == values


def test_record_without_group_field_fails(tmp_path: Path, files: Files) -> None:
    files({"group": 1}, {"gruop": 1}, 5, {"group": 2})
    done = run(tmp_path, "work:picky", "--group-by", "group", "--errors", "errors.jsonl")
    assert done.returncode == 1
    assert "record 2 failed: ValueError: the record has no field 'group'" in done.stderr
    assert "record 3 failed: ValueError: the record is not a JSON object" in done.stderr
    assert "2 done, 2 failed" in done.stderr
    assert results(tmp_path / "out.jsonl") == [{"group": 1}, {"group": 2}]
    assert [one["input"] for one in results(tmp_path / "errors.jsonl")] == [{"gruop": 1}, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group-limit", "2"], "--group-limit needs --group-by"),
        (["--group-window", "2"], "--group-window needs --group-by"),
        (
            ["--group-by", "f", "--text"],
            "--group-by needs records with fields, got 'f' with plain lines",
        ),
        (
            ["--group-by", "f", "--group-limit", "0"],
            "argument --group-limit: must be a whole number of at least 1, got '0'",
        ),
    ],
)
def test_bad_group_options_are_a_usage_error(
    tmp_path: Path, files: Files, options: list[str], message: str
) -> None:
    files(1)
    done = run(tmp_path, "work:double", *options)
    assert_one_line_error(done, message)
