"""`Collector`: samples levels during a run, adds the records to the `Report`, and writes its page. `map` runs it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from headrace.cli.report.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from headrace.cli.output import Output
    from headrace.cli.record_error import RecordError
    from headrace.cli.record_task import RecordTask
    from headrace.cli.report.series import RateSeries, Series, SeriesFamily
    from headrace.cli.report.summary import Summary

MIN_PAUSE, MAX_PAUSE = 0.005, 0.5
"""The bounds, in seconds, of the pause between two samples, which is a quarter of the width of a slot."""

UNFINISHED = "not finished"
"""The name among the errors of calls that were running at the end of an interrupted run."""


class Collector:
    """Samples series, adds each settled record to a report, and writes its page at the end.

    Bound: that of `Report`.
    Cost: samples are so far apart that they take at most 1% of the event loop's time.

    Args:
        output: the file of the page.
        series: the levels to sample, in the order of the page.
        families: the series families to sample.
        rate_series: the events that the page shows with their rates.
        clock: the clock of the times in records, in seconds.
    """

    def __init__(
        self,
        output: Output,
        series: Sequence[Series],
        families: Sequence[SeriesFamily] = (),
        rate_series: Sequence[RateSeries] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._series = series
        self._clock = clock
        self._started = clock()
        self._families = families
        self._rate_series = rate_series
        self._report = Report(len(families))

    async def run(self) -> NoReturn:
        """Sample all series until cancelled."""
        while True:
            # CPU time: time in which the thread is not scheduled is no cost.
            before = time.thread_time()
            self.sample()
            cost = time.thread_time() - before
            pause = min(max(self._report.time_line.width / 4, MIN_PAUSE), MAX_PAUSE)
            await asyncio.sleep(max(pause, 100 * cost))

    def sample(self) -> None:
        """Sample all series and families once."""
        now = self._clock() - self._started
        self._report.time_line.sample(now, {one.name: one.read() for one in self._series})
        for family, line in zip(self._families, self._report.families, strict=True):
            # A level of 0 must not use up one of the bounded number of levels.
            line.sample(now, {name: level for name, level in family.read().items() if level})

    def add_record(self, record_task: RecordTask, error: RecordError | None) -> None:
        """Add a record that is done or failed."""
        self._add_earlier(record_task)
        self._report.add_record(
            record_task.ended - self._started,
            record_task.record.number,
            record_task.record.text,
            waited=record_task.first - record_task.read,
            took=record_task.ended - record_task.started,
            error=error,
            calls=record_task.calls,
            tokens=record_task.tokens,
        )

    def add_unfinished(self, record_task: RecordTask) -> None:
        """Add the calls of a record that is neither done nor failed at the end of a run."""
        self._add_earlier(record_task)
        started, ended = record_task.started, record_task.ended
        if started:
            # The last call has ended if the stop cancelled it.
            ended = ended if ended > started else self._clock()
            self._add_call(record_task, started, ended, record_task.error or UNFINISHED)

    def _add_earlier(self, record_task: RecordTask) -> None:
        """Add the calls of a record before the last one."""
        for call in record_task.earlier:
            self._add_call(record_task, call.started, call.ended, call.kind)

    def _add_call(self, record_task: RecordTask, started: float, ended: float, kind: str) -> None:
        record, took = record_task.record, ended - started
        self._report.add_failed_call(ended - self._started, record.number, record.text, took, kind)

    def write(self, summary: Summary) -> None:
        """Write the page, whole or not at all.

        Raises:
            CommandError: the page cannot be written.
        """
        # Late import: most runs have no page, and the import would delay each start.
        from headrace.cli.report.page import render

        now = self._clock() - self._started
        for line in (self._report.time_line, self._report.errors.time_line, *self._report.families):
            # Extend each line to the end of the run.
            line.sample(now, {})
        page = render(self._report, summary, self._series, self._families, self._rate_series)
        self._output.write(page.encode())
        self._output.commit()
