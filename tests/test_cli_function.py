"""The function of `headrace map`: by module or file, refused if it cannot take a record, tried with `--first`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.cli.errors import UsageError
from headrace.cli.load_function import load_function
from tests.command import Files, assert_one_line_error, files_in, listing, run, run_words

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_in(tmp_path)


def test_function_of_a_file_sees_its_neighbours(tmp_path: Path, files: Files) -> None:
    files(1, 2)
    folder = tmp_path / "sub" / "deep"
    folder.mkdir(parents=True)
    (folder / "near.py").write_text("STEP = 5\n", encoding="utf-8")
    program = "import near\n\ndef add(n):\n    return n + near.STEP\n"
    (folder / "fn.py").write_text(program, encoding="utf-8")
    done = run(tmp_path, "sub/deep/fn.py:add", "--output", "-")
    assert (done.returncode, done.stdout) == (0, "6\n7\n")


FUNCTIONS = """\
import functools


def two(a, b):
    return a


def none():
    return 1


def key(a, *, b):
    return a


def fine(a, b=2, *c, **d):
    return a


class Class:
    def method(self, record):
        return record

    def __call__(self, record):
        return record


partial = functools.partial(two, b=2)
instance = Class()
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "two",
            "two(a, b) cannot be called with one argument, the record: missing a required argument: 'b'",
        ),
        ("none", "too many positional arguments; give it a parameter for the record"),
        ("key", "missing a required argument: 'b'; give other parameters a default value"),
        ("Class.method", "name a function, a static method or a method of an instance"),
        ("tow", "has no attribute 'tow'; did you mean 'two'?"),
    ],
)
def test_function_that_takes_no_record_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr("sys.path", [])
    (tmp_path / "signatures_of_cli.py").write_text(FUNCTIONS, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_function(f"{tmp_path / 'signatures_of_cli.py'}:{name}")
    assert message in str(caught.value)


def test_function_that_takes_a_record_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    path = tmp_path / "signatures_of_cli_too.py"
    path.write_text(FUNCTIONS, encoding="utf-8")
    for name in ("fine", "partial", "instance", "instance.method"):
        assert load_function(f"{path}:{name}")(3) == 3
    assert load_function("math:sqrt")(4) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("missing.py:f", "cannot import 'missing.py': no such file"),
        ("folder.py:f", "cannot import 'folder.py': not a file"),
        ("relative.py:f", "a module of a package is named package.module:function"),
        ("sub/fn:f", "a file is named with its suffix, as in path/to/file.py:function"),
        ("work.py", "must be given as MODULE:FUNCTION or FILE.py:FUNCTION, got 'work.py'"),
    ],
)
def test_file_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "relative.py").write_text("from . import other\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_function(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize("limit", [1, 50])
def test_first_records_are_printed_and_no_file_is_written(
    tmp_path: Path, files: Files, limit: int
) -> None:
    files(*range(2000))
    options = ["--output", "in.jsonl", "--errors", "e.jsonl", "--report", "r.html", "--first", "3"]
    done = run(tmp_path, "work:inverse", *options, limit=limit)
    assert (done.returncode, done.stdout) == (1, "1.0\n0.5\n")
    assert "record 1 failed: ZeroDivisionError" in done.stderr
    assert "2 done, 1 failed, in " in done.stderr
    assert "; no file was written (--first)" in done.stderr
    assert listing(tmp_path) == {"work.py", "in.jsonl"}
    assert (tmp_path / "in.jsonl").read_text(encoding="utf-8").count("\n") == 2000


def test_missing_options_are_named_with_an_example(tmp_path: Path) -> None:
    done = run_words(tmp_path, "map", "fn.py:name")
    assert_one_line_error(done, "add --input FILE (the file of the records; - is standard input)")
    for part in (
        " and --output FILE (or --first 3, to try three records)",
        " and --limit N (the most calls at once, or --limit auto), as in: ",
        "headrace map fn.py:name --input records.jsonl --output results.jsonl --limit 20\n",
    ):
        assert part in done.stderr


def test_output_may_be_left_out_with_first_only(tmp_path: Path, files: Files) -> None:
    files(1)
    where = ["map", "work:double", "--input", "in.jsonl", "--limit", "1"]
    assert_one_line_error(
        run_words(tmp_path, *where),
        "add --output FILE (or --first 3, to try three records), as in: ",
    )
    done = run_words(tmp_path, *where, "--first", "1")
    assert (done.returncode, done.stdout) == (0, "2\n")
