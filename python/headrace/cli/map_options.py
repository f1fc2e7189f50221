"""`MapOptions`: the parsed command line of `headrace map`. `main` makes it, and `map` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.cli.executor_options import ExecutorOptions
    from headrace.cli.file_format import FileFormat
    from headrace.cli.journal_options import JournalOptions
    from headrace.cli.run_options import RunOptions


@dataclass(frozen=True, slots=True)
class MapOptions:
    """The parsed command line."""

    name: str
    """The function as named on the command line."""
    function: Callable[[Any], Any]
    input: str
    output: str
    errors: str | None
    report: str | None
    run_options: RunOptions
    group_by: str | None
    """The field whose value names the group; None for no groups."""
    group_limit: int
    group_window: int
    weights: Mapping[str, float]
    """The weights of groups by name; the default is 1."""
    input_format: FileFormat
    find_failed: bool
    """Whether a file of failed records of an earlier run is recognised as input."""
    output_format: FileFormat
    errors_format: FileFormat
    number: bool
    """Whether each result has the number of its record."""
    first: int | None
    """The number of records to try and print; None for all records."""
    ordered: bool
    window: int
    max_record: int
    every: float
    journal: JournalOptions | None
    """The journal; None for a run without one."""
    cache: str | None
    """The path of the cache; None for a run without one."""
    executor: ExecutorOptions | None
    """The worker processes that make the calls; None for the event loop and threads."""

    def describe(self) -> list[tuple[str, str]]:
        """Return the options that are set, as names and formatted values."""
        shown = [("input", self.input), ("output", self.output)]
        if self.errors is not None:
            shown.append(("errors", self.errors))
        if self.journal is not None:
            shown.append(("journal", self.journal.path))
        if self.cache is not None:
            shown.append(("cache", self.cache))
        if self.executor is not None:
            shown.append(("executor", self.executor.describe()))
        shown += self.run_options.describe()
        if self.group_by is not None:
            shown.append(("group by", self.group_by))
            shown.append(("group limit", f"{self.group_limit:,}"))
            shown.append(("group window", f"{self.group_window:,}"))
            if self.weights:
                weights = (f"{name}={weight:g}" for name, weight in self.weights.items())
                shown.append(("weights", ", ".join(weights)))
        shown.append(("order", "of the input" if self.ordered else "as they finish"))
        if self.ordered:
            shown.append(("window", f"{self.window:,}"))
        return shown
