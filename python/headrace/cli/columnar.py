"""Records of Parquet and Arrow files, read with `pyarrow` in batches. `RecordReader` imports this for such a file only.

An Arrow file is a sequence of record batches, with or without an index at its end (the IPC file and the IPC stream).
"""

from __future__ import annotations

import pickle
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from headrace.cli.errors import CommandError
from headrace.cli.optional import import_arrow
from headrace.cli.record import Pickled, Record
from headrace.cli.record_batches import MAX_BATCH, InvalidRecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import FileIO

BUFFER = 1 << 20
"""The bytes of a column that are read at once."""


class Columnar:
    """The records of a Parquet or Arrow file.

    Bound: one batch of an Arrow file; `BUFFER` bytes for each column of a Parquet file, and its largest page.

    Args:
        file: the input.
        kind: `parquet` or `arrow`.
        name: the name of the file in messages.

    Raises:
        CommandError: the file cannot be read, or `pyarrow` is not installed.
    """

    def __init__(self, file: FileIO, kind: str, name: str) -> None:
        self._purpose = f"read {name}"
        self._arrow = import_arrow(self._purpose)
        # Kept: one that is dropped would close the file that it reads from.
        self._content = BufferedReader(file)
        title = "Parquet" if kind == "parquet" else "Arrow"
        self.size: float | None
        """The number of records; the number of batches in an Arrow file with an index; otherwise None."""
        try:
            if kind == "parquet":
                if not file.seekable():
                    raise CommandError(
                        f"cannot read {name}: Parquet is read from its end, which a pipe cannot do; name the file"
                    )
                self._batches, self.size, names = self._open_parquet()
                self._share: float | None = 1.0
            else:
                self._batches, self.size, names = self._open_arrow(file)
                self._share = None
        except self._arrow.ArrowException as error:
            raise CommandError(f"cannot read {name}: not valid {title}: {error}") from error
        for index, column in enumerate(names):
            if column in names[:index]:
                raise CommandError(f"cannot read {name}: two columns have the name {column!r}")

    def _open_parquet(self) -> tuple[Iterable[Any], float, list[str]]:
        parquet = import_arrow(self._purpose, "pyarrow.parquet")
        opened = parquet.ParquetFile(self._content, buffer_size=BUFFER, pre_buffer=False)
        batches: Iterable[Any] = opened.iter_batches(batch_size=MAX_BATCH)
        return batches, opened.metadata.num_rows, opened.schema_arrow.names

    def _open_arrow(self, file: FileIO) -> tuple[Iterable[Any], float | None, list[str]]:
        ipc = import_arrow(self._purpose, "pyarrow.ipc")
        buffered = self._content
        if buffered.peek(6)[:6] == b"ARROW1" and file.seekable():
            opened = ipc.open_file(buffered)
            count: int = opened.num_record_batches
            return (opened.get_batch(index) for index in range(count)), count, opened.schema.names
        stream = ipc.open_stream(buffered)
        return stream, None, stream.schema.names

    def read(self) -> Iterator[list[Record]]:
        """Yield the records.

        Raises:
            InvalidRecordError: a part of the file is not valid.
        """
        kind, number = Pickled(), 0
        try:
            for batch in self._batches:
                share = self._share or (1 / max(1, batch.num_rows))
                for start in range(0, batch.num_rows, MAX_BATCH):
                    records: list[Record] = []
                    for value in batch.slice(start, MAX_BATCH).to_pylist():
                        number += 1
                        records.append(Record(number, value, pickle.dumps(value), share, kind))
                    yield records
        except (self._arrow.ArrowException, OverflowError, ValueError) as error:
            raise InvalidRecordError(f"after record {number}", error) from error
