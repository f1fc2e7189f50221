"""Calls in the report of `headrace map`: those that failed and were repeated, and those that never ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from headrace.cli.report.error_counts import MAX_TYPES, ErrorCounts
from tests.command import Files, files_in, interrupt, run, running, wait_for_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_in(tmp_path)


def errors_in(folder: Path) -> dict[str, int]:
    """Return the types of errors in the report, with their counts."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    section = page.partition("<h2>Errors")[2].partition("</section>")[0]
    found = re.findall(
        r"([\w ]+)</?[^<]*<[^>]*>([\d,]+) in all", re.sub(r"<(?=small)", "</", section)
    )
    return {kind: int(count) for kind, count in found}


def failed_calls(folder: Path) -> int:
    """Return the number of failed calls among the slowest."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return page.partition("Slowest calls")[2].count('<span class="failed"')


def test_repeated_calls_are_in_the_report(tmp_path: Path, files: Files) -> None:
    files(*({"number": number} for number in (1, 2, 3)))
    options = ["--retries", "2", "--no-cooldown", "--report", "report.html"]
    done = run(tmp_path, "work:third_time", *options)
    assert done.returncode == 0, done.stderr
    assert errors_in(tmp_path) == {"LaterError": 4}
    assert failed_calls(tmp_path) == 4


def test_time_limits_are_in_the_report(tmp_path: Path, files: Files) -> None:
    files(1, 2, 3)
    options = ["--timeout", "0.05", "--retries", "1", "--report", "report.html"]
    done = run(tmp_path, "work:hangs", *options)
    assert done.returncode == 1
    assert errors_in(tmp_path) == {"TimeoutError": 4}
    assert failed_calls(tmp_path) == 4


def test_calls_that_never_end_are_in_the_report(tmp_path: Path, files: Files) -> None:
    files(1, 2, 3, 4, 5)
    with running(tmp_path, "work:stuck_after_three", "--report", "report.html") as process:
        wait_for_line(process, "stuck on 5")
        interrupt(process)
    assert errors_in(tmp_path) == {"not finished": 2}
    assert failed_calls(tmp_path) == 2


def test_types_of_errors_are_bounded() -> None:
    errors = ErrorCounts()
    for number in range(100):
        errors.count(number, f"Error{number % 50}")
    errors.count(100, "Error3")
    totals = dict(errors.totals())
    assert len(totals) == MAX_TYPES + 1
    assert totals["Error3"] == 3
    assert totals["others"] == 100 - 2 * MAX_TYPES
