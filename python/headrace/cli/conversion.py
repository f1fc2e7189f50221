"""Conversion of finished results from JSON lines to the format of the output. `Output` converts at the end of a run.

Until then the results are JSON lines in a temporary file. So a run that is stopped or killed leaves all of its results
in a form that needs no end, and the columns of a table are those of all results.

A result that is not an object is the column `result` of a table.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from headrace.cli.compression import compress
from headrace.cli.errors import CommandError
from headrace.cli.optional import import_arrow, import_zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.cli.file_format import FileFormat

    Rows = Callable[[], Iterator[dict[str, Any]]]
    """Reads the results from the first on, each as a row of a table."""

MAX_COLUMNS = 10_000
"""The most columns of a table."""

MAX_ROWS, MAX_SIZE = 10_000, 16 << 20
"""The bounds of the rows that are converted at once: their number, and the length of their values."""

NUMBER, RESULT = "record", "result"
"""The fields of a numbered result. `RESULT` is also the column of results that are not objects."""

COPY_CHUNK = 1 << 20


def convert(
    lines: BinaryIO, output: BinaryIO, file_format: FileFormat, name: str, *, is_numbered: bool
) -> None:
    """Write results in a format.

    Args:
        lines: the results as JSON lines, or as plain lines for the format `text`. It is read up to twice.
        output: the file to write to.
        file_format: its format.
        name: its name in messages.
        is_numbered: whether each result has its number. In a table they are columns side by side.

    Raises:
        CommandError: the results do not fit the format.
        OSError: the output cannot be written.
    """
    rows = partial(_rows, lines, is_numbered=is_numbered)
    with compress(output, file_format.compression, name) as file:
        if file_format.kind == "json":
            _write_array(lines, file)
        elif file_format.kind in {"csv", "tsv"}:
            delimiter = "\t" if file_format.kind == "tsv" else ","
            _write_table(rows, file, delimiter, name)
        elif file_format.is_columnar:
            _write_columnar(rows, file, file_format.kind, name)
        else:
            shutil.copyfileobj(lines, file, COPY_CHUNK)


def check_packages(file_format: FileFormat, name: str) -> None:
    """Refuse a format before any record is read.

    Raises:
        CommandError: a package for the format is not installed.
    """
    if file_format.is_columnar:
        import_arrow(f"write {name}")
    if file_format.compression == "zst":
        import_zstd(f"write {name}")


def _write_array(lines: BinaryIO, output: BinaryIO) -> None:
    separator = b"[\n"
    for line in lines:
        output.write(separator + line.rstrip(b"\n"))
        separator = b",\n"
    output.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _rows(lines: BinaryIO, *, is_numbered: bool) -> Iterator[dict[str, Any]]:
    lines.seek(0)
    for line in lines:
        value = json.loads(line)
        number = {}
        if is_numbered:
            number, value = {NUMBER: value[NUMBER]}, value[RESULT]
        row = cast("dict[str, Any]", value) if isinstance(value, dict) else {RESULT: value}
        if is_numbered and NUMBER in row:
            row = {f"{RESULT}.{name}" if name == NUMBER else name: row[name] for name in row}
        yield number | row


def _columns(rows: Rows, name: str) -> list[str]:
    """Return the columns of all results, in the order of their first value."""
    columns: dict[str, None] = {}
    for row in rows():
        columns.update(dict.fromkeys(row))
        if len(columns) > MAX_COLUMNS:
            raise CommandError(
                f"cannot write {name}: the results have more than {MAX_COLUMNS:,} fields, each a column; "
                "write .jsonl instead"
            )
    return list(columns)


def _write_table(rows: Rows, output: BinaryIO, delimiter: str, name: str) -> None:
    columns = _columns(rows, name)
    text = io.TextIOWrapper(output, encoding="utf-8", newline="", errors="backslashreplace")
    # A line feed is the end of a line everywhere but in the standard, and in other outputs of the command.
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    if columns:
        writer.writerow(columns)
    for row in rows():
        writer.writerow([_cell(row.get(column)) for column in columns])
    text.flush()
    text.detach()


def _cell(value: Any) -> str:
    """Return a value as text: nothing for null, and JSON for anything but text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write_columnar(rows: Rows, output: BinaryIO, kind: str, name: str) -> None:
    purpose = f"write {name}"
    arrow = import_arrow(purpose)
    columns = _columns(rows, name)
    column = ""
    types: dict[str, Any] = dict.fromkeys(columns, arrow.null())
    try:
        # The first rows may have nothing but nulls, or whole numbers before fractions.
        for batch in _batches(rows):
            for column in columns:
                found = arrow.infer_type([row.get(column) for row in batch])
                types[column] = _unify(arrow, types[column], found)
        schema = arrow.schema(types.items())
        file: Any = arrow.PythonFile(output, "w")
        writer: Any = (
            import_arrow(purpose, "pyarrow.parquet").ParquetWriter(file, schema, compression="zstd")
            if kind == "parquet"
            else import_arrow(purpose, "pyarrow.ipc").new_file(file, schema)
        )
        with writer:
            for batch in _batches(rows):
                arrays: list[Any] = []
                for column in columns:
                    values = [row.get(column) for row in batch]
                    arrays.append(arrow.array(values, type=types[column]))
                writer.write_batch(arrow.record_batch(arrays, schema=schema))
    except (arrow.ArrowException, OverflowError) as error:
        raise CommandError(
            f"cannot write {name}: the field {column!r} of the results does not fit one type ({_short(error)}); "
            "write .jsonl or .csv instead"
        ) from error


def _unify(arrow: Any, one: Any, other: Any) -> Any:
    """Return a type for the values of both."""
    if one == other:
        return one
    schemas = [arrow.schema([("", each)]) for each in (one, other)]
    return arrow.unify_schemas(schemas, promote_options="permissive").field(0).type


def _batches(rows: Rows) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows in batches."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows():
        batch.append(row)
        # The length of the text is most of the size of a large row.
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) >= MAX_ROWS or size >= MAX_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
