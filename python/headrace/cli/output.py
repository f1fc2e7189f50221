"""Results, written without ever leaving half a file.

Lines go to a temporary file beside the output, which takes the output's place in one step when all is
done. If the run stops early, the lines that are there become `OUTPUT.partial` (or `.partial.2`, if an
earlier run left one), whole lines all of them, and the output stays as it was. A pipe, a device or
standard output is simply written to, line by line.

Each line is written at once: a process that is killed leaves all lines that were finished.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.errors import ComplaintError
from headrace.cli.replacement import Leftover, Replacement, leftovers, write_all
from headrace.cli.signals import interruptible

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


def as_line(value: object) -> bytes:
    """One line of JSON, in UTF-8.

    Raises:
        TypeError, ValueError, RecursionError: the value has no JSON form.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate has no form in UTF-8, but one as an escape.
        return json.dumps(value, allow_nan=False).encode() + b"\n"


class Output:
    """A file that appears whole or not at all, or a stream (`-`, a pipe, a device).

    Use it as a context manager; leaving it without `commit()` keeps what was written as `partial`.

    Raises:
        ComplaintError: it cannot be opened or, later, written to.
    """

    def __init__(self, path: str) -> None:
        self.lines: int = 0
        self.partial: Path | None = None
        """Where the lines of a run that stopped early were left."""
        self._name = "standard output" if path == "-" else path
        self._is_settled = False
        # One of the two.
        self._replacement: Replacement | None = None
        self._stream: FileIO | None = None
        self._failure: OSError | None = None
        # Through a symbolic link, it is the file at its end that is replaced.
        self._target = Path(os.path.realpath(path))
        try:
            if path == "-":
                self._stream = FileIO(os.dup(1), "wb")
            elif is_stream(path):
                # A pipe waits for its other end. Without O_CREAT and O_TRUNC: by now it may be a file.
                with interruptible():
                    self._stream = FileIO(
                        path, "wb", opener=lambda path, _: os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                    )
            else:
                self._replacement = Replacement(self._target)
        except OSError as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.keep()

    def leftovers(self) -> list[Leftover]:
        """Find the temporary files that runs with the same output left when they were killed."""
        return [] if self._replacement is None else leftovers(self._target)

    def write(self, line: bytes) -> None:
        """Add a whole line."""
        try:
            if self._replacement is not None:
                self._replacement.write(line)
            elif self._stream is not None:
                self._write_to(self._stream, line)
        except OSError as error:
            raise self._cannot_write(error) from error
        self.lines += 1

    def commit(self) -> None:
        """Put the whole output where it belongs."""
        try:
            if self._replacement is not None:
                self._replacement.publish()
            elif self._stream is not None:
                self._stream.close()
        except OSError as error:
            # The name may be there, and only the directory not on disk.
            self._is_settled = self._replacement is not None and self._replacement.is_published
            raise self._cannot_write(error) from error
        self._is_settled = True
        if self._replacement is not None:
            self._replacement.__exit__(None, None, None)

    def keep(self) -> None:
        """Leave the output as it was, and the lines so far, if there are any, in `partial`; once it is settled, nothing."""
        if self._is_settled:
            return
        self._is_settled = True
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
                # The name is too long, say. They are safe where they are.
                self.partial = self._replacement.path

    def _write_to(self, stream: FileIO, line: bytes) -> None:
        if self._failure is not None:
            raise self._failure  # half a line may be out, and nothing can follow it
        try:
            write_all(stream.fileno(), line)
        except OSError as error:
            self._failure = error
            raise

    def _cannot_write(self, error: OSError) -> ComplaintError:
        return cannot_write(self._name, error)


def is_stream(path: str) -> bool:
    """Whether there is something that is written to, and not replaced.

    Raises:
        OSError: that cannot be found out.
    """
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except FileNotFoundError:
        return False


def cannot_write(name: str, error: OSError) -> ComplaintError:
    """What to tell of a file that cannot be written."""
    return ComplaintError(f"cannot write {name}: {error.strerror}")
