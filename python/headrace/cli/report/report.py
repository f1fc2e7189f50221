"""What a run leaves for its report, collected while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.report.ddsketch import Sketch
from headrace.cli.report.samples import Failed, Slowest
from headrace.cli.report.timeline import TimeLine

if TYPE_CHECKING:
    from headrace.cli.record_error import Failure


class Report:
    """Durations, the time line, and the records that are worth naming.

    Bound: some fifteen thousand numbers for each time line, and 120 pieces of records, whatever is put in.

    Args:
        families: how many kinds of levels there are that come and go.
    """

    def __init__(self, families: int = 0) -> None:
        self.calls: Sketch = Sketch()
        """How long calls took, those that failed among them."""
        self.waits: Sketch = Sketch()
        """How long records waited between being read and being called."""
        self.line: TimeLine = TimeLine()
        """The levels of the run as a whole, and the events `done`, `failed`, `begun` and `tokens`."""
        self.families: list[TimeLine] = [TimeLine(slots=120) for _ in range(families)]
        """The levels that come and go, a time line for each kind."""
        self.slowest: Slowest = Slowest()
        self.failed: Failed = Failed()

    def settled(
        self,
        now: float,
        number: int,
        text: str,
        *,
        waited: float,
        took: float,
        failure: Failure | None,
        attempts: int = 1,
        tokens: float = 0.0,
    ) -> None:
        """Takes in a record that is done or has failed.

        Args:
            now: when, in seconds since the beginning of the run.
            number: the record's.
            text: the record as it stands in the input.
            waited: the seconds from its reading to its call.
            took: the seconds that the call took.
            failure: what it failed with; None if it is done.
            attempts: how often it was called. All count as if at the last time.
            tokens: how many each attempt took.
        """
        self.line.count(now - took, "begun", attempts)
        if tokens:
            self.line.count(now - took, "tokens", attempts * tokens)
        self.calls.add(took)
        self.waits.add(waited)
        self.slowest.add(number, took, text, failed=failure is not None)
        if failure is None:
            self.line.count(now, "done")
        else:
            self.line.count(now, "failed")
            self.failed.add(number, took, text, failure)
