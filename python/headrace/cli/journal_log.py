"""`JournalLog`: the records of a journal, with the last state of each call. `journal_command` and `journal_export` read it."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from headrace._core import JournalReader
from headrace.cli.run_journal import journal_errors
from headrace.journal.records import read_records

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from headrace.journal.records import JournalRecord

BYTES = 1
"""The format of stored values that are bytes."""


class JournalLog:
    """A journal, which may be in use. No lock is taken.

    Bound: one record, and about 300 bytes for each call.

    Args:
        path: the journal.
        skips_damage: whether damaged bytes are skipped.
    """

    def __init__(self, path: str, *, skips_damage: bool) -> None:
        self.path: str = path
        self._skips_damage = skips_damage
        # The place of the last record of each call, and its status.
        self._last: dict[tuple[Hashable, int], tuple[int, str]] = {}
        self.version: str | None = None
        """The version of the last run."""
        self.first: float | None = None
        """The time of the first record of a call."""
        self.last: float | None = None
        """The time of the last record of a call."""
        self.damaged: int = 0
        """The number of damaged bytes, without a torn tail."""

    def records(self) -> Iterator[JournalRecord]:
        """Read all records from the first on. Then the other methods know the calls.

        Raises:
            CommandError: the file is no journal, it is damaged, or the operating system refuses it.
        """
        with journal_errors(self.path):
            self._read_runs()
        for record in self._read():
            self.first = record.time if self.first is None else self.first
            self.last = record.time
            self._last[record.key, record.occurrence] = record.offset, record.status
            yield record

    def _read(self) -> Iterator[JournalRecord]:
        # The errors of the caller are not raised inside the block.
        with journal_errors(self.path):
            yield from read_records(self.path, skip_damage=self._skips_damage)

    def _read_runs(self) -> None:
        for kind, offset, *fields in JournalReader(self.path):
            if kind == "run":
                self.version = fields[1]
            elif kind == "damage":
                end, is_torn_tail = fields
                self.damaged += 0 if is_torn_tail else end - offset

    def latest(self) -> Iterator[JournalRecord]:
        """Read the last record of each call, in the order of the file.

        Raises:
            CommandError: see `records`.
        """
        for _ in self.records():
            pass
        places = {offset for offset, _ in self._last.values()}
        # Records that were appended since are not among them.
        for record in self._read():
            if record.offset in places:
                yield record

    def count(self, status: str) -> int:
        """Return the number of calls whose last record has a status."""
        return Counter(status for _, status in self._last.values())[status]

    def in_flight(self) -> list[Hashable]:
        """Return the keys of the calls that have begun and not ended."""
        return [key for (key, _), (_, status) in self._last.items() if status == "started"]


def exported_value(record: JournalRecord, *, trusts: bool) -> tuple[str, Any]:
    """Return the stored value as a value of JSON, and the name of its format.

    | format | value |
    |---|---|
    | `json` | as it is; also a line of the output of the command |
    | `base64` | bytes that are no such line |
    | `pickle` | the pickle in base64; it was not read, or could not be |
    | `repr` | the `repr` of a trusted pickle that is no value of JSON |
    """
    if record.status == "started" or record.status == "unstored":
        return "json", None
    if record.is_pickle and not trusts:
        return "pickle", base64.b64encode(record.stored).decode()
    if record.format == BYTES:
        if record.stored.endswith(b"\n"):
            try:
                return "json", json.loads(record.stored)
            except ValueError:
                pass
        return "base64", base64.b64encode(record.stored).decode()
    try:
        value = record.value()
    except Exception:
        # Its class was moved or has changed.
        return "pickle", base64.b64encode(record.stored).decode()
    try:
        # Back from JSON: a value of a trusted pickle may be a subclass.
        return "json", json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return "repr", repr(value)
