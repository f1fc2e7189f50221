"""The command `headrace`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, NoReturn

from headrace import __version__
from headrace.cli import signals
from headrace.cli.arguments import count, natural, rate, seconds, size, weight
from headrace.cli.errors import ComplaintError
from headrace.cli.load_function import load
from headrace.cli.map import MapOptions, run
from headrace.cli.output import cannot_write, is_stream
from headrace.cli.run_options import Terms
from headrace.cli.stderr import listen, say

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
examples:
  headrace map mymodule:fetch --input urls.txt --text --output pages.jsonl --limit 20
  producer | headrace map mymodule:parse --input - --output - --limit 8 | consumer

Records are numbered by their lines in the input. One that fails has no line in the output; the first
failures are named at the end, --errors gets all of them, and the exit code is 1. Bad input: exit code 2.
Ctrl-C: exit code 130, the output stays as it was, and what is finished is kept in OUTPUT.partial. So it is with
SIGTERM (143) and SIGHUP (129). A run that is killed leaves .OUTPUT.*.tmp, and the next one says so.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    signals.install()
    listen()
    options = _parser().parse_args(arguments)
    try:
        return _map(options)
    except ComplaintError as complaint:
        signals.end(2)
        say(complaint)
        return 2
    except signals.Interrupted as interrupted:
        signals.end(interrupted.code)
        say("interrupted")
        return interrupted.code
    except KeyboardInterrupt:
        # The user's module raised it itself.
        signals.end(130)
        say("interrupted")
        return 130


def _map(options: argparse.Namespace) -> int:
    function = load(options.function)
    _check_files(options)
    ordered = not options.unordered
    _check_fields(options)
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
            terms=Terms(
                limit=options.limit,
                rate=options.rate,
                tokens=options.tokens,
                token_rate=options.token_rate,
                retries=options.retries,
                timeout=options.timeout,
            ),
            group_by=options.group_by,
            group_limit=options.group_limit or options.limit,
            group_window=group_window,
            weights=_weights(options.weight),
            text=options.text,
            ordered=ordered,
            window=window,
            max_record=options.max_record,
            every=options.every,
        )
    )


def _check_fields(options: argparse.Namespace) -> None:
    """Refuses options that say nothing without another, and fields where records have none."""
    pairs = (
        ("--group-limit", options.group_limit, "--group-by", options.group_by),
        ("--group-window", options.group_window, "--group-by", options.group_by),
        ("--weight", options.weight or None, "--group-by", options.group_by),
        ("--tokens", options.tokens, "--token-rate", options.token_rate),
        ("--token-rate", options.token_rate, "--tokens", options.tokens),
    )
    for option, given, needed, beside in pairs:
        if given is not None and beside is None:
            msg = f"{option} needs {needed}"
            raise ComplaintError(msg)
    for option, field in (("--group-by", options.group_by), ("--tokens", options.tokens)):
        if field is not None and options.text:
            msg = f"{option} needs records of JSON, got {field!r} with --text"
            raise ComplaintError(msg)


def _weights(given: list[tuple[str, float]]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for value, number in given:
        if value in weights:
            msg = f"--weight must be given once for each value, got {value!r} twice"
            raise ComplaintError(msg)
        weights[value] = number
    return weights


def _check_files(options: argparse.Namespace) -> None:
    """Refuses two files in one: each appears whole, and would replace the other."""
    named = {"--output": options.output, "--errors": options.errors, "--report": options.report}
    seen: dict[str, str] = {}
    for option, path in named.items():
        # Where a pipe or a device is, nothing is replaced.
        if path is None or (path != "-" and _is_stream(path)):
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


def _is_stream(path: str) -> bool:
    """Whether there is something that is written to, and not replaced."""
    try:
        return is_stream(path)
    except OSError as error:
        raise cannot_write(path, error) from error


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
        "--weight",
        type=weight,
        action="append",
        default=[],
        metavar="VALUE=W",
        help="the share of the group of that value, beside that of the others, which is 1; may be given for many values",
    )
    job.add_argument(
        "--group-window",
        type=count,
        metavar="N",
        help="how many records may wait in the queues of all groups, before reading stops (default: 10000)",
    )
    job.add_argument(
        "--rate",
        type=rate,
        metavar="N/UNIT",
        help="how many calls may be made in a second (s), minute (m), hour (h) or day (d), such as 500/m; evenly, "
        "so that none goes before the time of the one before it is over",
    )
    job.add_argument(
        "--tokens",
        metavar="FIELD",
        help="the field that says how many tokens a call is going to take",
    )
    job.add_argument(
        "--token-rate",
        type=rate,
        metavar="N/UNIT",
        help="how many tokens may be taken in that time, such as 90000/m; evenly, and no record may need more",
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
        "--max-record",
        type=size,
        default=64 << 20,
        metavar="SIZE",
        help="the longest line of the input that is taken for a record, in bytes or with K, M or G, each 1024 times the "
        "one before; a longer one is bad input (default: 64M)",
    )
    job.add_argument(
        "--every",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="time between two lines of progress, where there is no terminal for a bar (default: 5)",
    )
    return parser
