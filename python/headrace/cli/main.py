"""The command `headrace`."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from headrace import __version__
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
failures are named at the end, and the exit code is 1. Bad input: exit code 2. Ctrl-C: exit code 130, the
output stays as it was, and what is finished is kept in OUTPUT.partial.
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
    ordered = not options.unordered
    window: int = options.window or max(1024, 4 * options.limit)
    if ordered and window < options.limit:
        msg = f"--window must be at least --limit ({options.limit}), got {window}"
        raise ComplaintError(msg)
    return run(
        MapOptions(
            function=function,
            input=options.input,
            output=options.output,
            limit=options.limit,
            text=options.text,
            ordered=ordered,
            window=window,
            every=options.every,
        )
    )


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
        "--limit", required=True, type=_count, metavar="N", help="how many calls may run at once"
    )
    job.add_argument("--text", action="store_true", help="the input is plain lines, not JSON")
    job.add_argument(
        "--unordered", action="store_true", help="write results as they finish, not in input order"
    )
    job.add_argument(
        "--window",
        type=_count,
        metavar="N",
        help="in input order: how many records may be read ahead of the oldest unfinished one "
        "(default: 1024, or 4 times the limit if that is more)",
    )
    job.add_argument(
        "--every",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="time between two lines of progress, where there is no terminal for a bar (default: 5)",
    )
    return parser


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and (count := int(text)) >= 1:
        return count
    msg = f"must be a whole number of at least 1, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    msg = f"must be a number of seconds above 0, got {text!r}"
    raise argparse.ArgumentTypeError(msg)
