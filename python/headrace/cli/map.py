"""`headrace map`: one function, every record of an input, under a limit, with progress. `main` calls `run`.

The records are a pull source of tasks for a `HierarchicalTaskPoolRunner` on a capacity that is the limit. With groups,
each group has a runner on a child of that capacity (see `groups`). A record is read when a slot, or the queue of its
group, has space for it, so the input may have any size. In input order, a result waits until all earlier records are
settled. The records from the oldest unsettled one on are in flight; at `--window` of them, reading stops.

A signal stops the reading, cancels calls on the event loop, and waits for calls in threads, which cannot be cancelled.
A second signal abandons those threads. The lines finished by then are kept in `OUTPUT.partial`.

Once all records are settled, a signal changes nothing. All files are on disk before anything is reported, because
writing to standard error may block: it may be a full pipe.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from operator import itemgetter
from signal import SIGINT
from typing import TYPE_CHECKING, Any, cast

from headrace.cli import signals
from headrace.cli.errors import CommandError
from headrace.cli.failures import Failures
from headrace.cli.format import format_records
from headrace.cli.groups import Groups, group_name
from headrace.cli.hidden_retries import HiddenRetries
from headrace.cli.inflight import InFlight
from headrace.cli.leftovers import report_leftovers
from headrace.cli.output import Output, keep_partial
from headrace.cli.progress import Tally, choose_display
from headrace.cli.record import FailedJson, Row
from headrace.cli.record_error import (
    InterruptingError,
    RecordError,
    ReplayedError,
    encode_error_line,
)
from headrace.cli.record_executor import RecordExecutor
from headrace.cli.record_pool import RecordPool
from headrace.cli.record_runner import RecordRunner
from headrace.cli.record_task import RecordTask
from headrace.cli.records import RecordReader
from headrace.cli.report.collector import Collector
from headrace.cli.report.series import Series, SeriesFamily
from headrace.cli.report.summary import Summary
from headrace.cli.run_cache import RunCache
from headrace.cli.run_journal import RunJournal, describe_failure, suggest_journal
from headrace.cli.stderr import eprint, ignore_broken_stderr, show_warnings
from headrace.errors import JournalStopped, RunStopped
from headrace.pull.source import SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.cli.map_options import MapOptions
    from headrace.task.task import Task


def run(options: MapOptions) -> int:
    """Run the command and return the exit code.

    Raises:
        CommandError: a file cannot be opened. No file was changed.
        Interrupted: a signal was received before the run started. No file was changed.
    """
    with signals.deferred(), ExitStack() as stack:
        reader = stack.enter_context(
            RecordReader(
                options.input,
                options.input_format,
                options.max_record,
                find_failed=options.find_failed,
            )
        )
        output = stack.enter_context(
            Output(options.output, options.output_format, is_numbered=options.number)
        )
        errors = (
            stack.enter_context(Output(options.errors, options.errors_format))
            if options.errors
            else None
        )
        report = stack.enter_context(Output(options.report)) if options.report else None
        for opened in (output, errors, report):
            if opened is not None:
                report_leftovers(opened)
        show_warnings()
        journal = None
        if options.journal is not None:
            journal = stack.enter_context(RunJournal(options.journal, options.function))
        cache = None
        if options.cache is not None:
            cache = stack.enter_context(RunCache(options.cache, options.function))
        return asyncio.run(_Map(options, reader, output, errors, report, journal, cache).run())


class _Map:
    """The state of one run."""

    def __init__(
        self,
        options: MapOptions,
        reader: RecordReader,
        output: Output,
        errors: Output | None,
        report: Output | None,
        journal: RunJournal | None,
        cache: RunCache | None,
    ) -> None:
        self._options = options
        self._reader = reader
        self._output = output
        self._errors = errors
        self._report = report
        self._journal = journal
        self._cache = cache
        self._tally = Tally(total_size=None if options.first else reader.size)
        self._display = choose_display(options.every)
        self._started = time.monotonic()
        self._started_at = datetime.now().astimezone()
        self._run_options = options.run_options
        self._limit = options.run_options.capacity()
        # Set to stop before the end, by a signal or a failed write.
        self._stop = asyncio.Event()
        self._signal: int | None = None
        # All records are settled, so signals are ignored.
        self._is_finishing = False
        self._problem: CommandError | None = None
        # The error of a run that its failures have stopped.
        self._stopped: RunStopped | None = None
        self._is_read = False
        # Unsettled records by index: running ones and the next one.
        self._unsettled: dict[int, RecordTask] = {}
        self._last_read = 0
        self._failures = Failures()
        # In input order: finished results by index, None for a failure, until all earlier ones are written.
        # A record is in flight from reading to writing.
        self._results: dict[int, bytes | None] = {}
        self._next_index = 0
        self._in_flight = InFlight(options.window)
        self._runner = RecordRunner(
            options.function,
            self,
            HiddenRetries(),
            cooldown=options.run_options.cooldown,
            number=options.number,
            is_remote=options.executor is not None,
        )
        self._executor = None
        self._failure_limits = options.run_options.failure_limits()
        self._runner_options = options.run_options.runner_options(self._runner.classify)
        if journal is not None:
            # The runners share it, so it is no journal that each of them would open.
            self._runner_options["journal"] = cast("Any", journal.use)
        if cache is not None:
            self._runner_options["cache"] = cast("Any", cache.use)
        if options.executor is not None:
            self._executor = RecordExecutor(options.executor, self._runner, options.function)
            self._runner_options["executor"] = self._executor
        self._groups = None
        if options.group_by is not None:
            self._groups = Groups(
                self._limit,
                options.group_limit,
                options.group_window,
                self._failure_limits,
                self._runner_options,
                options.weights,
            )
        self._collector = (
            None
            if report is None
            else Collector(
                report, self._make_series(), self._make_families(), self._run_options.rate_series()
            )
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()

        def interrupt(number: int) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._interrupt, number)

        signals.listen(interrupt)
        background = {asyncio.create_task(self._show_progress(), name="headrace map: progress")}
        if self._collector is not None:
            background.add(asyncio.create_task(self._collector.run(), name="headrace map: report"))
        if self._options.journal is None and self._options.first is None:
            background.add(asyncio.create_task(suggest_journal(), name="headrace map: advice"))
        try:
            await self._work()
        except BaseException:
            with ignore_broken_stderr():
                self._display.close(self._tally)  # restores the terminal
            raise
        finally:
            for task in background:
                task.cancel()
            await asyncio.wait(background)
        if self._cache is not None:
            await self._cache.close()
        return self._finish()

    async def _work(self) -> None:
        """Run until all records are settled, or until a stop is requested and all calls have ended."""
        working = asyncio.create_task(self._run_until_stopped(), name="headrace map: events")
        stopping = asyncio.create_task(self._stop.wait(), name="headrace map: stop")
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done() and not self._unsettled:
                self._signal, self._is_finishing = None, True  # too late to stop anything
            elif self._signal and (running := self._running()):
                calls = "1 call" if running == 1 else f"{running:,} calls"
                eprint(f"stopping: {calls} still running (interrupt again to abandon)")
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait({working, stopping})
        self._is_finishing = True
        if not working.cancelled():
            working.result()

    async def _run_until_stopped(self) -> None:
        try:
            await self._run()
        except RunStopped as stopped:
            if self._unsettled or not self._is_read:
                self._stopped = stopped
        finally:
            if self._executor is not None:
                await self._executor.aclose()

    async def _run(self) -> None:
        """Process all records."""
        async with SourceIterObj(self._tasks()) as tasks:
            if self._groups is not None:
                await self._groups.run(tasks)
                return
            runner = RecordPool(
                tasks.map(itemgetter(1)),
                self._limit,
                self._failure_limits,
                self._runner_options,
            )
            async with runner.run_tasks() as progress:
                # The callbacks of a task settle its record: during a stop, no events are read.
                async for _ in progress:
                    pass

    async def _tasks(self) -> AsyncIterator[tuple[str, Task]]:
        """Yield a task for each record with the name of its group. Records are read on demand."""
        field, index = self._options.group_by, 0
        async for record in self._reader.records():
            if self._options.ordered:
                await self._in_flight.wait_for_space()
                self._in_flight.add()
            self._tally.read += 1
            if isinstance(record.kind, FailedJson) and not index:
                eprint(
                    f"{self._reader.name} has the failed records of an earlier run, which are called again "
                    "(--input-format jsonl takes its lines as they are)"
                )
            record_task = self._unsettled[index] = RecordTask(record, index, time.monotonic())
            self._last_read = record.number
            index += 1
            is_last = index == self._options.first
            try:
                record_task.tokens = self._run_options.count_tokens(
                    record.value, is_text=isinstance(record.kind, Row)
                )
                group = "" if field is None else group_name(record.value, field)
            except ValueError as error:
                self.fail(record_task, error)
            else:
                cost = self._run_options.cost(record_task.tokens)
                yield group, self._runner.make_task(record_task, cost)
            if is_last:
                break
        self._is_read = True

    # The methods of `RecordListener`, called by the runner.

    def is_stopped(self) -> bool:
        """See `RecordListener`."""
        return self._stop.is_set()

    def complete(self, record_task: RecordTask, line: bytes) -> None:
        """See `RecordListener`."""
        if not record_task.calls:
            record_task.end()
            self._tally.count_uncalled(is_cached=record_task.is_looked_up)
        self._settle(record_task, line, None)

    def fail(self, record_task: RecordTask, error: BaseException) -> None:
        """See `RecordListener`."""
        if isinstance(error, InterruptingError):
            # Like Ctrl-C, except that it never counts as the second signal.
            self._signal = self._signal or SIGINT
            self._stop.set()
            return
        is_stopping = self._stop.is_set() or not record_task.is_cancelled
        if isinstance(error, asyncio.CancelledError) and is_stopping:
            # Cancelled by the stop, perhaps while it waited for a retry, so it has not failed.
            return
        record_task.end()
        if isinstance(error, ReplayedError):
            self._tally.failures_replayed += 1
            record_task.earlier_attempts = error.attempts
        self._settle(record_task, None, error)

    def _settle(
        self, record_task: RecordTask, line: bytes | None, error: BaseException | None
    ) -> None:
        """Record the outcome of a record, and write each result that is now next in order."""
        record = self._unsettled.pop(record_task.index).record
        self._tally.settled_size += record.size
        self._tally.retried += max(0, record_task.attempts - 1)
        self._tally.throttled += record_task.throttled
        failure = None if error is None else RecordError.of(error)
        if failure is None:
            self._tally.done += 1
        else:
            self._tally.failed += 1
            self._failures.add(record.number, failure)
            if self._errors is not None:
                self._write(encode_error_line(record_task, failure), self._errors)
        if self._collector is not None:
            self._collector.add_record(record_task, failure)
        if not self._options.ordered:
            self._write(line)
            return
        self._results[record_task.index] = line
        while self._next_index in self._results:
            self._write(self._results.pop(self._next_index))
            self._in_flight.remove()
            self._next_index += 1

    def _write(self, line: bytes | None, output: Output | None = None) -> None:
        if line is None:
            return
        try:
            (output or self._output).write(line)
        except CommandError as problem:
            # Keep writing finished results: the disk may have space again, or another output may be intact.
            self._problem = self._problem or problem
            self._stop.set()

    def _finish(self) -> int:
        """Finish all files, report the outcome, and return the exit code."""
        self._is_finishing = True
        for record_task in tuple(self._unsettled.values()):
            # A thread returned it, and the event loop has not settled it yet.
            if record_task.line is not None:
                self._settle(record_task, record_task.line, None)
        code, outcome, message = self._close()
        messages = [message]
        if self._collector is not None:
            for record_task in self._unsettled.values():
                self._collector.add_unfinished(record_task)
            try:
                self._collector.write(
                    self._summary(outcome, whole=code < 2 and self._stopped is None)
                )
            except CommandError as problem:
                messages.append(f"{problem}{keep_partial(self._report, 'page')}")
                code = max(code, 2)
        if self._journal is not None and code >= 2:
            messages.append(self._journal.describe_resume())
        signals.set_exit_code(code)
        self._update_tally()
        with ignore_broken_stderr():
            self._display.close(self._tally)
        for message in [*self._failures.messages(), *messages]:
            eprint(message)
        return code

    def _close(self) -> tuple[int, str, str]:
        """Finish the output. Return the exit code, a short outcome for the report, and a message."""
        tally = self._tally
        problem = self._problem or (None if self._signal else self._reader.problem)
        if problem is not None:
            return 2, f"stopped: {problem}", f"{problem}{self._keep_results()}"
        counts = tally.outcome
        left = self._not_done()
        if self._stopped is not None:
            code, reason = 2 if self._failure_limits.is_fatal else 1, str(self._stopped)
            if isinstance(self._stopped, JournalStopped):
                code, reason = 2, describe_failure(self._stopped)
            message = f"{reason}: {counts}{self._keep_results()}; not done: {left}"
            return code, f"{reason}; not done: {left}", message
        if self._signal is not None:
            message = f"interrupted: {counts}{self._keep_results()}; not done: {left}"
            return 128 + self._signal, f"interrupted; not done: {left}", message
        try:
            self._output.commit()
            if self._errors is not None:
                self._errors.commit()
        except CommandError as error:
            return 2, f"stopped: {error}", f"{error}{self._keep_results()}"
        seconds = time.monotonic() - self._started
        message = f"{counts}, in {seconds:.1f} s"
        message += tally.throttling
        if self._options.first is not None:
            message += "; no file was written (--first)"
        if tally.failed:
            return 1, f"finished; {tally.failed:,} failed", message
        return 0, "finished", message

    def _not_done(self) -> str:
        """Describe the records that are not settled."""
        unsettled = format_records(
            [record_task.record.number for record_task in self._unsettled.values()]
        )
        return f"{unsettled + ', and ' if unsettled else ''}everything after {self._reader.unit} {self._last_read}"

    def _keep_results(self) -> str:
        """Keep all finished lines, out of order too, in partial files. Return a description of the files."""
        for index in sorted(self._results):
            self._write(self._results.pop(index))
        return keep_partial(self._output, "result") + keep_partial(self._errors, "failure")

    def _make_series(self) -> list[Series]:
        """Make the series of the report's time line."""
        in_flight, unsettled = self._in_flight, self._unsettled
        queue = "records read and not started"
        limit = self._run_options.limit
        fixed = limit if isinstance(limit, int) else None
        series = [
            Series("calls", "Calls", "running calls", fixed, self._running),
            Series("queue", "Queue", queue, None, lambda: max(0, len(unsettled) - self._running())),
        ]
        if self._options.ordered:
            note = "records read and not written"
            series.append(
                Series("window", "Window", note, in_flight.limit, lambda: in_flight.count)
            )
        return series

    def _make_families(self) -> list[SeriesFamily]:
        """Make the series of each group."""
        if self._groups is None:
            return []
        field, limit = self._options.group_by, self._options.group_limit
        note = f"running calls by {field}, at most {limit:,} each"
        return [SeriesFamily("Groups", note, limit, self._groups.running)]

    def _summary(self, outcome: str, *, whole: bool) -> Summary:
        tally = self._tally
        return Summary(
            job=self._options.name,
            options=self._options.describe(),
            outcome=outcome[0].upper() + outcome[1:],
            whole=whole,
            began=self._started_at,
            seconds=time.monotonic() - self._started,
            unit=self._reader.unit,
            read=tally.read,
            done=tally.done,
            failed=tally.failed,
            retried=tally.retried,
            throttled=tally.throttled,
        )

    def _interrupt(self, number: int) -> None:
        if self._is_finishing:
            return
        if self._signal is None:
            self._signal = number
            self._stop.set()
            return
        # The second signal. Running threads would delay any regular exit.
        code = self._finish()
        with suppress(OSError, ValueError):
            sys.stdout.flush()  # text printed by the function
        signals.exit_now(code)

    async def _show_progress(self) -> None:
        while True:
            self._update_tally()
            with ignore_broken_stderr():
                self._display.show(self._tally)
            await asyncio.sleep(self._display.every)

    def _held(self, resource: str) -> float:
        held: Any = self._limit.held
        return float(held[resource] if self._run_options.rates() else held)

    def _running(self) -> int:
        return int(self._held("slots"))

    def _update_tally(self) -> None:
        self._tally.running = self._running()
        groups = self._groups
        self._tally.waiting = self._limit.waiting if groups is None else groups.waiting
