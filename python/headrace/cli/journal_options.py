"""`JournalOptions`: the options `--journal` and so on of `headrace map`. `main` adds and reads them."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headrace.cli.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """The journal of a run."""

    path: str
    resumes: bool
    """Whether the journal may have the calls of earlier runs."""
    accept_version: bool
    retry_failed: bool
    durability: Literal["disk", "process"]
    resume_line: str
    """The command line that continues the run."""


def add_journal_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of `headrace map`."""
    journal = parser.add_argument_group("journal")
    journal.add_argument(
        "--journal",
        metavar="FILE",
        help="record each call in FILE, so that a later run with --resume makes only the calls that have not ended",
    )
    journal.add_argument(
        "--resume",
        action="store_true",
        help="take the results in the journal, and call the function for the other records; a journal that does not "
        "exist is begun",
    )
    journal.add_argument(
        "--retry-failed",
        action="store_true",
        help="with --resume, also call the records again that have failed",
    )
    journal.add_argument(
        "--accept-version",
        action="store_true",
        help="with --resume, take the results of other code of the function",
    )
    journal.add_argument(
        "--durability",
        choices=("disk", "process"),
        help="when a result counts as recorded: on disk, so that it survives a power cut (the default), or written, "
        "which is faster and survives the end of the process",
    )


def journal_options(
    options: argparse.Namespace, arguments: Sequence[str] | None
) -> JournalOptions | None:
    """Return the options of the journal; None for none, and for a trial, which writes no file.

    Raises:
        UsageError: an option needs another one.
    """
    given = (
        ("--resume", options.resume, "--journal", options.journal),
        ("--durability", options.durability, "--journal", options.journal),
        ("--retry-failed", options.retry_failed, "--resume", options.resume),
        ("--accept-version", options.accept_version, "--resume", options.resume),
    )
    for option, value, needed, other in given:
        if value and not other:
            raise UsageError(f"{option} needs {needed}")
    if options.journal == "-":
        raise UsageError("--journal must be a file, got '-'")
    if options.journal is None or options.first is not None:
        return None
    return JournalOptions(
        path=options.journal,
        resumes=options.resume,
        accept_version=options.accept_version,
        retry_failed=options.retry_failed,
        durability=options.durability or "disk",
        resume_line=_resume_line(sys.argv[1:] if arguments is None else arguments),
    )


def _resume_line(arguments: Sequence[str]) -> str:
    """Return the command line that continues a run with these arguments, quoted for a shell."""
    is_module = Path(sys.argv[0]).name == "__main__.py"
    program = [sys.executable, "-m", "headrace"] if is_module else ["headrace"]
    resume = [] if "--resume" in arguments else ["--resume"]
    return shlex.join([*program, *arguments, *resume])
