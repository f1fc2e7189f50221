"""Failed records of `headrace map`: their messages, their file as input of another run, and numbered results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.cli.failures import MAX_KEPT, MAX_LISTED, Failures
from headrace.cli.record_error import RecordError
from tests.command import Files, files_in, results, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_in(tmp_path)


# Messages


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        ("invalid literal: 'a'", "invalid literal: 'b'", True),
        ("no answer for https://host/a?b=1", "no answer for https://host/b", True),
        ("request req_1 9f8e7d6c-1 failed", "request req_1 0a1b2c3d-2 failed", True),
        ("row 17 of 9", "row 18 of 9", True),
        ("status 404", "status 500", False),
        ("no such model", "no such key", False),
        ("x" * 500 + "1a", "x" * 500 + "2b", True),
    ],
)
def test_equal_errors_differ_in_quotes_and_numbers(one: str, other: str, are_equal: bool) -> None:
    failures = Failures()
    failures.add(3, RecordError("ValueError", one, "w.py:1"))
    failures.add(7, RecordError("ValueError", other, "w.py:1"))
    assert (len(failures.messages()) == 1) is are_equal
    failures.add(8, RecordError("TypeError", one, "w.py:1"))
    failures.add(9, RecordError("ValueError", one, "w.py:2"))
    assert len(failures.messages()) == 4 - are_equal


def test_names_of_missing_keys_are_told_apart() -> None:
    failures = Failures()
    for number, name in enumerate(["'a'", "'b'", "'a'"]):
        failures.add(number, RecordError("KeyError", name, "w.py:1"))
    assert failures.messages() == [
        "2 records failed, the first is record 0: KeyError: 'a' (w.py:1)",
        "record 1 failed: KeyError: 'b' (w.py:1)",
    ]


def test_failures_are_bounded_and_all_counted() -> None:
    failures = Failures()
    for number in range(3 * MAX_KEPT):
        failures.add(number, RecordError(f"Error{number}", "m", ""))
    failures.add(0, RecordError("Error7", "m", ""))
    lines = failures.messages()
    assert lines[0] == "2 records failed, the first is record 7: Error7: m"
    assert len(lines) == MAX_LISTED + 1
    assert lines[-1] == f"and {3 * MAX_KEPT - MAX_LISTED:,} more failed"


def test_place_is_in_the_code_of_the_user(tmp_path: Path, files: Files) -> None:
    files("{")
    library = tmp_path / "site-packages" / "client.py"
    library.parent.mkdir()
    library.write_text("def fail(n):\n    raise OSError('no route')\n", encoding="utf-8")
    program = (
        "import json, sys\nsys.path.append('site-packages')\nimport client\n"
        "def f(n):\n    client.fail(n)\ndef g(n):\n    json.loads(n)\n"
    )
    (tmp_path / "own.py").write_text(program, encoding="utf-8")
    for name, place in (("own:f", "(own.py:5)"), ("own:g", "(own.py:7)")):
        assert place in run(tmp_path, name).stderr
    # There is no other place.
    done = run(tmp_path, "own:client.fail")
    assert "OSError: no route (client.py:2)" in done.stderr
    done = run(tmp_path, "math:sqrt")
    assert "record 1 failed: TypeError: must be real number, not str\n" in done.stderr


# The file of failed records


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", ["failed.jsonl", "failed.jsonl.gz"])
def test_failed_records_can_be_called_again(
    tmp_path: Path, files: Files, text: bool, name: str
) -> None:
    # The message has the text that begins the last field.
    content = '1\n2\n{"a": 1.50}\n' if not text else 'x\ny"}\n, "input": \n'
    files(text=content)
    options = ["--text"] * text
    assert run(tmp_path, "work:spoil", "--errors", name, *options).returncode == 1
    again = ["--input", name, "--errors", "left.jsonl", *options]
    done = run(tmp_path, "work:picky", "--number", *again, limit=1)
    assert done.returncode == 0, done.stderr
    assert f"{name} has the failed records of an earlier run" in done.stderr
    values = content.splitlines() if text else [1, 2, {"a": 1.5}]
    found = sorted(results(tmp_path / "out.jsonl"), key=lambda line: line["record"])
    assert found == [{"record": n, "result": value} for n, value in enumerate(values, 1)]
    # A second failure keeps the exact record and its first number.
    run(tmp_path, "work:spoil", *again, limit=1)
    left = results(tmp_path / "left.jsonl")
    assert sorted(line["record"] for line in left) == [1, 2, 3]
    if not text:
        assert '"input": {"a": 1.50}}\n' in (tmp_path / "left.jsonl").read_text(encoding="utf-8")


def test_lines_of_a_failed_file_can_be_taken_as_they_are(tmp_path: Path, files: Files) -> None:
    files(1)
    run(tmp_path, "work:spoil", "--errors", "failed.jsonl")
    done = run(tmp_path, "work:picky", "--input", "failed.jsonl", "--input-format", "jsonl")
    assert done.stderr.count("\n") == 1
    assert results(tmp_path / "out.jsonl")[0]["error"] == "RuntimeError"


PAIR = """
import asyncio

met = asyncio.Barrier(2)


async def pair(record):
    await met.wait()
    return record
"""


def test_joined_failed_files_may_have_equal_numbers(tmp_path: Path) -> None:
    line = '{"record": 3, "error": "E", "message": "", "where": "", "attempts": 1, "throttled": 0, "seconds": 1, "input": "%s"}\n'
    (tmp_path / "in.jsonl").write_text(line % "a" + line % "b")
    (tmp_path / "twice.py").write_text(PAIR)
    # Both run at the same time.
    done = run(tmp_path, "twice:pair", "--output", "-", "--timeout", "20")
    assert (done.returncode, done.stdout) == (0, '"a"\n"b"\n'), done.stderr


def test_other_line_in_a_failed_file_is_named(tmp_path: Path, files: Files) -> None:
    files(1)
    run(tmp_path, "work:spoil", "--errors", "failed.jsonl")
    with (tmp_path / "failed.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"record": 3}\n')
    done = run(tmp_path, "work:picky", "--input", "failed.jsonl")
    assert done.returncode == 2
    assert "failed.jsonl, line 2: not a failed record, as the lines before it are" in done.stderr
    assert results(tmp_path / "out.jsonl.partial") == [1]


# Numbers


def test_numbered_results_name_their_lines(tmp_path: Path, files: Files) -> None:
    files(text='{"a": 1}\n\n[2]\n')
    done = run(tmp_path, "work:picky", "--number", "--unordered")
    assert done.returncode == 0, done.stderr
    found = sorted(results(tmp_path / "out.jsonl"), key=lambda line: line["record"])
    assert found == [{"record": 1, "result": {"a": 1}}, {"record": 3, "result": [2]}]


def test_number_is_a_column_of_a_table(tmp_path: Path, files: Files) -> None:
    files({"a": 1}, {"record": "x", "a": 2}, "y")
    done = run(tmp_path, "work:picky", "--number", "--output", "out.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == (
        "record,a,result.record,result\n1,1,,\n2,2,x,\n3,,,y\n"
    )


def test_tokens_may_be_text_in_a_table(tmp_path: Path, files: Files) -> None:
    files()
    (tmp_path / "in.csv").write_text("n\n5\nmany\n", encoding="utf-8")
    options = ["--input", "in.csv", "--tokens", "n", "--token-rate", "1000/s"]
    done = run(tmp_path, "work:picky", *options)
    assert done.returncode == 1
    assert "record 3 failed: ValueError: the field 'n' must be a number of tokens" in done.stderr
    assert results(tmp_path / "out.jsonl") == [{"n": "5"}]
