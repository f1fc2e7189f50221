"""`headrace journal show|export|compact`: reads and shortens a journal. `main` adds its parser and calls `run_journal_command`.

A pickle can run any code, so none is read without `--trust`.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace._core import JournalFile
from headrace.cli.errors import UsageError
from headrace.cli.format import MAX_LISTED, shorten
from headrace.cli.journal_export import EXPORTS, check_packages, export
from headrace.cli.journal_log import JournalLog, exported_value
from headrace.cli.output import write_error
from headrace.cli.run_journal import format_key, journal_errors

if TYPE_CHECKING:
    import argparse

    from headrace.journal.records import JournalRecord

MAX_VALUE = 100
"""The maximum length of a value or a version that `show` prints, in characters."""


def add_journal_command(commands: Any) -> None:
    """Add the parser of `headrace journal`."""
    journal = commands.add_parser(
        "journal",
        help="show, export or shorten the journal of a run",
        description="Show, export or shorten the journal of a run, as of `headrace map --journal FILE`.",
        allow_abbrev=False,
    )
    actions = journal.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print a summary", allow_abbrev=False)
    show.add_argument("--records", action="store_true", help="print each record, too")
    exporting = actions.add_parser(
        "export", help="write the last state of each call to another file", allow_abbrev=False
    )
    compact = actions.add_parser(
        "compact", help="remove what a resume does not need", allow_abbrev=False
    )
    for action in (show, exporting, compact):
        action.add_argument("journal", metavar="FILE", help="the journal")
        action.add_argument(
            "--skip-damage", action="store_true", help="skip the parts that were changed on disk"
        )
    exporting.add_argument(
        "output", metavar="OUTPUT", help="the file to write; - is standard output, as JSON lines"
    )
    exporting.add_argument(
        "--to",
        choices=tuple(EXPORTS),
        help="the format, if the suffix of OUTPUT does not name it: "
        + ", ".join(f"{name} ({' '.join(suffixes)})" for name, suffixes in EXPORTS.items()),
    )
    exporting.add_argument("--force", action="store_true", help="replace OUTPUT if it exists")
    for action in (show, exporting):
        action.add_argument(
            "--trust",
            action="store_true",
            help="read the values that are pickles, which can run any code: only for journals that you trust",
        )


def run_journal_command(options: argparse.Namespace) -> int:
    """Run the command and return the exit code.

    Raises:
        CommandError: the journal cannot be read, or the output cannot be written.
    """
    # Opening a journal to write would create it.
    with journal_errors(options.journal):
        Path(options.journal).stat()
    try:
        if options.action == "show":
            _show(options)
        elif options.action == "export":
            _export(options)
        else:
            _compact(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has what it wants. The last flush of the interpreter must not fail.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
    except OSError as error:
        raise write_error("standard output", error) from error
    return 0


def _show(options: argparse.Namespace) -> None:
    log = JournalLog(options.journal, skips_damage=options.skip_damage)
    for record in log.records():
        if options.records:
            print(_format_record(record, trusts=options.trust))
    with journal_errors(options.journal):
        size = Path(options.journal).stat().st_size
    if options.records:
        print()
    version = "none" if log.version is None else log.version
    print(f"journal    {options.journal}, {size:,} bytes")
    print(f"version    {shorten(version, MAX_VALUE)}")
    print(f"calls      {log.count('returned'):,} finished, {log.count('failed'):,} failed", end="")
    unstored = log.count("unstored")
    print(f", {unstored:,} with a result that could not be stored" if unstored else "")
    in_flight = log.in_flight()
    shown = ", ".join(format_key(key) for key in in_flight[:MAX_LISTED])
    more = len(in_flight) - MAX_LISTED
    names = f": {shown}{f' and {more:,} more' if more > 0 else ''}" if in_flight else ""
    print(f"in flight  {len(in_flight):,}{names}")
    if log.first is not None and log.last is not None:
        print(f"written    from {_format_time(log.first)} to {_format_time(log.last)}")
    if log.damaged:
        print(f"damaged    {log.damaged:,} bytes were skipped")


def _format_record(record: JournalRecord, *, trusts: bool) -> str:
    again = f" (occurrence {record.occurrence + 1})" if record.occurrence else ""
    line = f"{_format_time(record.time)}  {record.status:8}  {format_key(record.key)}{again}"
    if record.status == "started":
        return line
    attempts = "1 attempt" if record.attempts == 1 else f"{record.attempts:,} attempts"
    value_format, value = exported_value(record, trusts=trusts)
    if value_format == "pickle":
        text = f"<pickle, {len(record.stored):,} bytes>"
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{line}  {attempts}  {shorten(text, MAX_VALUE)}"


def _format_time(time: float) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")
    return "an unknown time"


def _export(options: argparse.Namespace) -> None:
    path = options.output
    kind = options.to or ("jsonl" if path == "-" else _kind_of(path))
    if path == "-":
        if kind != "jsonl":
            raise UsageError(f"--to {kind} needs a file; for standard output use --to jsonl")
    else:
        try:
            is_journal = Path(path).exists() and Path(path).samefile(options.journal)
        except OSError as error:
            raise write_error(path, error) from error
        if is_journal:
            raise UsageError(f"OUTPUT would replace the journal, {path!r}; name another file")
        if os.path.lexists(path) and not options.force:
            raise UsageError(f"{path} exists; name another file, or add --force to replace it")
    check_packages(kind, path)
    log = JournalLog(options.journal, skips_damage=options.skip_damage)
    export(log, path, kind, trusts=options.trust, replaces=options.force)


def _kind_of(path: str) -> str:
    for kind, suffixes in EXPORTS.items():
        if path.lower().endswith(suffixes):
            return kind
    named = ", ".join(suffix for suffixes in EXPORTS.values() for suffix in suffixes)
    raise UsageError(
        f"the suffix of OUTPUT must be one of {named}, or --to must name the format, got {path!r}"
    )


def _compact(options: argparse.Namespace) -> None:
    with journal_errors(options.journal):
        before, after = JournalFile.compact(options.journal, options.skip_damage)
    print(f"{options.journal}: {before:,} bytes before, {after:,} bytes now")
