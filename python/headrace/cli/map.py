"""`headrace map`: one function, every record of an input, under a limit, with progress.

The records are a pull source of tasks for a `HierarchicalTaskPoolRunner` whose capacity is the limit; in
groups, for a runner each on a child of that (see `groups`). The next record is read when a slot, or the
queue of its group, will want it, so that the input may be of any size. A result counts from the moment its
task has it. In input order it then waits until everything before it is settled; it waits in a window, and
while the window is full, nothing more is read.

An interruption stops the reading, cancels what runs on the loop and waits for what runs in threads,
since a thread cannot be cancelled; a second one leaves those threads behind. What was finished by then
is written, whole lines, beside the output.

Once nothing is left to stop, an interruption changes nothing. The ending brings every file to disk before it
reports anything: standard error may be a pipe that nobody reads.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from headrace.cli import signals
from headrace.cli.errors import ComplaintError
from headrace.cli.format import seconds_in_words
from headrace.cli.groups import Groups, group_of
from headrace.cli.inflight import Window
from headrace.cli.output import Output
from headrace.cli.progress import Tally, choose
from headrace.cli.record_error import Failure, InterruptingError, as_error_line
from headrace.cli.record_runner import Caller
from headrace.cli.record_task import Call
from headrace.cli.records import RecordReader
from headrace.cli.report.collector import Watch
from headrace.cli.report.series import Family, Gauge
from headrace.cli.report.summary import Summary
from headrace.cli.stderr import say, unheard
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.pull.source import SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from headrace.cli.run_options import Terms
    from headrace.task.task import Task

# How many failures, and how many unfinished records, are named one by one.
NAMED = 20

# How many files of runs that were killed are named.
NAMED_FILES = 5


@dataclass(frozen=True, slots=True)
class MapOptions:
    """What the command line asks for."""

    name: str
    """The function, as it was named."""
    function: Callable[[Any], Any]
    input: str
    output: str
    errors: str | None
    report: str | None
    terms: Terms
    group_by: str | None
    """The field whose values are groups; None for no groups."""
    group_limit: int
    group_window: int
    weights: Mapping[str, float]
    """Of groups, by their names; of those that are not named it is 1."""
    text: bool
    ordered: bool
    window: int
    max_record: int
    every: float


def run(options: MapOptions) -> int:
    """Does the whole job and returns the exit code.

    Raises:
        ComplaintError: the input or the output cannot be opened. Nothing was changed.
        Interrupted: a signal came before the work began. Nothing was changed.
    """
    with signals.held(), ExitStack() as stack:
        reader = stack.enter_context(
            RecordReader(options.input, text=options.text, most=options.max_record)
        )
        output = stack.enter_context(Output(options.output))
        errors = stack.enter_context(Output(options.errors)) if options.errors else None
        report = stack.enter_context(Output(options.report)) if options.report else None
        for opened in (output, errors, report):
            if opened is not None:
                _report_leftovers(opened)
        return asyncio.run(_Map(options, reader, output, errors, report).run())


class _Map:
    """One run of the job: what is under way, and what is known."""

    def __init__(
        self,
        options: MapOptions,
        reader: RecordReader,
        output: Output,
        errors: Output | None,
        report: Output | None,
    ) -> None:
        self._options = options
        self._reader = reader
        self._output = output
        self._errors = errors
        self._report = report
        self._tally = Tally(total_bytes=reader.size)
        self._display = choose(options.every)
        self._begun = time.monotonic()
        self._began = datetime.now().astimezone()
        self._terms = options.terms
        self._limit = options.terms.capacity()
        # Why it stops before the end: a signal, or an output that cannot be written.
        self._stop = asyncio.Event()
        self._signal: int | None = None
        # Nothing is left to stop.
        self._is_ending = False
        self._problem: ComplaintError | None = None
        # Records that were read and are not settled, by place: those that run, and the one ahead.
        self._unsettled: dict[int, Call] = {}
        self._last_read = 0
        # The first few; the tally has their number.
        self._failures: list[str] = []
        # In input order: results by place, None for a failure, until it is their turn; each record
        # is in the window from its reading to its turn.
        self._results: dict[int, bytes | None] = {}
        self._turn = 0
        self._window = Window(options.window)
        self._caller = Caller(options.function, reader, self)
        self._groups = None
        if options.group_by is not None:
            self._groups = Groups(
                self._limit,
                options.group_limit,
                options.group_window,
                options.terms.runner_options(),
                options.weights,
            )
        self._watch = (
            None
            if report is None
            else Watch(report, self._gauges(), self._families(), self._terms.flows())
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()

        def interrupt(number: int) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._interrupt, number)

        signals.listen(interrupt)
        beside = {asyncio.create_task(self._show(), name="headrace map: progress")}
        if self._watch is not None:
            beside.add(asyncio.create_task(self._watch.run(), name="headrace map: report"))
        try:
            await self._work()
        except BaseException:
            with unheard():
                self._display.close(self._tally)  # leaves the terminal as it was
            raise
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
        return self._finish()

    async def _work(self) -> None:
        """Runs until everything is settled, or until it is told to stop and what runs has stopped."""
        working = asyncio.create_task(self._run(), name="headrace map: envelopes")
        stopping = asyncio.create_task(self._stop.wait(), name="headrace map: stop")
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done() and not self._unsettled:
                self._signal, self._is_ending = None, True  # it came too late to stop anything
            elif self._signal and (running := self._running()):
                say(f"stopping; {running:,} still running (again to leave them)")
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait({working, stopping})
        self._is_ending = True
        if not working.cancelled():
            working.result()

    async def _run(self) -> None:
        """Has every record called."""
        async with SourceIterObj(self._tasks()) as tasks:
            if self._groups is not None:
                await self._groups.run(tasks)
                return
            runner = HierarchicalTaskPoolRunner(
                tasks.map(itemgetter(1)), self._limit, **self._terms.runner_options()
            )
            async with runner.run_tasks() as progress:
                # Tasks settle their records themselves, since nobody may read envelopes any more when they end.
                async for _ in progress:
                    pass

    async def _tasks(self) -> AsyncIterator[tuple[str, Task]]:
        """The source: a task for each record, read as it is asked for, and the group that it belongs to."""
        field, place = self._options.group_by, 0
        async for record in self._reader.records():
            if self._options.ordered:
                await self._window.room()
                self._window.enter()
            self._tally.read += 1
            call = self._unsettled[place] = Call(record, place, time.monotonic())
            self._last_read = record.number
            place += 1
            try:
                call.tokens = self._terms.tokens_of(record.value)
                group = "" if field is None else group_of(record.value, field)
            except ValueError as error:
                self.fail(call, error)
                continue
            yield group, self._caller.task(call, self._terms.cost(call.tokens))

    # What the caller tells.

    def is_stopped(self) -> bool:
        """See `RecordListener`."""
        return self._stop.is_set()

    def complete(self, call: Call, line: bytes | None) -> None:
        """See `RecordListener`."""
        if line is not None:
            self._settle(call, line, None)

    def fail(self, call: Call, error: BaseException) -> None:
        """See `RecordListener`."""
        if isinstance(error, InterruptingError):
            # As if the user had pressed the keys, but that it is not the second time.
            self._signal = self._signal or SIGINT
            self._stop.set()
            return
        if isinstance(error, asyncio.CancelledError) and self._stop.is_set():
            return  # it did not fail, it was stopped
        call.end()
        self._settle(call, None, error)

    def _settle(self, call: Call, line: bytes | None, error: BaseException | None) -> None:
        """Notes what became of a record, and writes what has its turn."""
        record = self._unsettled.pop(call.place).record
        self._tally.settled_bytes += record.size
        self._tally.retried += max(0, call.attempts - 1)
        failure = None if error is None else Failure.of(error)
        if failure is None:
            self._tally.done += 1
        else:
            self._tally.failed += 1
            if len(self._failures) < NAMED:
                self._failures.append(f"record {record.number} failed: {failure}")
            if self._errors is not None:
                self._write(as_error_line(call, failure, text=self._options.text), self._errors)
        if self._watch is not None:
            self._watch.settled(call, failure)
        if not self._options.ordered:
            self._write(line)
            return
        self._results[call.place] = line
        while self._turn in self._results:
            self._write(self._results.pop(self._turn))
            self._window.leave()
            self._turn += 1

    def _write(self, line: bytes | None, output: Output | None = None) -> None:
        if line is None:
            return
        try:
            (output or self._output).write(line)
        except ComplaintError as problem:
            # Go on with what is finished: this output may have room again, and there may be another.
            self._problem = self._problem or problem
            self._stop.set()

    def _finish(self) -> int:
        """Bring every file to its end, report the outcome, and return the exit code."""
        self._is_ending = True
        for call in tuple(self._unsettled.values()):
            # A thread returned it, and the loop had no time to settle it.
            if call.line is not None:
                self._settle(call, call.line, None)
        code, outcome, message = self._close()
        messages = [message]
        if self._watch is not None:
            try:
                self._watch.write(self._summary(outcome, whole=code < 2))
            except ComplaintError as problem:
                messages.append(f"{problem}{_kept(self._report, 'pages')}")
                code = max(code, 2)
        signals.end(code)
        self._count()
        with unheard():
            self._display.close(self._tally)
        for failure in self._failures:
            say(failure)
        if self._tally.failed > len(self._failures):
            say(f"and {self._tally.failed - len(self._failures):,} more failed")
        for message in messages:
            say(message)
        return code

    def _close(self) -> tuple[int, str, str]:
        """Bring the output to its end; the exit code, how it ended in a few words, and what to report."""
        tally = self._tally
        problem = self._problem or (None if self._signal else self._reader.problem)
        if problem is not None:
            return 2, f"stopped: {problem}", f"{problem}{self._keep()}"
        if self._signal is not None:
            unsettled = _listed([call.record.number for call in self._unsettled.values()])
            left = f"{unsettled + ', and ' if unsettled else ''}everything after line {self._last_read}"
            done = f"interrupted: {tally.done:,} done, {tally.failed:,} failed"
            return (
                128 + self._signal,
                f"interrupted; not done: {left}",
                f"{done}{self._keep()}; not done: {left}",
            )
        try:
            self._output.commit()
            if self._errors is not None:
                self._errors.commit()
        except ComplaintError as complaint:
            return 2, f"stopped: {complaint}", f"{complaint}{self._keep()}"
        seconds = time.monotonic() - self._begun
        said = f"{tally.done:,} done, {tally.failed:,} failed, in {seconds:.1f} s"
        if tally.failed:
            return 1, f"finished; {tally.failed:,} failed", said
        return 0, "finished", said

    def _keep(self) -> str:
        """Keep the lines beside the output, also those that had not had their turn; name the files."""
        for place in sorted(self._results):
            self._write(self._results.pop(place))
        return _kept(self._output, "results") + _kept(self._errors, "failures")

    def _gauges(self) -> list[Gauge]:
        """What the time line of a report shows."""
        window, unsettled = self._window, self._unsettled
        queue = "records that are read and wait to be called"
        gauges = [
            Gauge("calls", "Calls", "calls that run", self._terms.limit, self._running),
            Gauge("queue", "Queue", queue, None, lambda: max(0, len(unsettled) - self._running())),
        ]
        if self._options.ordered:
            note = "records that are read and not written yet"
            gauges.append(Gauge("window", "Window", note, window.limit, lambda: window.held))
        return gauges

    def _families(self) -> list[Family]:
        """What the time line shows of each group."""
        if self._groups is None:
            return []
        field, limit = self._options.group_by, self._options.group_limit
        note = f"calls that run, by {field}; at most {limit:,} of each"
        return [Family("Groups", note, limit, self._groups.held)]

    def _summary(self, outcome: str, *, whole: bool) -> Summary:
        options, tally = self._options, self._tally
        asked = [("input", options.input), ("output", options.output)]
        if options.errors is not None:
            asked.append(("errors", options.errors))
        asked += self._terms.listed()
        if options.group_by is not None:
            asked.append(("group by", options.group_by))
            asked.append(("group limit", f"{options.group_limit:,}"))
            asked.append(("group window", f"{options.group_window:,}"))
            if options.weights:
                weights = (f"{name}={weight:g}" for name, weight in options.weights.items())
                asked.append(("weights", ", ".join(weights)))
        asked.append(("order", "of the input" if options.ordered else "as they finish"))
        if options.ordered:
            asked.append(("window", f"{options.window:,}"))
        return Summary(
            job=options.name,
            options=asked,
            outcome=outcome[0].upper() + outcome[1:],
            whole=whole,
            began=self._began,
            seconds=time.monotonic() - self._begun,
            read=tally.read,
            done=tally.done,
            failed=tally.failed,
            retried=tally.retried,
        )

    def _interrupt(self, number: int) -> None:
        if self._is_ending:
            return
        if self._signal is None:
            self._signal = number
            self._stop.set()
            return
        # The second time. Threads that go on would hold up every orderly way out.
        code = self._finish()
        with suppress(OSError, ValueError):
            sys.stdout.flush()  # what the function printed
        signals.leave(code)

    async def _show(self) -> None:
        while True:
            self._count()
            with unheard():
                self._display.show(self._tally)
            await asyncio.sleep(self._display.every)

    def _held(self, resource: str) -> float:
        held: Any = self._limit.held
        return float(held[resource] if self._terms.rates() else held)

    def _running(self) -> int:
        return int(self._held("slots"))

    def _count(self) -> None:
        self._tally.running = self._running()
        groups = self._groups
        self._tally.waiting = self._limit.waiting if groups is None else groups.waiting


def _listed(numbers: list[int]) -> str:
    """`records 3, 5, 7`; the first of many."""
    more = f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else ""
    return f"records {', '.join(map(str, numbers[:NAMED]))}{more}" if numbers else ""


def _kept(output: Output | None, what: str) -> str:
    """Keep what was written, if it is not where it belongs; name the file."""
    if output is None:
        return ""
    output.keep()
    return "" if output.partial is None else f"; {output.lines:,} {what} are in {output.partial}"


def _report_leftovers(output: Output) -> None:
    """Name the files of runs that were killed. They may be of use, and are never deleted."""
    found = output.leftovers()
    for leftover in found[:NAMED_FILES]:
        age = seconds_in_words(leftover.age)
        use = (
            "rename it to keep its lines, of which the last may be cut, or delete it"
            if leftover.size
            else "delete it"
        )
        say(
            f"a run that was killed left {leftover.path} ({leftover.size:,} bytes, {age} old): {use}"
        )
    if len(found) > NAMED_FILES:
        say(f"and {len(found) - NAMED_FILES:,} more such files, which are older")
