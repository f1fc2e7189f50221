"""Output files that appear whole or not at all. `map` opens one for results, errors and the report.

Lines are written to a temporary file in the same directory, which replaces the output in one step at the end. If the
run stops early, the output is unchanged, and the finished lines become `OUTPUT.partial` (`OUTPUT.partial.2` if an
earlier run left one). A pipe, a device or standard output is written to directly, line by line.

For a format other than lines, the temporary file is converted at the end, to a second one that replaces the output.

Lines are not buffered: a process that is killed leaves all finished lines in the temporary file.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.conversion import check_packages, convert
from headrace.cli.errors import CommandError
from headrace.cli.file_format import FileFormat
from headrace.cli.replacement import Leftover, Replacement, find_leftovers, write_all
from headrace.cli.signals import interruptible

if TYPE_CHECKING:
    from typing import Self


# `json.dumps` would make an encoder for each call with these options.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def encode_line(value: object) -> bytes:
    """Encode a value as one line of JSON in UTF-8.

    Raises:
        TypeError, ValueError, RecursionError: the value cannot be represented as JSON.
    """
    text = _encode(value)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        # UTF-8 has no lone surrogates, but JSON can escape them.
        return json.dumps(value, allow_nan=False).encode() + b"\n"


LINES = FileFormat()
"""JSON lines."""


class Output:
    """A file that appears whole or not at all, or a stream (`-`, a pipe, a device).

    Use it as a context manager. Leaving the block without `commit()` keeps the written lines as `partial`.

    Args:
        path: the file.
        file_format: the format of the published file. A stream has lines only.
        is_numbered: whether each line is a result with its number.

    Raises:
        CommandError: the file cannot be opened or, later, written; or a package for its format is not installed.
    """

    def __init__(
        self, path: str, file_format: FileFormat = LINES, *, is_numbered: bool = False
    ) -> None:
        self.lines: int = 0
        self.partial: Path | None = None
        """The file with the lines of a run that stopped early."""
        self._name = "standard output" if path == "-" else path
        self._format = file_format
        self._is_numbered = is_numbered
        check_packages(file_format, self._name)
        self._is_closed = False
        # Exactly one of the two is set.
        self._replacement: Replacement | None = None
        self._stream: FileIO | None = None
        self._failure: OSError | None = None
        # A symbolic link stays; the file that it points to is replaced.
        self._target = Path(os.path.realpath(path))
        try:
            if path == "-":
                self._stream = FileIO(os.dup(1), "wb")
            elif is_stream(path):
                # Opening a pipe blocks until its other end is opened. No O_CREAT and O_TRUNC: the path may now
                # be a file.
                with interruptible():
                    self._stream = FileIO(
                        path, "wb", opener=lambda path, _: os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                    )
            else:
                self._replacement = Replacement(self._target)
        except OSError as error:
            raise self._write_error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep()

    def find_leftovers(self) -> list[Leftover]:
        """Find the temporary files left by killed runs with the same output."""
        return [] if self._replacement is None else find_leftovers(self._target)

    def write(self, line: bytes) -> None:
        """Add a whole line of JSON."""
        if self._format.kind == "text":
            line = _as_text(line)
        try:
            if self._replacement is not None:
                self._replacement.write(line)
            elif self._stream is not None:
                self._write_to(self._stream, line)
        except OSError as error:
            raise self._write_error(error) from error
        self.lines += 1

    def commit(self) -> None:
        """Publish the whole output under its name."""
        try:
            if self._replacement is not None:
                if self._format.is_converted:
                    self._replacement = self._convert(self._replacement)
                self._replacement.publish()
            elif self._stream is not None:
                self._stream.close()
        except OSError as error:
            # The rename may have succeeded, and only the sync of the directory failed.
            self._is_closed = self._replacement is not None and self._replacement.is_published
            raise self._write_error(error) from error
        self._is_closed = True
        if self._replacement is not None:
            self._replacement.close()

    def _convert(self, lines: Replacement) -> Replacement:
        """Convert the lines. If that fails, they are as before."""
        converted = Replacement(self._target)
        try:
            with lines.open() as source, converted.open() as file:
                convert(source, file, self._format, self._name, is_numbered=self._is_numbered)
        except BaseException:
            with converted, suppress(OSError):
                converted.discard()
            raise
        with lines:
            lines.discard()
        return converted

    def keep(self) -> None:
        """Leave the output unchanged and move the lines so far, if any, to `partial`. Does nothing once closed."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
        if self._replacement is None:
            return
        with self._replacement:
            if not self.lines:
                with suppress(OSError):
                    self._replacement.discard()
                return
            try:
                self.partial = self._replacement.keep()
            except OSError:
                # For example, the name is too long. The lines are safe in the temporary file.
                self.partial = self._replacement.path

    def _write_to(self, stream: FileIO, line: bytes) -> None:
        if self._failure is not None:
            raise self._failure  # half a line may be written, so nothing may follow
        try:
            write_all(stream.fileno(), line)
        except OSError as error:
            self._failure = error
            raise

    def _write_error(self, error: OSError) -> CommandError:
        return write_error(self._name, error)


def keep_partial(output: Output | None, noun: str) -> str:
    """Keep the lines of an unpublished output, and return a description of the partial file."""
    if output is None:
        return ""
    output.keep()
    if output.partial is None:
        return ""
    lines = f"1 {noun} is" if output.lines == 1 else f"{output.lines:,} {noun}s are"
    return f"; {lines} in {output.partial}"


def _as_text(line: bytes) -> bytes:
    """Return a result as plain text: text as it is, anything else as JSON."""
    if not line.startswith(b'"'):
        return line
    text: str = json.loads(line)
    return text.encode(errors="backslashreplace") + b"\n"


def is_stream(path: str) -> bool:
    """Whether `path` is a pipe or a device, which is written to and never replaced.

    Raises:
        OSError: its type cannot be determined.
    """
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except FileNotFoundError:
        return False


def write_error(name: str, error: OSError) -> CommandError:
    """Make the error for a file that cannot be written."""
    return CommandError(f"cannot write {name}: {error.strerror}")
