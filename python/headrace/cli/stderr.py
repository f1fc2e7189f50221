"""Messages to the user on standard error. A closed or broken standard error changes nothing else. `main` and `map` call `eprint`."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from headrace.errors import DeadlockWarning, JournalWarning, StallWarning

if TYPE_CHECKING:
    from collections.abc import Generator


def ensure_stderr() -> None:
    """Open a standard error if the process was started without one."""
    # Otherwise messages would go to standard output, which may carry results, and the next file would become
    # descriptor 2.
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - stays open until the process ends


def eprint(text: object, command: str = "map") -> None:
    """Print one line on standard error."""
    with ignore_broken_stderr():
        print(f"headrace {command}:", text, file=sys.stderr, flush=True)


def show_warnings() -> None:
    """Print the warnings of stuck capacities, of calls without progress and of journals as messages of the command."""
    show = warnings.showwarning

    def show_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, (DeadlockWarning, JournalWarning, StallWarning)):
            # It begins with the name of the runner, which is that of the command.
            eprint(str(message).removeprefix("headrace map: "))
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = show_warning


@contextmanager
def ignore_broken_stderr() -> Generator[None]:
    """Ignore a broken standard error in this block, and discard all later messages."""
    try:
        yield
    except OSError:
        # Redirects buffered text too: the final flush would change the exit code.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stderr.fileno())
        os.close(devnull)
