"""`Lines`: the lines of a file, read one chunk at a time. The readers of `record_batches` iterate over it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from typing import Self

CHUNK = 256 * 1024
"""The bytes read at once at most. A read from a pipe returns available bytes instead of waiting for a whole chunk."""


class Lines:
    """Iterates over the lines of a file, with their line breaks.

    Bound: the lines of one chunk, and `max_size` bytes and one chunk of an incomplete line.

    Raises:
        ValueError: a line is longer than `max_size` bytes. The lines before it were returned.
    """

    def __init__(self, file: BinaryIO, max_size: int) -> None:
        self.number: int = 0
        """The number of the last line that was returned, from 1."""
        self._file = file
        self._max_size = max_size
        self._whole: deque[bytes | bytearray] = deque()
        # The beginning of a line that spans chunks.
        self._partial = bytearray()
        self._is_at_end = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes | bytearray:
        while not self._whole:
            if self._is_at_end:
                raise StopIteration
            self._read()
        self.number += 1
        line = self._whole.popleft()
        if len(line) - line.endswith(b"\n") > self._max_size:
            raise ValueError(f"longer than {self._max_size:,} bytes (--max-record)")
        return line

    @property
    def has_line(self) -> bool:
        """Whether the next line is at hand, so that it is returned without reading."""
        return bool(self._whole)

    def _read(self) -> None:
        chunk = read_chunk(self._file)
        if not chunk:
            self._is_at_end = True
            if self._partial:
                self._whole.append(self._partial)
            return
        first, newline, rest = chunk.partition(b"\n")
        self._partial += first
        if len(self._partial) > self._max_size:
            self._whole.append(self._partial)  # cut, and refused as too long
            return
        if not newline:
            return
        self._partial += newline
        self._whole.append(self._partial)
        *whole, rest = rest.split(b"\n")
        self._whole.extend(line + b"\n" for line in whole)
        self._partial = bytearray(rest)


def read_chunk(file: BinaryIO) -> bytes:
    """Read available bytes, at most one chunk; empty at the end of the file."""
    # A file that decompresses has `read1()`, because its `read()` waits for the whole chunk.
    read = getattr(file, "read1", file.read)
    chunk: bytes = read(CHUNK)
    return chunk
