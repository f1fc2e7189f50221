"""`Failures`: the messages about failed records at the end of a run. Equal errors are one message. `map` fills it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.cli.record_error import RecordError

MAX_LISTED = 20
"""The messages that are listed."""

MAX_KEPT = 1000
"""The messages that are kept, of which the most frequent are listed."""

# The parts of a message that differ from record to record: quoted text, addresses, identifiers and numbers. A number
# from 100 to 599 may be the status of an answer.
_VARIABLE = re.compile(
    r"'[^']*'|\"[^\"]*\"|\w+://\S+|\b0x[0-9a-f]+|\b(?=[a-f-]*\d)[0-9a-f-]{8,}|\b(?![1-5]\d\d\b)\d+",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Group:
    number: int
    """The record of the example."""
    example: RecordError
    count: int = 0


class Failures:
    """Groups failed records by error: its type, its place, and its message without quoted text and numbers.

    Bound: `MAX_KEPT` errors, and a count of all others.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._others = 0

    def add(self, number: int, error: RecordError) -> None:
        """Count a failed record."""
        # A long message may be a whole page. Its beginning is enough to compare errors.
        message = error.message[:500]
        # The message of a `KeyError` is nothing but quoted text.
        masked = message if error.kind == "KeyError" else _VARIABLE.sub("…", message)
        key = (error.kind, error.where, masked)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MAX_KEPT:
                self._others += 1
                return
            group = self._groups[key] = _Group(number, error)
        group.count += 1

    def messages(self) -> list[str]:
        """Return a line for each error with its count and its first record, the most frequent first."""
        groups = sorted(self._groups.values(), key=lambda group: -group.count)
        lines = [
            f"record {group.number} failed: {group.example}"
            if group.count == 1
            else f"{group.count:,} records failed, the first is record {group.number}: {group.example}"
            for group in groups[:MAX_LISTED]
        ]
        left = sum(group.count for group in groups[MAX_LISTED:]) + self._others
        if left:
            lines.append(f"and {left:,} more failed")
        return lines
