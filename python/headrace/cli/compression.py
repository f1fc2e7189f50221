"""Compressed files: gzip from the standard library, Zstandard from CPython 3.14 or the package `backports.zstd`.

`records` reads through `decompress`, and `conversion` writes through `compress`.
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from headrace.cli.optional import import_zstd

if TYPE_CHECKING:
    from io import FileIO

GZIP_LEVEL = 6
"""The level of the command `gzip`. That of the standard library, 9, takes three times as long for 1% less."""


def decompress(file: FileIO, compression: str | None, name: str) -> BinaryIO:
    """Return a file that reads the content of `file`. Closing it leaves `file` open.

    Raises:
        CommandError: the package for the compression is not installed.
    """
    if compression == "gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=file, mode="rb"))
    if compression == "zst":
        return cast("BinaryIO", import_zstd(f"read {name}").ZstdFile(file, "rb"))
    return cast("BinaryIO", file)


def compress(file: BinaryIO, compression: str | None, name: str) -> BinaryIO:
    """Return a file that writes to `file`. Closing it completes the compressed data and leaves `file` open.

    Raises:
        CommandError: the package for the compression is not installed.
    """
    if compression == "gz":
        # Without a name and a time, equal results give equal files.
        return cast("BinaryIO", gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0))
    if compression == "zst":
        compressed = cast("BinaryIO", import_zstd(f"write {name}").ZstdFile(file, "wb"))
        compressed.write(b"")  # otherwise nothing would become an empty file, which is not valid
        return compressed
    return file


def describe_damage(error: Exception) -> str | None:
    """Describe the error of a file that is not complete and valid compressed data; None for other errors."""
    if isinstance(error, EOFError):
        return "the compressed data is truncated"
    if isinstance(error, (gzip.BadGzipFile, zlib.error)):
        return f"not valid gzip data: {error}"
    if type(error).__name__ == "ZstdError":
        return f"not valid Zstandard data: {error}"
    return None
