"""The maximum length of records of `headrace map`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.cli.file_format import FileFormat
from headrace.cli.lines import CHUNK
from headrace.cli.records import RecordReader
from tests.command import Files, assert_one_line_error, results, run, run_and_measure

if TYPE_CHECKING:
    from pathlib import Path


async def read(path: Path, most: int, *, text: bool = True) -> tuple[list[str], str | None]:
    with RecordReader(str(path), FileFormat("text" if text else "jsonl"), most) as reader:
        found = [record.text async for record in reader.records()]
        return found, None if reader.problem is None else str(reader.problem)


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("end", ["", "\n", "\nx\n"])
@pytest.mark.parametrize("most", [1, 3, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_max_record_is_exact_to_the_byte(tmp_path: Path, most: int, end: str) -> None:
    path = tmp_path / "in.txt"
    path.write_text(f"a\n{'x' * most}{end}", encoding="utf-8")
    following = ["x"] * end.count("x")
    assert await read(path, most) == (["a", "x" * most, *following], None)
    path.write_text(f"a\n{'x' * (most + 1)}{end}", encoding="utf-8")
    problem = f"{path}, line 2: longer than {most:,} bytes (--max-record)"
    assert await read(path, most) == (["a"], problem)


def test_memory_for_a_too_long_line_is_bounded(tmp_path: Path, files: Files) -> None:
    files()
    with (tmp_path / "in.jsonl").open("wb") as file:
        file.write(b"1\n2\n")
        file.truncate(200 << 20)  # a sparse file

    def peak(max_record: str) -> int:
        done, size = run_and_measure(tmp_path, "work:double", "--max-record", max_record)
        assert_one_line_error(done, "in.jsonl, line 3: longer than ")
        assert "; 2 results are in " in done.stderr
        return size

    # The bounds differ by 31 MiB.
    assert peak("32M") - peak("1M") < 40 << 20
    done = run(tmp_path, "work:double")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "line 3: longer than 67,108,864 bytes (--max-record)" in done.stderr
    assert results(tmp_path / "out.jsonl.partial.3") == [2, 4]


def test_endless_line_ends_the_reading(tmp_path: Path, files: Files) -> None:
    files()
    done = run(tmp_path, "work:shout", "--text", "--input", "/dev/zero", "--max-record", "100K")
    assert done.returncode == 2
    assert (
        done.stderr == "headrace map: /dev/zero, line 1: longer than 102,400 bytes (--max-record)\n"
    )


@pytest.mark.loops("asyncio")
async def test_out_of_memory_is_reported_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("headrace.cli.record._decode", refuse)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n123\n")
    problem = f"{path}, line 2: not enough memory for its 4 bytes"
    assert await read(path, 10, text=False) == ([], problem)


def test_invalid_max_record_is_a_usage_error(tmp_path: Path, files: Files) -> None:
    files(1)
    for size in ("0", "64MB"):
        done = run(tmp_path, "work:double", "--max-record", size)
        assert_one_line_error(done, "argument --max-record: must be a size from 1 to 1024G")
