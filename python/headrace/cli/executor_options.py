"""`ExecutorOptions`: `--executor` and `--workers` of `headrace map`, and the functions that declare and read them. `main` calls these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace._internal.reprs import pluralize
from headrace.cli.arguments import most_calls, parse_count
from headrace.cli.errors import UsageError
from headrace.cli.load_function import is_async
from headrace.cli.worker_call import call, call_async
from headrace.pool.executor.process.executor import ProcessExecutor, count_processors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from headrace.pool.executor.executor import Executor


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """The options of the worker processes. `main` makes it, and `RecordExecutor` uses it."""

    workers: int
    """The number of workers."""
    function: str
    """The function as named on the command line."""
    most_calls: int
    """The maximum number of calls at once."""

    def make(self, function: Callable[[Any], Any]) -> tuple[Executor, Callable[..., Any]]:
        """Return the workers, and the function that they call."""
        if not is_async(function):
            return ProcessExecutor(self.workers), call
        # Side by side, so that calls that wait reach the limit.
        each = -(-self.most_calls // self.workers)
        return ProcessExecutor(self.workers, tasks_per_worker=each, prefetch=0), call_async

    def describe(self) -> str:
        """Return the options as the report shows them."""
        return f"processes, {pluralize(self.workers, 'worker')}"


def add_executor_options(job: argparse.ArgumentParser) -> None:
    """Declare the options."""
    job.add_argument(
        "--executor",
        choices=["processes"],
        help="make the calls in worker processes, on all processors: for functions that compute, crash or hang",
    )
    job.add_argument(
        "--workers",
        type=parse_count,
        metavar="N",
        help="the number of worker processes (default: one for each processor)",
    )


def executor_options(options: argparse.Namespace) -> ExecutorOptions | None:
    """Return the options of the worker processes; None without `--executor`.

    Raises:
        UsageError: there are workers without `--executor`.
    """
    if options.executor is None:
        if options.workers is not None:
            raise UsageError("--workers needs --executor")
        return None
    workers = options.workers or count_processors()
    return ExecutorOptions(workers, options.function, most_calls(options.limit))
