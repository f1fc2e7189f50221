"""`PullJournalObj`: the results in a journal as a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace._internal.reprs import short_repr
from headrace._internal.validate import check_path
from headrace.journal.records import read_records
from headrace.pull.source import SourceIterObj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace._internal.validate import Path

T = TypeVar("T")


class PullJournalObj(SourceIterObj[T], stock=True):
    """The results in a journal, as they were recorded. The journal may be in use: the stream ends at the last record.

    Pickles are read: **use it only for journals that you trust**.

    Law: the values of the calls that have returned one, each once, or of the items that a `SinkJournal` has accepted.
    Order: of the file: as the calls have ended.
    Bound: one value.
    Cost: O(1) per record, on the event loop.
    Cancel safety: pulls do not wait here and cannot be cancelled.

    Args:
        path: The path of the file.

    Raises:
        TypeError: `path` is no path.
        JournalError: At a pull: the file is no journal, or it is damaged.
        OSError: At a pull: the operating system refuses the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = check_path("path", path)
        super().__init__(_Results(self._path))

    def _repr_parts(self) -> Iterator[str]:
        yield f"of {short_repr(self._path)}"
        # Not that of the base, which would name the iterable.
        yield from super(SourceIterObj, self)._repr_parts()


class _Results:
    """The results of a file; each iteration reads it anew."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Any]:
        for record in read_records(self._path):
            if record.status == "returned":
                yield record.value()
