"""Formats of inputs and outputs of `headrace map`: by suffix or option, valid, damaged and large."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

from headrace.cli import json_array, lines, record_batches
from headrace.cli.conversion import MAX_ROWS
from headrace.cli.errors import CommandError
from headrace.cli.file_format import FileFormat
from headrace.cli.output import Output
from headrace.cli.records import RecordReader
from tests.command import (
    Files,
    assert_one_line_error,
    command,
    files_in,
    listing,
    results,
    run,
    run_and_measure,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ROWS: list[dict[str, Any]] = [
    {"id": "1", "text": "two\nlines, and a comma"},
    {"id": "2", "text": 'ü "quoted"'},
    {"id": "3", "text": ""},
]

SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".json.gz"]
OPTIONAL = [(".jsonl.zst", "backports.zstd"), (".parquet", "pyarrow"), (".arrow", "pyarrow")]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_in(tmp_path)


def need(package: str) -> None:
    if package == "backports.zstd":
        pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else package)
    else:
        pytest.importorskip(package)


def read(path: Path, **options: Any) -> tuple[list[Any], str | None]:
    """Return the records of a file, and the problem that ended the reading."""

    async def collect() -> tuple[list[Any], str | None]:
        named = options.pop("named", None)
        chosen = FileFormat.of(str(path)) if named is None else FileFormat(named, is_named=True)
        with RecordReader(str(path), chosen, 1 << 20, **options) as reader:
            found = [(record.number, record.value) async for record in reader.records()]
            return found, None if reader.problem is None else str(reader.problem)

    return asyncio.run(collect())


def write(path: Path, values: Iterable[Any]) -> None:
    with Output(str(path), FileFormat.of(str(path))) as output:
        for value in values:
            output.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        output.commit()


# By suffix


@pytest.mark.parametrize(
    ("suffix", "package"), [*((suffix, "json") for suffix in SUFFIXES), *OPTIONAL]
)
def test_each_format_can_be_read_and_written(tmp_path: Path, suffix: str, package: str) -> None:
    need(package)
    path = tmp_path / f"rows{suffix}"
    write(path, ROWS)
    found, problem = read(path)
    assert problem is None
    assert [value for _, value in found] == ROWS
    assert listing(tmp_path) == {path.name}
    write(path, [])
    assert read(path) == ([], None)


def test_command_reads_and_writes_by_suffix(tmp_path: Path, files: Files) -> None:
    files()
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbfgroup,number\r\na,1\r\n\r\nb,2")
    done = run(
        tmp_path, "work:picky", "--input", "in.csv", "--output", "out.csv", "--group-by", "group"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_bytes() == b"group,number\na,1\nb,2\n"
    assert listing(tmp_path) == {"work.py", "in.csv", "in.jsonl", "out.csv"}


def test_option_names_the_format_of_a_pipe(tmp_path: Path, files: Files) -> None:
    files()
    options = ["--input-format", "csv.gz", "--output", "-"]
    done = subprocess.run(
        command("work:picky", *options, input="-"),
        cwd=tmp_path,
        input=gzip.compress(b"a\n1\n"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b'{"a": "1"}\n')


def test_standard_library_reads_what_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.json", [1, None, "x"])
    assert json.loads((tmp_path / "a.json").read_bytes()) == [1, None, "x"]
    write(tmp_path / "a.csv.gz", [{"a": 1.5, "b": None}, {"c": [1]}, True, {"a": "x\r\ny"}])
    with gzip.open(tmp_path / "a.csv.gz", "rt", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["a", "b", "c", "result"],
            ["1.5", "", "", ""],
            ["", "", "[1]", ""],
            ["", "", "", "true"],
            ["x\r\ny", "", "", ""],
        ]
    write(tmp_path / "a.txt", ["one", {"a": 1}, "two"])
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == 'one\n{"a": 1}\ntwo\n'


def test_types_of_columns_are_those_of_all_results(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    write(path, [{"n": 1, "s": None}, {"n": 1.5, "list": [1]}, {"s": "x"}])
    assert parquet.read_table(path).to_pylist() == [
        {"n": 1.0, "s": None, "list": None},
        {"n": 1.5, "s": None, "list": [1]},
        {"n": None, "s": "x", "list": None},
    ]


def test_results_of_two_types_are_kept_as_lines(tmp_path: Path, files: Files) -> None:
    pytest.importorskip("pyarrow")
    files({"n": 1}, {"n": "x"})
    done = run(tmp_path, "work:picky", "--output", "out.parquet")
    assert_one_line_error(done, "the field 'n' of the results does not fit one type (")
    assert "write .jsonl or .csv instead; 2 results are in " in done.stderr
    assert results(tmp_path / "out.parquet.partial") == [{"n": 1}, {"n": "x"}]
    assert listing(tmp_path) == {"work.py", "in.jsonl", "out.parquet.partial"}


@pytest.mark.parametrize("suffix", [".csv", ".json.gz", ".parquet"])
def test_full_disk_keeps_the_lines(tmp_path: Path, files: Files, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    # The result as lines fits on the disk, and the file of random letters does not.
    rows = [{"column_with_a_long_name" * 9: n} for n in range(50)]
    name = f"out{suffix}"
    with (
        pytest.raises(CommandError, match=f"cannot write .*{name}: File too large"),
        Output(str(tmp_path / name), FileFormat.of(name)) as output,
    ):
        for row in rows:
            output.write(json.dumps(row).encode() + b"\n")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        try:
            output.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert results(tmp_path / f"{name}.partial") == rows
    assert listing(tmp_path) == {f"{name}.partial", "work.py"}


# Input that is not valid


@pytest.mark.parametrize(
    ("name", "content", "good", "problem"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", 1, "line 3: has 1 fields, and the header has 2"),
        ("a.csv", b'a\n1\n"x\ny\nz\n', 1, "line 3: not valid CSV: a closing quote is missing"),
        ("a.csv", b"a\n1\n\xff\n", 1, "line 3: not UTF-8: invalid start byte at byte 1"),
        ("a.csv", b"a,a\n1,2\n", 0, "line 1: the header names the column 'a' twice"),
        ("a.csv", b'a\n"' + b"x\n" * 600_000, 0, "line 2: field larger than field limit (1048576)"),
        (
            "a.csv",
            b"a\n" + b"x" * (2 << 20),
            0,
            "line 2: longer than 1,048,576 bytes (--max-record)",
        ),
        ("a.json", b"[1, 2", 2, "record 3: the file ends before the array does"),
        ("a.json", b'[1, "ab', 1, "record 2: the file ends before the array does"),
        ("a.json", b"[1, , 2]", 1, "record 2: not JSON: Expecting value"),
        ("a.json", b"[1 2]", 1, "record 2: not JSON: a comma or ] must be before '2'"),
        ("a.json", b"[1, NaN]", 1, "record 2: not JSON: NaN is not a JSON value"),
        ("a.json", b"[1, 2,]", 2, "record 3: not JSON: "),
        (
            "a.json",
            b"[1]\n[2]\n",
            1,
            "after the array: '['; for one JSON value a line, add --input-format jsonl",
        ),
        ("a.json", b'[1, "\xff"]', 1, "record 2: not UTF-8: invalid start byte"),
        ("a.json", b'\xef\xbb\xbf[1, "\xff"]', 1, "record 2: not UTF-8: invalid start byte"),
        ("a.json", b"[1, 2.x" + b" " * (3 << 20), 2, "record 3: not JSON: a comma or ] must be"),
        ("a.json", b"[" * 100_000, 0, "record 1: not valid: the JSON is nested too deeply"),
        ("a.json", b'["' + b"x" * (3 << 20), 0, "record 1: longer than 1,048,576 characters"),
        (
            "a.jsonl",
            b"a,b\n1,2\n",
            0,
            "line 1: not JSON: Expecting value at column 1; --text reads plain lines",
        ),
        ("a.jsonl.gz", gzip.compress(b"1\n2\n")[:-4], 2, "the compressed data is truncated"),
        ("a.jsonl.gz", b"1\n2\n", 0, "not valid gzip data: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"a\n1\n")[:-4] + b"\0\0\0\0", 1, "not valid gzip data: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_input_is_named_after_the_valid_records(
    tmp_path: Path, name: str, content: bytes, good: int, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found, message = read(path)
    assert len(found) == good
    assert message is not None
    assert message.startswith((f"{path}, ", "cannot read "))
    assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1"),
        ("a.arrow", b"not arrow"),
        ("a.parquet", b""),
        ("a.arrow", b"ARROW1\0\0"),
    ],
)
def test_invalid_columnar_input_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CommandError, match=rf"cannot read .*{name}: not valid (Parquet|Arrow): "):
        read(tmp_path / name)


def test_header_may_have_semicolons(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a;b\r\n1;"2,5"\r\n')
    assert read(tmp_path / "a.csv") == ([(2, {"a": "1", "b": "2,5"})], None)


def test_number_of_a_row_is_that_of_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a\n"x\ny"\n\nz')
    assert read(tmp_path / "a.csv") == ([(2, {"a": "x\ny"}), (5, {"a": "z"})], None)


def test_json_file_may_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n')
    assert read(path) == ([(1, {"a": 1}), (2, {"a": 2})], None)
    assert "not a JSON array, because it begins with '{'" in str(read(path, named="json")[1])
    path.write_bytes(b"[1]\n[2]\n")
    assert read(path, named="jsonl") == ([(1, [1]), (2, [2])], None)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_array_may_be_cut_anywhere(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(lines, "CHUNK", size)
    values = [
        12,
        -1.5e300,
        "ü\ud83d\ude00\n",
        True,
        None,
        [],
        {},
        [[1, {"a": [2]}]],
        0,
        10**40,
        "x" * 50,
    ]
    for text in (json.dumps(values), json.dumps(values, indent=2), " \n[ ] "):
        file = io.BytesIO(b"\xef\xbb\xbf" + text.encode())
        found = [record for batch in json_array.read_array(file, 100) for record in batch]
        assert [record.value for record in found] == json.loads(text)
        assert all(json.loads(record.json) == record.value for record in found)


def test_array_of_large_elements_is_read_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            parsed.append(len(s) - idx)
            return super().raw_decode(s, idx)

    monkeypatch.setattr(json, "JSONDecoder", Counting)
    monkeypatch.setattr(lines, "CHUNK", 1000)
    text = json.dumps(["x" * 1_000_000])
    (record,) = (
        one for batch in json_array.read_array(io.BytesIO(text.encode()), 1 << 30) for one in batch
    )
    assert record.value == "x" * 1_000_000
    assert sum(parsed) < 4 * len(text)


class Delivered(io.RawIOBase):
    """A pipe that has delivered some parts, and reports a read that would wait for the next."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)
        self.reads = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        return self.parts.pop(0) if self.parts else b""


@pytest.mark.parametrize(
    ("suffix", "parts"),
    [
        ("jsonl", (b"1\n2\n", b"3\n")),
        ("csv", (b"a\n1\n2\n", b"3\n")),
        ("json", (b'[{"a": 1}, [2]', b", 3]")),
    ],
)
def test_delivered_records_do_not_wait_for_later_ones(
    suffix: str, parts: tuple[bytes, ...]
) -> None:
    pipe = Delivered(*parts)
    file = cast("BinaryIO", pipe)
    if suffix == "jsonl":
        found = record_batches.read_lines(file, 100, text=False, find_failed=False)
    elif suffix == "csv":
        found = record_batches.read_table(file, 100, ",")
    else:
        found = json_array.read_array(file, 100)
    assert len(next(found)) == 2
    assert pipe.reads == 1
    assert len(next(found)) == 1


# Bad options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--input-format", "xml"],
            "--input-format: must be one of jsonl, json, csv, tsv, text, parquet, arrow",
        ),
        (["--output-format", "csv.bz2"], "--output-format: must be one of "),
        (["--text", "--input-format", "csv"], "--text and --input-format must not both be given"),
        (["--output", "-", "--output-format", "csv"], "--output-format csv needs a file"),
        (["--output", "pipe.csv"], "--output 'pipe.csv' needs a file"),
        (["--errors", "e.csv"], "--errors writes JSON lines"),
        (["--input", "a.parquet.gz"], "--input: parquet compresses its own columns"),
        (["--input", "missing.csv"], "cannot read missing.csv: No such file or directory"),
        (["--input", "folder.csv"], "cannot read folder.csv: Is a directory"),
        (["--input", "a.txt", "--group-by", "f"], "--group-by needs records with fields, got 'f'"),
    ],
)
def test_bad_format_is_a_one_line_error(
    tmp_path: Path, files: Files, options: list[str], message: str
) -> None:
    files(1)
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    assert_one_line_error(run(tmp_path, "work:double", *options), message)


@pytest.mark.parametrize(
    ("change", "package", "extra"),
    [
        ({"input": "a.parquet"}, "pyarrow", "parquet"),
        ({"output": "b.arrow"}, "pyarrow", "parquet"),
        ({"input": "a.csv.zst"}, "backports.zstd", "cli"),
        ({"output": "b.csv.zst"}, "backports.zstd", "cli"),
    ],
)
def test_missing_package_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    package: str,
    extra: str,
) -> None:
    for name in ("pyarrow", "backports", "backports.zstd", "compression", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    verb, name = ("read", change["input"]) if "input" in change else ("write", change["output"])
    path = tmp_path / name
    path.write_bytes(b"x")
    with pytest.raises(CommandError) as caught:
        if verb == "read":
            read(path)
        else:
            write(path, [])
    assert str(caught.value) == (
        f"cannot {verb} {path}: the package {package} is not installed; pip install 'headrace[{extra}]'"
    )


# Size


# `make soak` reads a million.
MANY = int(os.environ.get("HEADRACE_ROWS", "30000"))


@pytest.mark.parametrize(
    "suffix",
    [".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv.gz", ".parquet", ".arrow", ".txt", ".txt.zst"],
)
def test_memory_does_not_grow_with_the_input(tmp_path: Path, files: Files, suffix: str) -> None:
    if suffix in {".parquet", ".arrow"}:
        pytest.importorskip("pyarrow")
    if suffix.endswith(".zst") and sys.version_info < (3, 14):
        pytest.importorskip("backports.zstd")
    files()

    def peak(rows: int) -> int:
        values = ({"id": number, "text": "some text " * 20} for number in range(rows))
        write(tmp_path / f"in{suffix}", values)
        options = ["--input", f"in{suffix}", "--output", f"out{suffix}"]
        done, size = run_and_measure(tmp_path, "work:picky_async", *options)
        assert done.returncode == 0, done.stderr
        assert read_count(tmp_path / f"out{suffix}") == rows
        return size

    most = 24 << 20 if MANY < 1_000_000 else 100_000_000
    # Both fill the largest batch: before it is full, a batch of a columnar file grows with the input, as it may.
    assert peak(MANY) - peak(MAX_ROWS) < most


def read_count(path: Path) -> int:
    async def count() -> int:
        total = 0
        with RecordReader(str(path), FileFormat.of(str(path)), 1 << 20) as reader:
            async for _ in reader.records():
                total += 1
            assert reader.problem is None
        return total

    return asyncio.run(count())
