"""`export`: writes the last state of each call of a journal to JSON lines, SQLite or Parquet. `journal_command` calls it.

Each call is a row:

| column | content |
|---|---|
| `key` | the record, or its beginning if it is long; of a journal of a program, the `repr` of the key |
| `occurrence` | the number of earlier calls with the key |
| `status` | `returned`, `failed`, `unstored`, or `started`: in flight |
| `time` | of its last record, in seconds since the epoch |
| `attempts` | the number of attempts; 0 if it is in flight |
| `format`, `value` | the result, or the error, as described at `exported_value`: a value of JSON, as text in SQLite and Parquet |
| `spend` | the amounts of budgets, as an object of JSON |
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli.errors import CommandError, UsageError
from headrace.cli.journal_log import JournalLog, exported_value
from headrace.cli.optional import import_arrow
from headrace.cli.output import encode_line, write_error
from headrace.cli.replacement import Replacement, write_all
from headrace.cli.run_journal import record_text

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPORTS = {
    "jsonl": (".jsonl", ".ndjson"),
    "sqlite": (".sqlite", ".sqlite3", ".db"),
    "parquet": (".parquet", ".pq"),
}
"""The formats and their suffixes."""

ROWS = 1000
"""The number of rows that are written at once."""

Row = dict[str, Any]


def check_packages(kind: str, path: str) -> None:
    """Refuse a format whose package is not installed.

    Raises:
        CommandError: it is not installed.
    """
    if kind == "parquet":
        import_arrow(f"write {path}")


def export(log: JournalLog, path: str, kind: str, *, trusts: bool, replaces: bool) -> None:
    """Write a journal to a file, which appears whole or not at all; to standard output for `-`.

    Args:
        log: the journal.
        path: the file.
        kind: one of `EXPORTS`.
        trusts: whether pickles are read.
        replaces: whether the file may exist.

    Raises:
        CommandError: the journal cannot be read, or the file cannot be written.
        BrokenPipeError: the reader of standard output has left.
    """
    rows = _rows(log, trusts=trusts)
    if path == "-":
        for row in rows:
            write_all(1, encode_line(row))
        return
    target = Path(os.path.realpath(path))
    try:
        with Replacement(target) as replacement:
            try:
                _WRITERS[kind](rows, replacement)
                if target.exists() and not replaces:
                    raise UsageError(f"{path} exists now; name another file")
                replacement.publish()
            except BaseException:
                if not replacement.is_published:
                    with suppress(OSError):
                        replacement.discard()
                raise
    except OSError as error:
        raise write_error(path, error) from error
    except sqlite3.Error as error:
        raise CommandError(f"cannot write {path}: {error}") from error


def _rows(log: JournalLog, *, trusts: bool) -> Iterator[Row]:
    for record in log.latest():
        key = record_text(record.key)
        kind, value = exported_value(record, trusts=trusts)
        yield {
            "key": repr(record.key) if key is None else key,
            "occurrence": record.occurrence,
            "status": record.status,
            "time": record.time,
            "attempts": record.attempts,
            "format": kind,
            "value": value,
            "spend": record.spend,
        }


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while some := list(islice(rows, ROWS)):
        yield some


def _flat(row: Row) -> Row:
    """Return a row for a table: values of JSON are text."""
    return row | {name: encode_line(row[name]).decode().rstrip("\n") for name in ("value", "spend")}


def _write_lines(rows: Iterator[Row], replacement: Replacement) -> None:
    for some in _batches(rows):
        replacement.write(b"".join(map(encode_line, some)))


def _write_sqlite(rows: Iterator[Row], replacement: Replacement) -> None:
    # Without a journal of its own: the file is published when it is whole.
    with closing(sqlite3.connect(replacement.path)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute(
            "CREATE TABLE calls (key TEXT, occurrence INTEGER, status TEXT, time REAL, attempts INTEGER, format TEXT, "
            "value TEXT, spend TEXT)"
        )
        for some in _batches(rows):
            database.executemany(
                "INSERT INTO calls VALUES (:key, :occurrence, :status, :time, :attempts, :format, :value, :spend)",
                [_flat(row) | {"key": _valid(row["key"])} for row in some],
            )
        database.commit()


def _write_parquet(rows: Iterator[Row], replacement: Replacement) -> None:
    arrow = import_arrow("write Parquet")
    parquet = import_arrow("write Parquet", "pyarrow.parquet")
    text = arrow.string()
    schema = arrow.schema(
        [
            ("key", text),
            ("occurrence", arrow.int64()),
            ("status", text),
            ("time", arrow.float64()),
            ("attempts", arrow.int64()),
            ("format", text),
            ("value", text),
            ("spend", text),
        ]
    )
    with replacement.open() as file, parquet.ParquetWriter(file, schema) as writer:
        for some in _batches(rows):
            flat = [_flat(row) | {"key": _valid(row["key"])} for row in some]
            writer.write_table(arrow.Table.from_pylist(flat, schema=schema))


def _valid(text: str) -> str:
    """Escape lone surrogates, which UTF-8 has not."""
    return text.encode(errors="backslashreplace").decode()


_WRITERS = {"jsonl": _write_lines, "sqlite": _write_sqlite, "parquet": _write_parquet}
