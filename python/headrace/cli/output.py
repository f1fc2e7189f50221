"""Results, written without ever leaving half a file.

Lines go to a temporary file beside the output, which takes the output's place in one step when all is
done. If the run stops early, the lines that are there become `OUTPUT.partial` (or `.partial.2`, if an
earlier run left one), whole lines all of them, and the output stays as it was. A pipe, a device or
standard output is simply written to, line by line.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from headrace.cli.errors import ComplaintError

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
        # Through a symbolic link, it is the file at its end that is replaced.
        self._target = Path(os.path.realpath(path))
        self._temporary: Path | None = None
        self._settled = False
        self._file: BinaryIO
        try:
            if path == "-":
                self._file = os.fdopen(os.dup(1), "wb")
            elif self._target.exists() and not self._target.is_file():
                self._file = self._target.open("wb")
            else:
                self._temporary = self._beside(f".{os.getpid()}.tmp", hidden=True)
                self._file = self._temporary.open("wb")
                if self._target.exists():
                    shutil.copymode(self._target, self._temporary)
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
        if not self._settled:
            self.keep()

    def write(self, line: bytes) -> None:
        """Adds a whole line."""
        try:
            self._file.write(line)
            if self._temporary is None:
                self._file.flush()  # somebody may be reading along
        except OSError as error:
            raise self._cannot_write(error) from error
        self.lines += 1

    def commit(self) -> None:
        """Puts the whole output where it belongs."""
        try:
            self._file.flush()
            if self._temporary is not None:
                # On the disk before it has the name: a crash must not leave an empty file behind that name.
                os.fsync(self._file.fileno())
            self._file.close()
            if self._temporary is not None:
                self._temporary.replace(self._target)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._settled = True

    def keep(self) -> None:
        """Leaves the output as it was, and the lines so far, if there are any, in `partial`."""
        self._settled = True
        try:
            self._file.close()
        except OSError:
            # The disk is full, say. What is in the temporary file may end anywhere, so it goes.
            self.lines = 0
        if self._temporary is None:
            return
        if self.lines:
            try:
                self.partial = self._free()
                self._temporary.replace(self.partial)
            except OSError:
                # The name is too long, say. They are safe where they are.
                self.partial = self._temporary
        else:
            self._temporary.unlink(missing_ok=True)

    def _free(self) -> Path:
        """The first name for lines of a run that stopped early which nothing has."""
        free, tried = self._beside(".partial"), 1
        while free.exists():
            tried += 1
            free = self._beside(f".partial.{tried}")
        return free

    def _beside(self, suffix: str, *, hidden: bool = False) -> Path:
        return self._target.with_name(f"{'.' * hidden}{self._target.name}{suffix}")

    def _cannot_write(self, error: OSError) -> ComplaintError:
        return cannot_write(self._name, error)


def cannot_write(name: str, error: OSError) -> ComplaintError:
    """What to tell of a file that cannot be written."""
    return ComplaintError(f"cannot write {name}: {error.strerror}")
