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
from headrace.pool.executor.ray.cluster import is_ray_installed
from headrace.pool.executor.ray.executor import RayExecutor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from headrace.pool.executor.executor import Executor


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """The options of the worker processes. `main` makes it, and `RecordExecutor` uses it."""

    workers: int | None
    """The number of workers, of each node of a cluster; None for one for each processor."""
    function: str
    """The function as named on the command line."""
    most_calls: int
    """The maximum number of calls at once."""
    is_cluster: bool = False
    """Whether the workers are on a Ray cluster."""
    address: str | None = None
    """The address of that cluster; None to start Ray here."""

    def make(self, function: Callable[[Any], Any]) -> tuple[Executor, Callable[..., Any]]:
        """Return the workers, and the function that they call."""
        # Async calls side by side, so that calls that wait reach the limit.
        workers = self.workers or count_processors()
        each, prefetch = (-(-self.most_calls // workers), 0) if is_async(function) else (1, 1)
        of_worker = call_async if is_async(function) else call
        if not self.is_cluster:
            return ProcessExecutor(workers, tasks_per_worker=each, prefetch=prefetch), of_worker
        cluster = RayExecutor(
            self.address, workers=self.workers, tasks_per_worker=each, prefetch=prefetch
        )
        return cluster, of_worker

    def describe(self) -> str:
        """Return the options as the report shows them."""
        where = f"Ray at {self.address}" if self.address else "Ray"
        workers = "" if self.workers is None else f", {pluralize(self.workers, 'worker')}"
        return f"{where if self.is_cluster else 'processes'}{workers}"


def add_executor_options(job: argparse.ArgumentParser) -> None:
    """Declare the options."""
    job.add_argument(
        "--executor",
        metavar="processes|ray[:ADDRESS]",
        help="make the calls in worker processes, on all processors: for functions that compute, crash or hang; `ray` starts Ray on "
        "this machine, and ray:auto uses a cluster",
    )
    job.add_argument(
        "--workers",
        type=parse_count,
        metavar="N",
        help="the number of worker processes (default: one for each processor), with Ray of each node",
    )


def executor_options(options: argparse.Namespace) -> ExecutorOptions | None:
    """Return the options of the worker processes; None without `--executor`.

    Raises:
        UsageError: there are workers without `--executor`, or no such executor, or Ray is not installed.
    """
    if options.executor is None:
        if options.workers is not None:
            raise UsageError("--workers needs --executor")
        return None
    kind, colon, address = options.executor.partition(":")
    if kind not in ("processes", "ray") or (colon and (kind != "ray" or not address)):
        raise UsageError(
            f"--executor must be processes, ray or ray:ADDRESS, such as ray:auto, got {options.executor!r}"
        )
    is_cluster = kind == "ray"
    if is_cluster and not is_ray_installed():
        raise UsageError("--executor ray needs Ray: pip install 'headrace[ray]'")
    return ExecutorOptions(
        options.workers,
        options.function,
        most_calls(options.limit),
        is_cluster=is_cluster,
        address=address or None,
    )
