"""Lazy reading of records. `map` reads with a `RecordReader`.

The input is read one chunk at a time, once all records of the previous chunk are used, so memory does not grow with
the input. At most `max_size` bytes and one chunk of an incomplete line are held.

A line that is not a valid record ends the reading. The error is kept in `RecordReader.problem`, because the records
before that line are valid and are still processed.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING, Any, NoReturn

from headrace.cli.errors import CommandError
from headrace.cli.signals import interruptible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the input: the value on line `number`, which is `size` bytes long."""

    number: int
    value: Any
    text: str
    """The line without its line break. The function may change `value`, but not this."""
    size: int


class RecordReader:
    """Reads the records of a file, or of standard input for `-`: JSON lines, or plain lines.

    In JSON lines, blank lines are skipped. The number of a record is its line number. A line longer than `max_size`
    bytes is not a valid record.

    Raises:
        CommandError: the file cannot be opened.
    """

    def __init__(self, path: str, *, text: bool, max_size: int) -> None:
        self.name: str = "standard input" if path == "-" else path
        self.problem: CommandError | None = None
        self._text = text
        self._max_size = max_size
        try:
            # Opening a named pipe blocks until its other end is opened.
            with interruptible():
                # Unbuffered: a read from a pipe returns available bytes instead of waiting for a whole chunk.
                self._file = FileIO(os.dup(0) if path == "-" else path)
            status = os.fstat(self._file.fileno())
        except OSError as error:
            raise self._read_error(error) from error
        self.size: int | None = status.st_size if stat.S_ISREG(status.st_mode) else None
        """The number of bytes to read; None if unknown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def records(self) -> AsyncIterator[Record]:
        """Yield the records in order. An invalid line sets `problem` and ends the iteration."""
        number = 0
        async for line in self._lines():
            number += 1
            if len(line) - line.endswith(b"\n") > self._max_size:
                self.problem = CommandError(
                    f"{self.name}, line {number}: longer than {self._max_size:,} bytes (--max-record)"
                )
                return
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not self._text and not content.strip():
                continue
            try:
                text = _decode(content).removesuffix("\n").removesuffix("\r")
                value = self.parse(text)
            except ValueError as error:
                self.problem = CommandError(f"{self.name}, line {number}: {error}")
                return
            except MemoryError:
                self.problem = CommandError(
                    f"{self.name}, line {number}: not enough memory for its {len(line):,} bytes"
                )
                return
            yield Record(number, value, text, len(line))

    def parse(self, text: str) -> Any:
        """Parse a line into a new value.

        Raises:
            ValueError: the line is not a valid record.
        """
        if self._text:
            return text
        try:
            return json.loads(text, parse_constant=_reject_constant)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
        except RecursionError:
            raise ValueError("not valid: the JSON is nested too deeply") from None

    async def _lines(self) -> AsyncIterator[bytes | bytearray]:
        """Yield the lines with their line breaks. A line that is too long is cut and ends the iteration."""
        # The beginning of a line that spans chunks.
        partial = bytearray()
        while True:
            try:
                chunk = await _in_daemon_thread(lambda: self._file.read(CHUNK))
            except OSError as error:
                self.problem = self._read_error(error)
                return
            if not chunk:
                break
            first, newline, rest = chunk.partition(b"\n")
            partial += first
            if len(partial) > self._max_size:
                break
            if not newline:
                continue
            partial += newline
            yield partial
            partial = bytearray()
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line + b"\n"
            partial += rest
        if partial:
            yield partial

    def _read_error(self, error: OSError) -> CommandError:
        return CommandError(f"cannot read {self.name}: {error.strerror}")


def _decode(line: bytes | bytearray) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from None


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"not JSON: {constant} is not a JSON value")


async def _in_daemon_thread(read: Callable[[], bytes]) -> bytes:
    """Run `read` in a daemon thread of its own, unlike `asyncio.to_thread`.

    A read from a terminal or a pipe may never return. It must not occupy a thread of the pool or delay the exit of an
    interrupted process. Starting a thread costs less than reading and parsing a chunk.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def set_outcome(chunk: bytes, error: BaseException | None) -> None:
        if future.done():  # the waiting task was cancelled
            return
        if error is None:
            future.set_result(chunk)
        else:
            future.set_exception(error)

    def run() -> None:
        chunk, problem = b"", None
        try:
            chunk = read()
        except BaseException as error:  # raised by the task that waits, of any type
            problem = error
        try:
            loop.call_soon_threadsafe(set_outcome, chunk, problem)
        except RuntimeError:
            pass  # the loop is closed, so no task waits

    threading.Thread(target=run, name="headrace-read", daemon=True).start()
    return await future
