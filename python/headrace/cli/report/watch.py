"""Fills a report while a run goes on, and writes its page at the end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from headrace.cli.report.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from headrace.cli.call import Call
    from headrace.cli.failure import Failure
    from headrace.cli.output import Output
    from headrace.cli.report.gauge import Gauge
    from headrace.cli.report.summary import Summary

SHORTEST, LONGEST = 0.005, 0.5
"""Between these many seconds lie two looks at the gauges: a quarter of a point, as long as points are of that size."""


class Watch:
    """Looks at gauges, and is told of every record that is settled.

    Bound: that of `Report`.
    Cost: the looks are so far apart that they take at most a hundredth of the loop's time.

    Args:
        output: gets the page.
        gauges: what to look at, in the order in which it is to be shown.
        clock: what the times of calls are of, in seconds.
    """

    def __init__(
        self,
        output: Output,
        gauges: Sequence[Gauge],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._gauges = gauges
        self._clock = clock
        self._begun = clock()
        self._report = Report()

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
        """Looks at every gauge once."""
        levels = {gauge.name: gauge.read() for gauge in self._gauges}
        self._report.line.look(self._clock() - self._begun, levels)

    def settled(self, call: Call, failure: Failure | None) -> None:
        """Takes in a call that has ended, its record being done or failed."""
        self._report.settled(
            call.ended - self._begun,
            call.record.number,
            call.record.text,
            waited=call.started - call.read,
            took=call.ended - call.started,
            failure=failure,
        )

    def write(self, summary: Summary) -> None:
        """Writes the page, whole or not at all.

        Raises:
            ComplaintError: it cannot be written.
        """
        # Imported here, since most runs have no page, and every one has to start.
        from headrace.cli.report.page import render

        self._report.line.look(self._clock() - self._begun, {})
        page = render(self._report, summary, self._gauges)
        self._output.write(page.encode())
        self._output.commit()
