"""`headrace map --max-failures`, `--retry-budget` and `--keep-going`, and fatal errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.command import Files, assert_one_line_error, files_in, results, run

if TYPE_CHECKING:
    from pathlib import Path

BY_GROUP = ("--group-by", "group")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_in(tmp_path)


@pytest.mark.parametrize("options", [(), ("--unordered",), BY_GROUP])
@pytest.mark.parametrize("function", ["work:refused_at_30", "work:refused_at_30_in_a_thread"])
def test_fatal_error_stops_the_run(
    tmp_path: Path, files: Files, function: str, options: tuple[str, ...]
) -> None:
    files(*({"number": number, "group": number % 3} for number in range(1000)))
    (tmp_path / "out.jsonl").write_text("old\n", encoding="utf-8")
    done = run(tmp_path, function, *options, "--errors", "errors.jsonl", limit=4)
    assert done.returncode == 2
    reason = (
        "record 31 failed with a fatal error (401 of RefusedError), so no more records were called"
    )
    assert f"\nheadrace map: {reason}: " in done.stderr
    assert "record 31 failed: RefusedError: no such key" in done.stderr
    assert "and everything after line " in done.stderr or "; not done: everything" in done.stderr
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "old\n"
    kept = results(tmp_path / "out.jsonl.partial")
    assert len(kept) <= 30 + 4 * (3 if options == BY_GROUP else 1) + 8
    assert f": {len(kept)} done, 1 failed; {len(kept)} results are in " in done.stderr
    assert done.stderr.count("called with") == len(kept) + 1


def test_keep_going_after_a_fatal_error(tmp_path: Path, files: Files) -> None:
    files(*({"number": number} for number in range(50)))
    done = run(tmp_path, "work:refused_at_30", "--keep-going", limit=4)
    assert done.returncode == 1
    assert "49 done, 1 failed" in done.stderr


def test_fatal_error_of_the_last_record_ends_the_run(tmp_path: Path, files: Files) -> None:
    files(*({"number": number} for number in range(31)))
    done = run(tmp_path, "work:refused_at_30", limit=1)
    assert done.returncode == 1
    assert "30 done, 1 failed" in done.stderr
    assert len(results(tmp_path / "out.jsonl")) == 30


@pytest.mark.parametrize("options", [(), BY_GROUP])
def test_too_many_failures_stop_the_run(
    tmp_path: Path, files: Files, options: tuple[str, ...]
) -> None:
    # Half of the records of each group fail: groups share by the time of their calls, so their numbers may differ.
    files(*({"number": number, "group": number % 4 // 2} for number in range(1000)))
    done = run(tmp_path, "work:odd", *options, "--max-failures", "5", limit=1)
    assert done.returncode == 1
    assert not (tmp_path / "out.jsonl").exists()
    assert len(results(tmp_path / "out.jsonl.partial")) == done.stderr.count("called with") - 6
    assert "6 records failed, more than max_failures=5; the last is record " in done.stderr
    assert " done, 6 failed; " in done.stderr
    done = run(tmp_path, "work:odd", *options, "--max-failures", "60%", limit=1)
    assert done.returncode == 1
    assert "500 done, 500 failed" in done.stderr
    done = run(tmp_path, "work:odd", *options, "--max-failures", "25%", limit=1)
    assert done.returncode == 1
    assert "records failed, more than max_failures=0.25" in done.stderr


@pytest.mark.parametrize("options", [(), BY_GROUP])
def test_retry_budget_bounds_the_calls(
    tmp_path: Path, files: Files, options: tuple[str, ...]
) -> None:
    files(*({"number": 1 + 2 * number, "group": number % 20} for number in range(200)))
    limits = ("--retries", "1", "--retry-budget", "5%", "--report", "report.html")
    done = run(tmp_path, "work:odd", *options, *limits, limit=20)
    assert done.returncode == 1
    assert 210 <= done.stderr.count("called with") <= 220
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "retry budget" in page


def test_record_in_back_off_is_not_done(tmp_path: Path, files: Files) -> None:
    files(*({"number": number} for number in range(29, 40)))
    done = run(tmp_path, "work:refused_at_30", "--retries", "1", limit=1)
    assert done.returncode == 2
    assert "not done: records 1, " in done.stderr
    assert ": 0 done, 1 failed" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-failures", "-1"], "--max-failures: must be a whole number of at least 0, or a"),
        (["--max-failures", "0%"], "or a share above 0% and below 100%, got '0%'"),
        (["--max-failures", "100%"], "or a share above 0% and below 100%, got '100%'"),
        (["--max-failures", "0.1"], "or a share above 0% and below 100%, got '0.1'"),
        (["--retry-budget", "0.2"], "must be a share above 0% and at most 100%, such as 20%, got"),
        (["--retry-budget", "101%"], "must be a share above 0% and at most 100%"),
        (["--retry-budget", "20%"], "--retry-budget needs --retries"),
    ],
)
def test_bad_options_are_a_usage_error(
    tmp_path: Path, files: Files, options: list[str], message: str
) -> None:
    files(1)
    assert_one_line_error(run(tmp_path, "work:double", *options), message)
