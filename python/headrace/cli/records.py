"""Records, read lazily.

The input is read a chunk at a time, when the records of the chunk before it are used up, so that memory
does not grow with the input. Of a line whose end is not read yet, at most its bound and a chunk are held.

A line that is no record ends the reading and is kept in
`RecordReader.problem`: the records before it are good, and their work is worth finishing.
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

from headrace.cli.errors import ComplaintError
from headrace.cli.signals import interruptible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType
    from typing import Self

CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the input: the value on line `number`, which took `size` bytes."""

    number: int
    value: Any
    text: str
    """The line that it was read from, without its end. The value may be changed by whoever gets it."""
    size: int


class RecordReader:
    """The records of a file, or of standard input for `-`: JSON lines, or plain lines as they stand.

    In JSON lines, a line of nothing but white space is no record, and passed over. A record's number is
    that of its line. A line of more than `most` bytes is no record.

    Raises:
        ComplaintError: the file cannot be opened.
    """

    def __init__(self, path: str, *, text: bool, most: int) -> None:
        self.name: str = "standard input" if path == "-" else path
        self.problem: ComplaintError | None = None
        self._text = text
        self._most = most
        try:
            # A pipe waits for its other end.
            with interruptible():
                # Unbuffered: from a pipe, a read gives what is there, instead of waiting for a whole chunk.
                self._file = FileIO(os.dup(0) if path == "-" else path)
            status = os.fstat(self._file.fileno())
        except OSError as error:
            raise self._cannot_read(error) from error
        self.size: int | None = status.st_size if stat.S_ISREG(status.st_mode) else None
        """How many bytes there are to read, where that can be known."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    async def records(self) -> AsyncIterator[Record]:
        """The records, in order. Ends early, with `problem` set, at the first line that is none."""
        number = 0
        async for line in self._lines():
            number += 1
            if len(line) - line.endswith(b"\n") > self._most:
                msg = f"{self.name}, line {number}: longer than {self._most:,} bytes (--max-record)"
                self.problem = ComplaintError(msg)
                return
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not self._text and not content.strip():
                continue
            try:
                text = _decoded(content).removesuffix("\n").removesuffix("\r")
                value = self.parse(text)
            except ValueError as error:
                self.problem = ComplaintError(f"{self.name}, line {number}: {error}")
                return
            except MemoryError:
                msg = f"{self.name}, line {number}: not enough memory for its {len(line):,} bytes"
                self.problem = ComplaintError(msg)
                return
            yield Record(number, value, text, len(line))

    def parse(self, text: str) -> Any:
        """The value that stands on a line; a new one each time.

        Raises:
            ValueError: it is no record.
        """
        if self._text:
            return text
        try:
            return json.loads(text, parse_constant=_refuse)
        except json.JSONDecodeError as error:
            msg = f"not JSON: {error.msg} at column {error.colno}"
            raise ValueError(msg) from None
        except RecursionError:
            msg = "JSON that is nested too deeply"
            raise ValueError(msg) from None

    async def _lines(self) -> AsyncIterator[bytes | bytearray]:
        """The lines, each with its end. One that is too long is cut off behind its bound, and ends the reading."""
        # A line may span many chunks: its beginning is held here until its end is found.
        held = bytearray()
        while True:
            try:
                chunk = await _in_daemon_thread(lambda: self._file.read(CHUNK))
            except OSError as error:
                self.problem = self._cannot_read(error)
                return
            if not chunk:
                break
            first, newline, rest = chunk.partition(b"\n")
            held += first
            if len(held) > self._most:
                break
            if not newline:
                continue
            held += newline
            yield held
            held = bytearray()
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line + b"\n"
            held += rest
        if held:
            yield held

    def _cannot_read(self, error: OSError) -> ComplaintError:
        return ComplaintError(f"cannot read {self.name}: {error.strerror}")


def _decoded(line: bytes | bytearray) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        msg = f"not UTF-8: {error.reason} at byte {error.start + 1}"
        raise ValueError(msg) from None


def _refuse(constant: str) -> NoReturn:
    msg = f"not JSON: {constant} is no JSON value"
    raise ValueError(msg)


async def _in_daemon_thread(read: Callable[[], bytes]) -> bytes:
    """Like `asyncio.to_thread`, but it neither takes one of the user's threads nor delays the end.

    A read from a terminal or a pipe may never come back, and a process that was interrupted must not
    wait for it. A thread costs less than reading and parsing a chunk.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def settle(chunk: bytes, error: BaseException | None) -> None:
        if future.done():  # whoever waited was cancelled
            return
        if error is None:
            future.set_result(chunk)
        else:
            future.set_exception(error)

    def run() -> None:
        chunk, problem = b"", None
        try:
            chunk = read()
        except BaseException as error:  # it belongs to whoever waits, whatever it is
            problem = error
        try:
            loop.call_soon_threadsafe(settle, chunk, problem)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name="headrace-read", daemon=True).start()
    return await future
