"""Files of lines for the tests of `SourceLinesObj`, and their open descriptors."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import pytest

on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")


def descriptors(path: Path) -> list[str]:
    """Return the open descriptors of this process for a file."""
    found: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.readlink() == path:
                found.append(entry.name)
    return found


def write_file(path: Path, content: bytes, *, zipped: bool = False) -> Path:
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    return path


def numbered_lines(count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(count))
