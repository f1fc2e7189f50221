"""`headrace map --retries` and `--timeout`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.command import (
    Files,
    assert_one_line_error,
    interrupt,
    results,
    run,
    running,
    wait_for_line,
)

if TYPE_CHECKING:
    from pathlib import Path

OFF = ("--no-cooldown",)
"""The errors of `tests.command` have an attribute `retry_after`, so they are throttled answers."""


@pytest.mark.parametrize("function", ["work:third_time", "work:third_time_in_a_thread"])
def test_retry_gets_the_original_record(tmp_path: Path, files: Files, function: str) -> None:
    files(*({"number": number} for number in range(1, 40, 2)))
    options = [
        "--retries",
        "2",
        "--no-cooldown",
        "--errors",
        "errors.jsonl",
        "--report",
        "report.html",
    ]
    done = run(tmp_path, function, *options, limit=4)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out.jsonl") == [[number, 3] for number in range(1, 40, 2)]
    assert (tmp_path / "errors.jsonl").read_bytes() == b""
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "retries</h2>" in page
    assert "40" in page.split("retries</h2>")[1][:60]


def test_records_run_out_of_retries(tmp_path: Path, files: Files) -> None:
    files({"number": 1}, {"number": 2}, {"number": 3})
    done = run(tmp_path, "work:third_time", *OFF, "--retries", "1", "--errors", "errors.jsonl")
    assert done.returncode == 1
    assert "1 done, 2 failed" in done.stderr
    assert "2 records failed, the first is record 1: LaterError: not yet" in done.stderr
    found = results(tmp_path / "errors.jsonl")
    assert [(one["record"], one["attempts"]) for one in found] == [(1, 2), (3, 2)]
    # The original record, not the one that the function changed.
    assert [one["input"] for one in found] == [{"number": 1}, {"number": 3}]


def test_permanent_errors_are_not_retried(tmp_path: Path, files: Files) -> None:
    files("exit", "set", "cancel", "other", "key", "bug")
    done = run(tmp_path, "work:hopeless", "--retries", "3", "--keep-going", *OFF, limit=1)
    assert done.returncode == 1
    for kind, calls in (
        ("exit", 1),
        ("set", 1),
        ("cancel", 1),
        ("other", 4),
        ("key", 1),
        ("bug", 1),
    ):
        assert done.stderr.count(f"called with {kind} ") == calls
    assert "record 1 failed: SystemExit: 3 (work.py:" in done.stderr
    assert "record 2 failed: TypeError: Object of type set is not JSON" in done.stderr
    assert "record 3 failed: CancelledError" in done.stderr
    assert "record 4 failed: LaterError: not yet" in done.stderr
    assert "record 5 failed: RefusedError: no such key" in done.stderr
    assert "record 6 failed: NameError" in done.stderr


def test_invalid_retry_after_is_ignored(tmp_path: Path, files: Files) -> None:
    files("odd")
    done = run(tmp_path, "work:hopeless", "--retries", "1")
    assert done.stderr.count("called with odd") == 2
    assert "record 1 failed: LaterError: not yet" in done.stderr


def test_throttled_answer_delays_all_calls_and_costs_no_attempt(
    tmp_path: Path, files: Files
) -> None:
    files(*range(20))
    done = run(tmp_path, "work:later", limit=1)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out.jsonl") == [*range(20)]


def test_throttled_calls_are_counted_apart_from_attempts(tmp_path: Path, files: Files) -> None:
    files(0)
    options = ["--retries", "1", "--errors", "errors.jsonl", "--report", "report.html"]
    done = run(tmp_path, "work:later_and_bad", *options, limit=1)
    assert done.returncode == 1
    assert "0 done, 1 failed" in done.stderr
    assert "; 2 calls were throttled\n" in done.stderr
    [found] = results(tmp_path / "errors.jsonl")
    assert (found["attempts"], found["throttled"], found["message"]) == (2, 2, "bad")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ">1<" in page.split("retries</h2>")[1][:60]
    assert ">2<" in page.split("throttled</h2>")[1][:60]
    # Without a cooldown, they are attempts.
    done = run(tmp_path, "work:later_and_bad", *options, *OFF, limit=1)
    [found] = results(tmp_path / "errors.jsonl")
    assert (found["attempts"], found["throttled"], found["message"]) == (2, 0, "not yet")
    assert "throttled" not in done.stderr
    assert "throttled</h2>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_too_long_a_delay_fails_its_record(tmp_path: Path, files: Files) -> None:
    files(0, 1)
    done = run(tmp_path, "work:much_later", limit=1)
    assert done.returncode == 1
    assert "record 2 failed: ThrottledError: " in done.stderr
    assert results(tmp_path / "out.jsonl") == [0]


def test_waiting_retry_does_not_delay_others(tmp_path: Path, files: Files) -> None:
    files(*range(20))
    done = run(tmp_path, "work:later", "--retries", "1", *OFF, "--unordered", limit=1)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out.jsonl") == [*range(1, 20), 0]


def test_groups_with_retries(tmp_path: Path, files: Files) -> None:
    files(*({"number": number, "group": number % 3} for number in range(12)))
    options = ["--retries", "2", "--no-cooldown", "--group-by", "group", "--group-limit", "1"]
    done = run(tmp_path, "work:third_time", *options, limit=4)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out.jsonl") == [[n, 3 if n % 2 else 1] for n in range(12)]


def test_interruption_does_not_wait_for_retries(tmp_path: Path, files: Files) -> None:
    files(0, 1, 2)
    with running(tmp_path, "work:much_later", "--retries", "1", *OFF, limit=1) as process:
        wait_for_line(process, "stuck on 2")
        message = interrupt(process)
    assert "interrupted: 1 done, 0 failed" in message
    assert "not done: records 2, 3, and everything after line 3" in message


@pytest.mark.parametrize("function", ["work:hangs", "work:overruns"])
def test_timeout_fails_a_slow_call(tmp_path: Path, files: Files, function: str) -> None:
    files(*range(6))
    done = run(tmp_path, function, "--timeout", "0.5", "--errors", "errors.jsonl", limit=1)
    assert done.returncode == 1
    assert results(tmp_path / "out.jsonl") == [0, 2, 4]
    found = results(tmp_path / "errors.jsonl")
    assert [(one["record"], one["error"]) for one in found] == [
        (2, "TimeoutError"),
        (4, "TimeoutError"),
        (6, "TimeoutError"),
    ]
    assert all(one["seconds"] >= 0.5 for one in found)
    assert "record 2 ran longer than its timeout of 0.5 s" in found[0]["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--retries", "-1"],
            "argument --retries: must be a whole number from 0 to 1000000000, got '-1'",
        ),
        (["--retries", "few"], "argument --retries: must be a whole number from 0 to"),
        (["--timeout", "0"], "argument --timeout: must be a number of seconds above 0, got '0'"),
        (["--timeout", "1_0"], "argument --timeout: must be a number of seconds above 0, got"),
    ],
)
def test_bad_options_are_a_usage_error(
    tmp_path: Path, files: Files, options: list[str], message: str
) -> None:
    files(1)
    done = run(tmp_path, "work:double", *options)
    assert_one_line_error(done, message)
