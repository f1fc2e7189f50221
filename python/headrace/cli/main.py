"""The command line of `headrace`: its parser, and the checks of options that concern more than one. `start` calls `main`."""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from headrace._core import __version__
from headrace.cli import signals
from headrace.cli.arguments import (
    most_calls,
    parse_count,
    parse_failures,
    parse_limit,
    parse_natural,
    parse_rate,
    parse_seconds,
    parse_share,
    parse_size,
    parse_token_rate,
    parse_weight,
)
from headrace.cli.errors import CommandError, UsageError
from headrace.cli.executor_options import add_executor_options, executor_options
from headrace.cli.file_format import FileFormat, parse_format
from headrace.cli.journal_command import add_journal_command, run_journal_command
from headrace.cli.journal_options import JournalOptions, add_journal_options, journal_options
from headrace.cli.load_function import load_function
from headrace.cli.map import run
from headrace.cli.map_options import MapOptions
from headrace.cli.output import is_stream, write_error
from headrace.cli.run_cache import add_cache_option, cache_path
from headrace.cli.run_options import RunOptions
from headrace.cli.stderr import ensure_stderr, eprint

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
examples:
  headrace map fetch.py:fetch --input urls.csv --limit 20 --first 3
  headrace map app:fetch --input urls.txt --output pages.jsonl --limit 20
  producer | headrace map app:parse --input - --output - --limit 8 | consumer

The output appears whole or not at all. A failed record has no line in it. Equal
errors are listed once, with a count; --errors records all failed records, and
its file can be the input of another run.

exit codes:
  0    all records are done
  1    some records failed, or so many that --max-failures stopped the run
  2    bad input or options, a file cannot be written, or a fatal error, such as
       a refused key, stopped the run
  130  interrupted by Ctrl-C (143: SIGTERM, 129: SIGHUP)

If the run is stopped, OUTPUT is unchanged and the finished results are kept in
OUTPUT.partial. A killed run leaves .OUTPUT.*.tmp, which the next run reports.
With --journal FILE, the same command line with --resume continues a run,
however it ended, and makes no finished call again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    signals.install()
    ensure_stderr()
    options = _parser().parse_args(arguments)
    try:
        if options.command == "journal":
            return run_journal_command(options)
        return _map(options, journal_options(options, arguments))
    except CommandError as error:
        signals.set_exit_code(2)
        eprint(error, options.command)
        return 2
    except signals.Interrupted as interrupted:
        signals.set_exit_code(interrupted.code)
        eprint("interrupted", options.command)
        return interrupted.code
    except KeyboardInterrupt:
        # Raised by the user's module.
        signals.set_exit_code(130)
        eprint("interrupted", options.command)
        return 130


def _map(options: argparse.Namespace, journal: JournalOptions | None) -> int:
    _check_required(options)
    function = load_function(options.function)
    if options.first is not None:
        # A trial writes no file, so that it can be given in front of the options of the whole run.
        options.output, options.errors, options.report = "-", None, None
        if options.output_format is None or options.output_format.is_converted:
            options.output_format = FileFormat("jsonl", is_named=True)
    # An option that names the format means its lines as they are.
    find_failed = options.input_format is None
    _choose_formats(options)
    _check_files(options)
    ordered = not options.unordered
    _check_fields(options)
    most = most_calls(options.limit)
    group_window: int = options.group_window or 10_000
    least = max(1024, 4 * most)
    window: int = options.window or least + (group_window if options.group_by is not None else 0)
    if ordered and window < most:
        raise UsageError(f"--window must be at least --limit ({most}), got {window}")
    return run(
        MapOptions(
            name=options.function,
            function=function,
            input=options.input,
            output=options.output,
            errors=options.errors,
            report=options.report,
            run_options=RunOptions(
                limit=options.limit,
                rate=options.rate,
                tokens=options.tokens,
                token_rate=options.token_rate,
                retries=options.retries,
                cooldown=options.cooldown,
                timeout=options.timeout,
                stall_after=options.stall_after,
                keep_going=options.keep_going,
                max_failures=options.max_failures,
                retry_budget=options.retry_budget,
            ),
            group_by=options.group_by,
            group_limit=options.group_limit or most,
            group_window=group_window,
            weights=_weights(options.weight),
            input_format=options.input_format,
            find_failed=find_failed,
            output_format=options.output_format,
            errors_format=_errors_format(options.errors),
            number=options.number,
            first=options.first,
            ordered=ordered,
            window=window,
            max_record=options.max_record,
            every=options.every,
            journal=journal,
            cache=cache_path(options),
            executor=executor_options(options),
        )
    )


def _check_required(options: argparse.Namespace) -> None:
    """Refuse a command line without a required option, and name all that are missing."""
    lacks_output = options.output is None and options.first is None
    missing = [
        (option, meaning)
        for option, meaning, is_missing in (
            ("--input FILE", "the file of the records; - is standard input", options.input is None),
            ("--output FILE", "or --first 3, to try three records", lacks_output),
            ("--limit N", "the most calls at once, or --limit auto", options.limit is None),
        )
        if is_missing
    ]
    if missing:
        named = " and ".join(f"{option} ({meaning})" for option, meaning in missing)
        raise UsageError(
            f"add {named}, as in: headrace map {options.function} --input records.jsonl --output results.jsonl --limit 20"
        )


def _choose_formats(options: argparse.Namespace) -> None:
    """Choose the formats by option or by suffix, and refuse those that a file cannot have."""
    if options.text:
        if options.input_format is not None:
            raise UsageError("--text and --input-format must not both be given")
        compression = FileFormat.of(options.input).compression
        options.input_format = FileFormat("text", compression, is_named=True)
    is_named = options.output_format is not None
    options.input_format = _choose_format("--input", options.input, options.input_format)
    options.output_format = _choose_format("--output", options.output, options.output_format)
    if not options.output_format.is_converted:
        return
    if options.output == "-" or _is_stream(options.output):
        named = (
            f"--output-format {options.output_format}"
            if is_named
            else f"--output {options.output!r}"
        )
        raise UsageError(
            f"{named} needs a file, because the format is made of all results; "
            "for a pipe or a device add --output-format jsonl or text"
        )


def _choose_format(option: str, path: str, named: FileFormat | None) -> FileFormat:
    chosen = named or FileFormat.of(path)
    if chosen.is_columnar and chosen.compression is not None:
        raise UsageError(
            f"{option}: {chosen.kind} compresses its own columns, so the file must not be "
            f"{chosen.compression} too, got {path!r}"
        )
    return chosen


def _errors_format(path: str | None) -> FileFormat:
    chosen = FileFormat.of(path or "")
    if chosen.kind not in {"jsonl", "text"} or (chosen.compression and path and _is_stream(path)):
        raise UsageError(
            f"--errors writes JSON lines, which can be the input of another run; name it .jsonl, got {path!r}"
        )
    return FileFormat("jsonl", chosen.compression)


def _check_fields(options: argparse.Namespace) -> None:
    """Refuse options that need another one, and fields with records that have none."""
    pairs = (
        ("--group-limit", options.group_limit, "--group-by", options.group_by),
        ("--group-window", options.group_window, "--group-by", options.group_by),
        ("--weight", options.weight or None, "--group-by", options.group_by),
        ("--tokens", options.tokens, "--token-rate", options.token_rate),
        ("--token-rate", options.token_rate, "--tokens", options.tokens),
        ("--retry-budget", options.retry_budget, "--retries", options.retries or None),
    )
    for option, value, needed, other in pairs:
        if value is not None and other is None:
            raise UsageError(f"{option} needs {needed}")
    for option, field in (("--group-by", options.group_by), ("--tokens", options.tokens)):
        if field is not None and options.input_format.kind == "text":
            raise UsageError(
                f"{option} needs records with fields, got {field!r} with plain lines; "
                "--input-format names another format"
            )


def _weights(pairs: list[tuple[str, float]]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for value, number in pairs:
        if value in weights:
            raise UsageError(f"--weight must be given at most once per value, got {value!r} twice")
        weights[value] = number
    return weights


def _check_files(options: argparse.Namespace) -> None:
    """Refuse one path for two files: each is published whole and would replace the other."""
    named = {"--output": options.output, "--errors": options.errors, "--report": options.report}
    named |= {"--journal": options.journal, "--cache": options.cache}
    seen: dict[str, str] = {}
    for option, path in named.items():
        # A pipe or a device is never replaced.
        if path is None or (path != "-" and _is_stream(path)):
            continue
        where = path if path == "-" else os.path.realpath(path)
        if where in seen:
            raise UsageError(
                f"{seen[where]} and {option} must be different files, got {path!r} for both"
            )
        seen[where] = option
    for option, path in named.items():
        if path is None or not _is_input(path, options.input):
            continue
        if path == "-":
            raise UsageError("standard output is the input; write to another file")
        if option in {"--report", "--journal", "--cache"}:
            raise UsageError(f"{option} would replace the input, {path!r}; name another file")
        if not options.force:
            raise UsageError(
                f"{option} would replace the input, {path!r}; name another file, or add --force"
            )


def _is_input(path: str, input_path: str) -> bool:
    """Whether an output is the file that is read, by any name: a link, another spelling, or a redirection."""
    try:
        read = os.fstat(0) if input_path == "-" else Path(input_path).stat()
        written = os.fstat(1) if path == "-" else Path(path).stat()
    except OSError:
        return False  # one does not exist, or is reported when it is opened
    return stat.S_ISREG(read.st_mode) and os.path.samestat(read, written)


def _is_stream(path: str) -> bool:
    """Whether `path` is a pipe or a device, which is written to and never replaced."""
    try:
        return is_stream(path)
    except OSError as error:
        raise write_error(path, error) from error


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="headrace",
        description="Run many calls at once, under limits that are shared fairly.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    job = commands.add_parser(
        "map",
        help="call a function with each record of a file",
        description="Call a function with each record of a file, under a limit, with progress.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    job.add_argument(
        "function",
        metavar="FUNCTION",
        help="the function to call, as MODULE:FUNCTION or FILE.py:FUNCTION; an async function runs on the event loop, "
        "any other in threads",
    )
    add_executor_options(job)
    records = job.add_argument_group("input and output")
    records.add_argument(
        "--input",
        metavar="FILE",
        help="read records from FILE; - is standard input. The suffix names the format: .jsonl .json .csv .tsv .txt "
        ".parquet .arrow, also with .gz or .zst; any other has JSON lines",
    )
    records.add_argument(
        "--output",
        metavar="FILE",
        help="write the results to FILE, in the format of its suffix; - is standard output",
    )
    records.add_argument(
        "--number",
        action="store_true",
        help="write each result with the number of its record in the input, as the fields record and result",
    )
    records.add_argument(
        "--first",
        type=parse_count,
        metavar="N",
        help="try the first N records, and print their results instead of writing any file",
    )
    records.add_argument(
        "--force",
        action="store_true",
        help="let --output or --errors replace the input, at the end of the run",
    )
    records.add_argument("--text", action="store_true", help="read plain lines instead of JSON")
    for which in ("input", "output"):
        records.add_argument(
            f"--{which}-format",
            type=parse_format,
            metavar="FORMAT",
            help=f"the format of the {which} if its suffix does not name it: jsonl, json (an array), csv, tsv, text, "
            "parquet or arrow, also with .gz or .zst, such as csv.gz",
        )
    records.add_argument(
        "--max-record",
        type=parse_size,
        default=64 << 20,
        metavar="SIZE",
        help="the longest record allowed in the input, in bytes or with suffix K, M or G; a longer one is bad input "
        "(default: 64M)",
    )
    order = records.add_mutually_exclusive_group()
    order.add_argument(
        "--ordered", action="store_true", help="write results in input order (the default)"
    )
    order.add_argument(
        "--unordered", action="store_true", help="write results as they finish, not in input order"
    )
    records.add_argument(
        "--window",
        type=parse_count,
        metavar="N",
        help="in input order, read at most N records from the oldest unfinished one on "
        "(default: 1024 or 4 times the limit, whichever is more, plus the group window with --group-by)",
    )
    limits = job.add_argument_group("limits")
    limits.add_argument(
        "--limit",
        type=parse_limit,
        metavar="N|auto",
        help="run at most N calls at once; with `auto`, as many as the server takes, from 10 on, at most 1000: fewer "
        "after throttled answers and timeouts, and if more calls only take longer",
    )
    limits.add_argument(
        "--rate",
        type=parse_rate,
        metavar="N/UNIT",
        help="start at most N calls per second (s), minute (m), hour (h) or day (d), evenly spaced, such as 500/m;"
        " or `auto` to follow the rate limits of the server",
    )
    limits.add_argument(
        "--tokens",
        metavar="FIELD",
        help="the field with the number of tokens that a call uses",
    )
    limits.add_argument(
        "--token-rate",
        type=parse_token_rate,
        metavar="N/UNIT",
        help="use at most N tokens per unit of time, evenly spaced, such as 90000/m; a record that needs more than N fails",
    )
    groups = job.add_argument_group("groups of records")
    groups.add_argument(
        "--group-by",
        metavar="FIELD",
        help="group records by the value of this field; groups share the limit fairly",
    )
    groups.add_argument(
        "--group-limit",
        type=parse_count,
        metavar="N",
        help="run at most N calls of one group at once (default: the limit)",
    )
    groups.add_argument(
        "--weight",
        type=parse_weight,
        action="append",
        default=[],
        metavar="VALUE=W",
        help="give the group with this value W times the share of a group with weight 1, the default; repeatable",
    )
    groups.add_argument(
        "--group-window",
        type=parse_count,
        metavar="N",
        help="stop reading while N records are queued over all groups (default: 10000)",
    )
    failures = job.add_argument_group("failures")
    failures.add_argument(
        "--retries",
        type=parse_natural,
        default=0,
        metavar="N",
        help="retry a failed record up to N times, after 0.5 s, 1 s, 2 s and so on, or after the seconds that the "
        "server requires; not if another call fails alike, as with a refused key (default: 0)",
    )
    failures.add_argument(
        "--retry-budget",
        type=parse_share,
        metavar="SHARE",
        help="retry at most this share of all records, and 10 more; then a failed record is not retried, such as 20%% "
        "(default: no limit)",
    )
    failures.add_argument(
        "--max-failures",
        type=parse_failures,
        metavar="N",
        help="stop when more than N records have failed, or more than N%% of at least 20 (default: no limit)",
    )
    failures.add_argument(
        "--keep-going",
        action="store_true",
        help="do not stop at an error that every call would get, such as a refused key or an exhausted quota",
    )
    failures.add_argument(
        "--no-cooldown",
        dest="cooldown",
        action="store_false",
        help="treat a throttled answer, such as HTTP 429, as any other error; by default it delays all calls and its "
        "record is called again",
    )
    failures.add_argument(
        "--timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="fail a call that runs longer, time in queues excluded; a call in a thread cannot be stopped and fails "
        "when it returns (default: no timeout)",
    )
    failures.add_argument(
        "--stall-after",
        type=parse_seconds,
        default=60.0,
        metavar="SECONDS",
        help="name a call that has made no progress for this time on standard error; it goes on (default: 60)",
    )
    failures.add_argument(
        "--errors",
        metavar="FILE",
        help="write a line of JSON for each failed record to FILE: the error and the record",
    )
    add_journal_options(job)
    add_cache_option(job)
    reports = job.add_argument_group("progress")
    reports.add_argument(
        "--every",
        type=parse_seconds,
        default=5.0,
        metavar="SECONDS",
        help="print progress at this interval where there is no terminal for a bar (default: 5)",
    )
    reports.add_argument(
        "--report",
        metavar="FILE",
        help="write an HTML page about the run to FILE: totals, durations, a time line, slow and failed records",
    )
    add_journal_command(commands)
    return parser
