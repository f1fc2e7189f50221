"""Lazy reading of records. `map` reads with a `RecordReader`.

The input is read one batch at a time, once all records of the previous batch are used, so memory does not grow with
the input.

An invalid record ends the reading. The error is kept in `RecordReader.problem`, because the records before that one are
valid and are still processed.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from io import BufferedReader, FileIO
from typing import TYPE_CHECKING, BinaryIO, cast

from headrace.cli.compression import decompress, describe_damage
from headrace.cli.errors import CommandError
from headrace.cli.json_array import read_array
from headrace.cli.record_batches import BOM, InvalidRecordError, read_lines, read_table
from headrace.cli.signals import interruptible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Self

    from headrace.cli.file_format import FileFormat
    from headrace.cli.record import Record


class RecordReader:
    """Reads the records of a file, or of standard input for `-`.

    A record longer than `max_size` bytes is not valid.

    Args:
        path: the file.
        file_format: its format.
        max_size: the longest record in bytes.
        find_failed: whether a file of failed records is recognised, from which the records are read.

    Raises:
        CommandError: the file cannot be opened, or a package for its format is not installed.
    """

    def __init__(
        self, path: str, file_format: FileFormat, max_size: int, *, find_failed: bool = False
    ) -> None:
        self.name: str = "standard input" if path == "-" else path
        self.problem: CommandError | None = None
        self.unit: str = "record" if file_format.kind in {"json", "parquet", "arrow"} else "line"
        """The thing that the number of a record counts."""
        self.size: float | None = None
        """The size of the input, of which each record has a part; None if unknown."""
        self._format = file_format
        self._max_size = max_size
        self._find_failed = find_failed
        # Kept: one that is dropped would close the file that it reads from.
        self._content: object = None
        try:
            # Opening a named pipe blocks until its other end is opened.
            with interruptible():
                # Unbuffered: a read from a pipe returns available bytes instead of waiting for a whole chunk.
                self._file = FileIO(os.dup(0) if path == "-" else path)
            status = os.fstat(self._file.fileno())
            if stat.S_ISREG(status.st_mode):
                self.size = status.st_size
            # Records that are not lines share the bytes that were read for their batch.
            self._is_shared = file_format.kind not in {"jsonl", "text"} or bool(
                file_format.compression
            )
        except OSError as error:
            raise self._read_error(error) from error
        try:
            self._batches = self._open()
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError):
                raise self._read_error(error) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open(self) -> Iterator[list[Record]]:
        kind, max_size = self._format.kind, self._max_size
        if self._format.is_columnar:
            from headrace.cli.columnar import Columnar

            self._content = columnar = Columnar(self._file, kind, self.name)
            self.size, self._is_shared = columnar.size, False
            return columnar.read()
        # An empty file has no records in any format, though it is not valid compressed data.
        compression = None if self.size == 0 else self._format.compression
        file = decompress(self._file, compression, self.name)
        if kind == "json" and file is self._file:
            file = cast("BinaryIO", BufferedReader(self._file))  # to look at its beginning
        self._content = file
        if kind in {"csv", "tsv"}:
            return read_table(file, max_size, "\t" if kind == "tsv" else ",")
        if kind == "json":
            return self._read_json(file)
        return read_lines(file, max_size, text=kind == "text", find_failed=self._find_failed)

    def _read_json(self, file: BinaryIO) -> Iterator[list[Record]]:
        """Read an array. Without an option, a file that does not begin with a bracket has JSON lines."""
        if not self._format.is_named:
            head = cast("BufferedReader", file).peek(1).removeprefix(BOM).lstrip()
            if head[:1] != b"[":
                yield from read_lines(
                    file, self._max_size, text=False, find_failed=self._find_failed
                )
                return
        yield from read_array(file, self._max_size)

    async def records(self) -> AsyncIterator[Record]:
        """Yield the records in order. An invalid one sets `problem` and ends the iteration."""
        before = 0
        no_records: list[Record] = []
        while True:
            try:
                batch = await _in_daemon_thread(lambda: next(self._batches, no_records))
            except OSError as error:
                self.problem = self._read_error(error)
                return
            except InvalidRecordError as error:
                self.problem = CommandError(f"{self.name}, {error}")
                return
            except Exception as error:
                if (damage := describe_damage(error)) is None:
                    raise
                self.problem = CommandError(f"cannot read {self.name}: {damage}")
                return
            if not batch:
                return
            if self._is_shared and self.size is not None:
                position = self._file.tell()
                part, before = (position - before) / len(batch), position
                for record in batch:
                    record.size = part
            for record in batch:
                yield record

    def _read_error(self, error: OSError) -> CommandError:
        reason = describe_damage(error) or error.strerror or str(error)
        return CommandError(f"cannot read {self.name}: {reason}")


async def _in_daemon_thread(read: Callable[[], list[Record]]) -> list[Record]:
    """Run `read` in a daemon thread of its own, unlike `asyncio.to_thread`.

    A read from a terminal or a pipe may never return. It must not occupy a thread of the pool or delay the exit of an
    interrupted process. Starting a thread costs less than reading and parsing a batch.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Record]] = loop.create_future()

    def set_outcome(batch: list[Record], error: BaseException | None) -> None:
        if future.done():  # the waiting task was cancelled
            return
        if error is None:
            future.set_result(batch)
        else:
            future.set_exception(error)

    def run() -> None:
        batch: list[Record] = []
        problem = None
        try:
            batch = read()
        except BaseException as error:  # raised by the task that waits, of any type
            problem = error
        try:
            loop.call_soon_threadsafe(set_outcome, batch, problem)
        except RuntimeError:
            pass  # the loop is closed, so no task waits

    threading.Thread(target=run, name="headrace-read", daemon=True).start()
    return await future
