"""`JournalRecord`, a record of a journal, and `read_records`. `PullJournalObj` and `headrace journal` use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headrace._core import JournalReader, decode_stored
from headrace._internal.validate import check_path
from headrace.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from headrace._internal.validate import Path

PICKLE = 3
"""The format of stored values that only a program that trusts the file may read."""


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """The start or the end of a call in a journal."""

    offset: int
    """The number of bytes in front of it."""
    time: float
    """The time, in seconds since the epoch."""
    key: Hashable
    """The key of the call."""
    occurrence: int
    """The number of earlier calls with the same key."""
    status: Literal["started", "returned", "failed", "unstored"]
    """Whether the call has begun, has returned a value, has failed, or has returned a value that could not be stored."""
    attempts: int
    """The number of attempts; 0 for a start."""
    format: int
    """The encoding of `stored`."""
    stored: bytes
    """The encoded value, or the description of the error."""
    spend: dict[str, float]
    """The amounts that the call was charged to budgets."""

    @property
    def is_pickle(self) -> bool:
        """Whether the value is stored as a pickle."""
        return self.format == PICKLE

    def value(self) -> Any:
        """Return the value. **A pickle can run any code**: call this only for a journal that you trust, or if `is_pickle` is false.

        Raises:
            Exception: The pickle cannot be read.
        """
        return decode_stored(self.format, self.stored)


def read_records(path: Path, *, skip_damage: bool = False) -> Iterator[JournalRecord]:
    """Read the starts and ends of calls in the order of the file. It may be in use; no lock is taken.

    Cost: one record in memory at a time.

    Args:
        path: The path of the journal.
        skip_damage: Whether damaged bytes are skipped. A torn tail, which a crash leaves, is always skipped.

    Raises:
        JournalError: The file is no journal, or it is damaged.
        OSError: The operating system refuses it.
    """
    name = check_path("path", path)
    for kind, offset, *fields in JournalReader(name):
        if kind == "start":
            time, key, occurrence = fields
            yield JournalRecord(offset, time, key, occurrence, "started", 0, 0, b"", {})
        elif kind == "end":
            time, key, occurrence, status, attempts, stored_format, stored, spend = fields
            yield JournalRecord(
                offset, time, key, occurrence, status, attempts, stored_format, stored, spend
            )
        elif kind == "damage":
            end, is_torn_tail = fields
            if not (skip_damage or is_torn_tail):
                raise JournalError(
                    f"{name} is damaged: {end - offset:,} bytes at byte {offset:,} are no record"
                )
