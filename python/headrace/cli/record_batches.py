"""Records of each format, in batches. `RecordReader` takes the batches one by one, each in a thread.

A batch has at most `MAX_BATCH` records and ends where the next record has to be read. So records that a pipe has
delivered do not wait for later ones, and memory does not grow with the input.
"""

from __future__ import annotations

import csv
import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from headrace.cli.lines import Lines
from headrace.cli.record import FailedJson, Json, PlainText, Record, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from headrace.cli.record import RecordKind

MAX_BATCH = 1000
"""The largest number of records in a batch."""

BOM = b"\xef\xbb\xbf"
"""The mark with which some programs begin a file in UTF-8."""

FAILED_FIELDS = frozenset(
    {"record", "error", "message", "where", "attempts", "throttled", "seconds", "input"}
)
"""Fields of each line in a file of failed records, which `encode_error_line` writes. It begins and ends with the same two."""

_LAST_FIELD = ', "input": '


class InvalidRecordError(Exception):
    """A record is not valid. The records before it are."""

    def __init__(self, where: str, problem: object) -> None:
        super().__init__(f"{where}: {problem}")


def read_lines(
    file: BinaryIO, max_size: int, *, text: bool, find_failed: bool
) -> Iterator[list[Record]]:
    """Yield the records of JSON lines or plain lines. In JSON lines, blank lines are skipped.

    Args:
        file: the input.
        max_size: the longest line in bytes.
        text: whether the lines are plain text.
        find_failed: whether a file of failed records is recognised. Then each record is one that failed, with the number
            that it had.

    Raises:
        InvalidRecordError: a line is not a valid record.
    """
    lines = Lines(file, max_size)
    kind: RecordKind = PlainText() if text else Json()
    batch: list[Record] = []
    is_first, has_failed, size = True, False, 0
    try:
        for line in lines:
            number, size = lines.number, len(line)
            content = line.removeprefix(BOM) if number == 1 else line
            if not text and not content.strip():
                continue
            source = _decode(content).removesuffix("\n").removesuffix("\r")
            if is_first:
                is_first = False
                if find_failed and _is_failed_record(source):
                    has_failed, kind = True, FailedJson()
            if has_failed:
                number, source = _failed_record(source)
            batch.append(Record(number, kind.value(source), source, size, kind))
            if len(batch) >= MAX_BATCH or not lines.has_line:
                yield batch
                batch = []
    except (ValueError, MemoryError) as error:
        if batch:
            yield batch
        problem = (
            str(error)
            if isinstance(error, ValueError)
            else f"not enough memory for its {size:,} bytes"
        )
        if lines.number == 1 and problem.startswith("not JSON"):
            problem += "; --text reads plain lines, and --input-format names another format"
        raise InvalidRecordError(f"line {lines.number}", problem) from error


def _is_failed_record(source: str) -> bool:
    if not source.startswith('{"record": '):
        return False
    try:
        # The quick check above leaves only objects.
        value: dict[str, Any] = json.loads(source)
    except (ValueError, RecursionError):
        return False
    return next(reversed(value)) == "input" and value.keys() >= FAILED_FIELDS


def _failed_record(source: str) -> tuple[int, str]:
    """Return the number of a failed record, and the exact text of the record, which is the last field."""
    if not _is_failed_record(source):
        raise ValueError("not a failed record, as the lines before it are")
    # A quote within the message is escaped, so the first match is the field.
    number: int = json.loads(source)["record"]
    return number, source.partition(_LAST_FIELD)[2].rstrip().removesuffix("}")


def read_table(file: BinaryIO, max_size: int, delimiter: str) -> Iterator[list[Record]]:
    """Yield the rows of CSV or TSV, as dictionaries by the names in the first row. All values are text.

    A header without a comma and with a semicolon has semicolons as delimiters.

    Raises:
        InvalidRecordError: a row is not valid.
    """
    lines = Lines(file, max_size)
    # The limit is the module's: nothing else in this process reads tables with it.
    csv.field_size_limit(max_size)
    batch: list[Record] = []
    where = "line 1"
    try:
        decoded = (_decode(line) for line in lines)
        first = next(decoded, "").removeprefix("\ufeff")
        if delimiter == "," and delimiter not in first and ";" in first:
            delimiter = ";"
        rows = csv.reader(
            chain([first] if first else [], decoded), delimiter=delimiter, strict=True
        )
        no_columns: list[str] = []
        columns = next((row for row in rows if row), no_columns)
        _check_columns(columns)
        kind = Row(columns)
        while True:
            number = rows.line_num + 1
            # A row begins where the one before has ended. `lines` is ahead of it only when it cannot be decoded.
            where = f"line {number}"
            row = next(rows, None)
            if row is None:
                break
            if row:
                if len(row) != len(columns):
                    raise ValueError(f"has {len(row)} fields, and the header has {len(columns)}")
                batch.append(Record(number, kind.value(row), row, 0, kind))
            if batch and (len(batch) >= MAX_BATCH or not lines.has_line):
                yield batch
                batch = []
    except Exception as error:
        # Also where a row that spans chunks cannot be read.
        if batch:
            yield batch
        if isinstance(error, csv.Error):
            raise InvalidRecordError(where, _explain(error)) from error
        if isinstance(error, ValueError):
            raise InvalidRecordError(where, error) from error
        raise


def _explain(error: csv.Error) -> str:
    problem = str(error)
    if "field limit" in problem:
        return f"{problem} (--max-record), or its closing quote is missing"
    if problem == "unexpected end of data":
        return "not valid CSV: a closing quote is missing"
    return f"not valid CSV: {problem}"


def _check_columns(columns: list[str]) -> None:
    for index, name in enumerate(columns):
        if name in columns[:index]:
            raise ValueError(f"the header names the column {name!r} twice; each needs its own name")


def _decode(line: bytes | bytearray) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8: {error.reason} at byte {error.start + 1}; iconv converts the file"
        ) from None
