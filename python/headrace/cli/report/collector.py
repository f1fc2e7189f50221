"""Fills a report while a run goes on, and writes its page at the end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from headrace.cli.report.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from headrace.cli.output import Output
    from headrace.cli.record_error import Failure
    from headrace.cli.record_task import Call
    from headrace.cli.report.series import Family, Flow, Gauge
    from headrace.cli.report.summary import Summary

SHORTEST, LONGEST = 0.005, 0.5
"""Between these many seconds lie two looks at the gauges: a quarter of a point, as long as points are of that size."""


class Watch:
    """Looks at gauges and families of them, and is told of every record that is settled.

    Bound: that of `Report`.
    Cost: the looks are so far apart that they take at most a hundredth of the loop's time.

    Args:
        output: gets the page.
        gauges: what to look at, in the order in which it is to be shown.
        families: what else to look at.
        flows: what of that which happens is shown besides.
        clock: what the times of calls are of, in seconds.
    """

    def __init__(
        self,
        output: Output,
        gauges: Sequence[Gauge],
        families: Sequence[Family] = (),
        flows: Sequence[Flow] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._gauges = gauges
        self._clock = clock
        self._begun = clock()
        self._families = families
        self._flows = flows
        self._report = Report(len(families))

    async def run(self) -> NoReturn:
        """Looks at the gauges until it is cancelled."""
        while True:
            # Of the processor, not of the clock: a thread that had to wait for its turn has cost nothing.
            before = time.thread_time()
            self.look()
            cost = time.thread_time() - before
            pause = min(max(self._report.line.width / 4, SHORTEST), LONGEST)
            await asyncio.sleep(max(pause, 100 * cost))

    def look(self) -> None:
        """Looks at everything once."""
        now = self._clock() - self._begun
        self._report.line.look(now, {gauge.name: gauge.read() for gauge in self._gauges})
        for family, line in zip(self._families, self._report.families, strict=True):
            # One that never was above 0 takes nobody's place.
            line.look(now, {name: level for name, level in family.read().items() if level})

    def settled(self, call: Call, failure: Failure | None) -> None:
        """Takes in a call that has ended, its record being done or failed."""
        self._report.settled(
            call.ended - self._begun,
            call.record.number,
            call.record.text,
            waited=call.first - call.read,
            took=call.ended - call.started,
            failure=failure,
            attempts=call.attempts,
            tokens=call.tokens,
        )

    def write(self, summary: Summary) -> None:
        """Writes the page, whole or not at all.

        Raises:
            ComplaintError: it cannot be written.
        """
        # Imported here, since most runs have no page, and every one has to start.
        from headrace.cli.report.page import render

        now = self._clock() - self._begun
        for line in (self._report.line, *self._report.families):
            line.look(now, {})
        page = render(self._report, summary, self._gauges, self._families, self._flows)
        self._output.write(page.encode())
        self._output.commit()
