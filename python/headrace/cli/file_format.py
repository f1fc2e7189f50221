"""`FileFormat`: the format of an input or output, from its suffix or from an option. `main` chooses one for each file."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

KINDS = {
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "text": (".txt", ".text"),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
}
"""The kinds of formats and their suffixes. A file with another suffix has JSON lines."""

COMPRESSIONS = {"gz": ".gz", "zst": ".zst"}
"""The compressions and their suffixes."""

COLUMNAR = frozenset({"parquet", "arrow"})
"""The kinds that need `pyarrow`. They compress their columns, and their files are not read from start to end."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The kind of a file's records, and its compression."""

    kind: str = "jsonl"
    """One of `KINDS`."""
    compression: str | None = None
    """One of `COMPRESSIONS`, or None."""
    is_named: bool = False
    """Whether an option names it. Otherwise the beginning of an input may show that it is a similar one."""

    @classmethod
    def of(cls, path: str) -> FileFormat:
        """Derive the format of a file from its suffix; JSON lines if the suffix is unknown."""
        name = path.lower()
        compression = None
        for key, suffix in COMPRESSIONS.items():
            if name.endswith(suffix):
                name, compression = name.removesuffix(suffix), key
        for kind, suffixes in KINDS.items():
            if name.endswith(suffixes):
                return cls(kind, compression)
        return cls("jsonl", compression)

    @property
    def is_columnar(self) -> bool:
        """Whether the kind needs `pyarrow`."""
        return self.kind in COLUMNAR

    @property
    def is_converted(self) -> bool:
        """Whether a file of this format is more than a sequence of lines, each a result."""
        return self.compression is not None or self.kind not in {"jsonl", "text"}

    def __str__(self) -> str:
        """Return the value of the option that names this format."""
        return self.kind if self.compression is None else f"{self.kind}.{self.compression}"


def parse_format(text: str) -> FileFormat:
    """Parse the value of an option: a kind, optionally with a compression, such as `csv` or `jsonl.gz`."""
    kind, dot, compression = text.lower().partition(".")
    if kind in KINDS and (not dot or compression in COMPRESSIONS):
        return FileFormat(kind, compression or None, is_named=True)
    raise argparse.ArgumentTypeError(
        f"must be one of {', '.join(KINDS)}, or one of these with .gz or .zst, such as csv.gz, got {text!r}"
    )
