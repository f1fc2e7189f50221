"""What is said to the user, on standard error: nothing that is done depends on whether anybody hears it."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


def listen() -> None:
    """Has a standard error be there, also where the process was started without one."""
    # What is printed to none goes to standard output, which may be the output; and the next file would get its number.
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process lives


def say(text: object) -> None:
    """One line to the user."""
    with unheard():
        print("headrace map:", text, file=sys.stderr, flush=True)


@contextmanager
def unheard() -> Generator[None]:
    """What is shown in here may find that nobody reads it any more: then nothing is shown from now on."""
    try:
        yield
    except OSError:
        # Also what is still to be flushed, or the exit code would tell of that.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)
