"""Messages about files left by killed runs. `map` prints them before a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.format import format_duration
from headrace.cli.stderr import eprint

if TYPE_CHECKING:
    from headrace.cli.output import Output

# How many files are listed.
MAX_LEFTOVERS = 5


def report_leftovers(output: Output) -> None:
    """List the files left by killed runs. They may be useful and are never deleted."""
    found = output.find_leftovers()
    for leftover in found[:MAX_LEFTOVERS]:
        age = format_duration(leftover.age)
        use = (
            "rename it to keep its lines (the last may be incomplete), or delete it"
            if leftover.size
            else "delete it"
        )
        eprint(f"a killed run left {leftover.path} ({leftover.size:,} bytes, {age} old): {use}")
    if len(found) > MAX_LEFTOVERS:
        eprint(f"and {len(found) - MAX_LEFTOVERS:,} older ones")
