"""`Report`: the data of a report. `Collector` fills it during a run, and `page` renders it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.report.ddsketch import DDSketch
from headrace.cli.report.error_counts import ErrorCounts
from headrace.cli.report.samples import Failed, Slowest
from headrace.cli.report.timeline import TimeLine

if TYPE_CHECKING:
    from headrace.cli.record_error import RecordError


class Report:
    """Durations, time lines and samples of records.

    Bound: about 15,000 numbers for each time line, 1,600 for errors, and 120 shortened records.

    Args:
        families: the number of series families.
    """

    def __init__(self, families: int = 0) -> None:
        self.calls: DDSketch = DDSketch()
        """Durations of calls, failed ones included."""
        self.waits: DDSketch = DDSketch()
        """Delays between reading a record and its first call."""
        self.time_line: TimeLine = TimeLine()
        """The levels of the whole run, and the events `done`, `failed`, `started` and `tokens`."""
        self.families: list[TimeLine] = [TimeLine(slots=120) for _ in range(families)]
        """A time line for each series family."""
        self.errors: ErrorCounts = ErrorCounts()
        """The failed calls, also those that were repeated, by type of error over time."""
        self.slowest: Slowest = Slowest()
        self.failed: Failed = Failed()

    def add_record(
        self,
        now: float,
        number: int,
        text: str,
        *,
        waited: float,
        took: float,
        error: RecordError | None,
        calls: int = 1,
        tokens: float = 0.0,
    ) -> None:
        """Add a record that is done or failed.

        Args:
            now: the seconds since the start of the run.
            number: the position of the record, as messages name it.
            text: the record as in the input.
            waited: the seconds from reading it to its first call.
            took: the duration of the last call in seconds.
            error: the error; None if the record is done.
            calls: the number of calls. All are counted at the start of the last one.
            tokens: the tokens that each call used.
        """
        self.time_line.count(now - took, "started", calls)
        if tokens:
            self.time_line.count(now - took, "tokens", calls * tokens)
        self.calls.add(took)
        self.waits.add(waited)
        self.slowest.add(number, took, text, failed=error is not None)
        if error is None:
            self.time_line.count(now, "done")
        else:
            self.time_line.count(now, "failed")
            self.failed.add(number, took, text, error)
            self.errors.count(now, error.kind)

    def add_failed_call(self, now: float, number: int, text: str, took: float, kind: str) -> None:
        """Add a call that is not the last one of its record, or that was not finished.

        Args:
            now: the seconds from the start of the run to the end of the call.
            number: the position of the record, as messages name it.
            text: the record as in the input.
            took: the duration of the call in seconds.
            kind: the type of the error.
        """
        self.calls.add(took)
        self.slowest.add(number, took, text, failed=True)
        self.errors.count(now, kind)
