"""The command `headrace`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from headrace import __version__
from headrace.cli.arguments import count, natural, seconds
from headrace.cli.complaint import ComplaintError
from headrace.cli.map import MapOptions, run
from headrace.cli.target import load

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
examples:
  headrace map mymodule:fetch --input urls.txt --text --output pages.jsonl --limit 20
  producer | headrace map mymodule:parse --input - --output - --limit 8 | consumer

Records are numbered by their lines in the input. One that fails has no line in the output; the first
failures are named at the end, --errors gets all of them, and the exit code is 1. Bad input: exit code 2.
Ctrl-C: exit code 130, the output stays as it was, and what is finished is kept in OUTPUT.partial.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _map(options)
    except ComplaintError as complaint:
        print("headrace map:", complaint, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # Before the work began, or after it ended: while it runs, it handles the signal itself.
        print("headrace map: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _map(options: argparse.Namespace) -> int:
    function = load(options.function)
    _check_files(options)
    ordered = not options.unordered
    if options.group_by is None:
        for option, given in (
            ("--group-limit", options.group_limit),
            ("--group-window", options.group_window),
        ):
            if given is not None:
                msg = f"{option} needs --group-by, got {given} without it"
                raise ComplaintError(msg)
    elif options.text:
        msg = f"--group-by needs records of JSON, got {options.group_by!r} with --text"
        raise ComplaintError(msg)
    group_window: int = options.group_window or 10_000
    window: int = options.window or (
        max(1024, 4 * options.limit) + (group_window if options.group_by is not None else 0)
    )
    if ordered and window < options.limit:
        msg = f"--window must be at least --limit ({options.limit}), got {window}"
        raise ComplaintError(msg)
    return run(
        MapOptions(
            name=options.function,
            function=function,
            input=options.input,
            output=options.output,
            errors=options.errors,
            report=options.report,
            limit=options.limit,
            group_by=options.group_by,
            group_limit=options.group_limit or options.limit,
            group_window=group_window,
            retries=options.retries,
            timeout=options.timeout,
            text=options.text,
            ordered=ordered,
            window=window,
            every=options.every,
        )
    )


def _check_files(options: argparse.Namespace) -> None:
    """Refuses two files in one: each appears whole, and would replace the other."""
    named = {"--output": options.output, "--errors": options.errors, "--report": options.report}
    seen: dict[str, str] = {}
    for option, path in named.items():
        # Where a pipe or a device is, nothing is replaced.
        if path is None or (path != "-" and Path(path).exists() and not Path(path).is_file()):
            continue
        where = path if path == "-" else os.path.realpath(path)
        if where in seen:
            msg = f"{seen[where]} and {option} must be different files, got {path!r} for both"
            raise ComplaintError(msg)
        seen[where] = option
    # The others may be the input: what was read is what they were made of.
    if options.input != "-" and seen.get(os.path.realpath(options.input)) == "--report":
        msg = f"--report would replace the input, {options.input!r}"
        raise ComplaintError(msg)


class _Parser(argparse.ArgumentParser):
    """A parser that answers a wrong command line with one line, like everything else that is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help says more)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="headrace", description="Work brought to asyncio, under limits.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    job = commands.add_parser(
        "map",
        help="apply a function to every record of an input",
        description="Apply a function to every record of an input, under a limit, with progress.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    job.add_argument(
        "function",
        metavar="MODULE:FUNCTION",
        help="called with each record; an async function runs on the event loop, any other in threads",
    )
    job.add_argument(
        "--input", required=True, metavar="FILE", help="JSON lines; - is standard input"
    )
    job.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="gets a line of JSON for each result; - is standard output",
    )
    job.add_argument(
        "--limit", required=True, type=count, metavar="N", help="how many calls may run at once"
    )
    job.add_argument(
        "--group-by",
        metavar="FIELD",
        help="the records of one value of this field are a group; among groups the limit is shared fairly",
    )
    job.add_argument(
        "--group-limit",
        type=count,
        metavar="N",
        help="how many calls of one group may run at once (default: the limit)",
    )
    job.add_argument(
        "--group-window",
        type=count,
        metavar="N",
        help="how many records may wait in the queues of all groups, before reading stops (default: 10000)",
    )
    job.add_argument(
        "--retries",
        type=natural,
        default=0,
        metavar="N",
        help="how often a record that fails is called again, after half a second, a second, two, and so on; an error "
        "with a number in its attribute retry_after says itself after how many (default: 0)",
    )
    job.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="how long a call may take before it fails, its time in any queue not counted; a thread cannot be stopped, "
        "and its record fails when it has come to its end (default: as long as it takes)",
    )
    job.add_argument("--text", action="store_true", help="the input is plain lines, not JSON")
    order = job.add_mutually_exclusive_group()
    order.add_argument(
        "--ordered", action="store_true", help="write results in input order, as is the default"
    )
    order.add_argument(
        "--unordered", action="store_true", help="write results as they finish, not in input order"
    )
    job.add_argument(
        "--errors",
        metavar="FILE",
        help="gets a line of JSON for each record that failed: the error, and the record as it was",
    )
    job.add_argument(
        "--report",
        metavar="FILE",
        help="gets a page of HTML about the run: totals, durations, a time line, the slowest and the failed records",
    )
    job.add_argument(
        "--window",
        type=count,
        metavar="N",
        help="in input order: how many records may be read ahead of the oldest unfinished one "
        "(default: 1024, or 4 times the limit if that is more; with groups, their window besides)",
    )
    job.add_argument(
        "--every",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="time between two lines of progress, where there is no terminal for a bar (default: 5)",
    )
    return parser
