"""Benchmarks compare like with like: headrace computes the same result as the hand-written code."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

BENCHES = Path(__file__).parents[1] / "benches" / "python"

# Programs that are not type-checked.
bench: Any = importlib.import_module("bench")
instructions: Any = importlib.import_module("instructions")
measure: Any = importlib.import_module("measure")
rows: Any = importlib.import_module("rows")
tables: Any = importlib.import_module("tables")
row: Any = importlib.import_module("row")

GROUPS = {
    module.name: importlib.import_module(f"rows.{module.name}").GROUP
    for module in pkgutil.iter_modules(rows.__path__)
}
TIMED = [
    pytest.param(entry, id=f"{name}: {entry.name}")
    for name, group in GROUPS.items()
    for entry in group
    if isinstance(entry, row.Work) and "headrace" in entry.libraries
]
MOST = 4_000


async def result_of(run: Any, items: int) -> Any:
    return await measure.outcome(await measure.prepared(run, items))


@pytest.mark.parametrize("work", TIMED)
def test_headrace_and_hand_written_code_agree(work: Any) -> None:
    items = min(MOST, work.items)
    with asyncio.Runner(loop_factory=work.loop) as runner:
        found = runner.run(result_of(work.libraries["headrace"], items))
        assert found == runner.run(result_of(work.by_hand, items))


@pytest.mark.parametrize("name", GROUPS)
def test_row_names_are_unique_in_a_group(name: str) -> None:
    names = [entry.name for entry in GROUPS[name]]
    assert names
    assert len(set(names)) == len(names)


def test_rows_whose_instructions_are_counted_exist() -> None:
    names = [str(chosen) for chosen in instructions.CHOSEN]
    assert len(set(names)) == len(names)
    for chosen in instructions.CHOSEN:
        assert chosen.library in instructions.row_of(chosen.group, chosen.name).libraries
    for kept in json.loads(instructions.KEPT.read_text(encoding="utf-8")).values():
        assert set(kept) <= set(names)


def work(**libraries: Any) -> Any:
    async def by_hand(items: int) -> int:
        return items

    return row.Work("work", "by hand", by_hand, libraries, items=100)


async def wrong(items: int) -> int:
    return items + 1


async def missing_library(items: int) -> int:
    return int(importlib.import_module("no_such_library").count(items))


async def broken(items: int) -> int:
    raise ZeroDivisionError


def test_wrong_and_missing_libraries_are_reported() -> None:
    row = work(right=lambda items: items, wrong=wrong, broken=broken, absent=missing_library)
    answer = partial(measure.asked, row, repetitions=1, seconds=0.001)
    assert answer("right")["ratio"] > 0
    assert answer("wrong") == {"answer": "wrong: 101 for 100"}
    assert answer("broken") == {"answer": "ZeroDivisionError"}
    assert answer("absent") == {"answer": "absent"}


@pytest.mark.parametrize(
    ("run", "error"), [(missing_library, ModuleNotFoundError), (broken, ZeroDivisionError)]
)
def test_error_of_headrace_ends_the_run(run: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        measure.asked(work(headrace=run), "headrace", 1, 0.001)


def test_preparation_is_not_timed() -> None:
    ticks = iter(range(10))

    async def run(items: int) -> Any:
        next(ticks)  # in preparation
        yield 0
        next(ticks)  # in the work
        yield items

    assert asyncio.run(measure.timed(run, 7, lambda: next(ticks))) == (2, 7)


@pytest.mark.parametrize(
    ("answer", "right", "missed"),
    [
        ("200", "200", False),
        ("0, then SourceCancelledError", "200", True),
        ("0.6 ms", "<= 8 ms", False),
        ("8.1 ms", "<= 8 ms", True),
        ("600", ">= 597", False),
        ("596", ">= 597", True),
        ("RecursionError", "<= 8 ms", True),
        ("anything", "-", False),
    ],
)
def test_goal_is_missed_or_met(answer: str, right: str, missed: bool) -> None:
    assert row.misses(answer, right) is missed


@pytest.mark.parametrize(
    ("answer", "goal", "text"),
    [
        ({"ratio": 0.504}, 0.5, "0.50"),
        ({"ratio": 0.505}, 0.5, "0.51 *"),
        ({"ratio": 0.4, "loose": True}, 0.5, "~0.40"),
        ({"ratio": 0.6}, None, "0.60"),
        ({"answer": "8.1 ms"}, "<= 8 ms", "8.1 ms *"),
        (None, 0.5, "-"),
    ],
)
def test_cell_marks_a_missed_goal(answer: Any, goal: Any, text: str) -> None:
    assert tables.cell(answer, goal) == text


def test_one_row_can_be_measured_alone() -> None:
    wanted = [f"--library={library}" for library in ("headrace", "by hand", "sync builtins")]
    ran = subprocess.run(
        [sys.executable, BENCHES / "bench.py", "depth", "--only", "100 stages", *wanted],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "| 100 stages | yes | yes | yes | yes |" in ran.stdout
    assert "kept in no file" in ran.stdout


def test_new_measurement_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    bench.keep("pool", [{"work": "old"}])
    bench.keep("depth", [{"work": "deep"}])
    file = bench.keep("pool", [{"work": "new"}])
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["groups"] == {"pool": [{"work": "new"}], "depth": [{"work": "deep"}]}
    assert list(tmp_path.iterdir()) == [file]
