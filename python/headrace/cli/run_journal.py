"""`RunJournal`: the journal of `headrace map`. `map` opens one for `--journal`.

The key of a record is its value as JSON. So the result of a record is found again when lines were inserted, deleted or moved, and in
another format of the input. The journal numbers equal records in their order, as occurrences of one key. The key of a long
record is its beginning and a hash.

The stored result is the line of the output without `--number`. An error is stored with its place, as the messages show it.

The runners of all groups share one use of the journal. Equal records are in the same group, so that their order does not depend on other
groups.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from headrace.cli.errors import CommandError, UsageError
from headrace.cli.format import MAX_LISTED, shorten
from headrace.cli.record_error import InterruptingError, RecordError, ReplayedError
from headrace.cli.stderr import eprint
from headrace.errors import JournalError
from headrace.journal.journal import Journal
from headrace.pool.journal_pass import JournalPass
from headrace.task._version import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable
    from typing import Self

    from headrace.cli.journal_options import JournalOptions
    from headrace.cli.record import Record
    from headrace.errors import JournalStopped
    from headrace.task.task import Task

MAX_KEY = 120
"""The most characters of a record that is its own key."""

BEGINNING = 60
"""The characters of a longer record that are part of its key, so that a message can name it."""

SUGGEST_AFTER = 60.0
"""The seconds after which a run without a journal says that there could be one."""


class RunJournal:
    """The journal of a run, opened and locked in a `with` block.

    Args:
        options: the options of the journal.
        function: the function of the user.

    Raises:
        CommandError: at the `with`: the file cannot be used, or was made by a run that this one must not continue.
    """

    def __init__(self, options: JournalOptions, function: Callable[[Any], Any]) -> None:
        self._options = options
        self._version = version_of(function, of_state=False)
        # `_check` compares the versions, and names the option of the command.
        self._journal = Journal(
            options.path,
            durability=options.durability,
            accept_version=True,
            retry_failed=options.retry_failed,
        )
        self.use: JournalPass = _Use(self._journal, _key_of_task, lambda: self._version)
        """The use of the journal by all runners."""

    def __enter__(self) -> Self:
        with journal_errors(self._options.path):
            self._journal.__enter__()
        try:
            self._check()
        except BaseException:
            self._journal.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._journal.__exit__(None, None, None)
        except OSError as error:
            # The outputs are whole.
            eprint(f"{self._options.path} may not be on disk: {error.strerror}")

    def _check(self) -> None:
        """Refuse a journal that this run must not continue, and say what it has."""
        journal, options = self._journal, self._options
        in_flight = journal.in_flight
        if not (journal.ended or in_flight):
            if options.resumes:
                eprint(f"{options.path} is new: no record is finished")
            return
        if not options.resumes:
            raise UsageError(
                f"{options.path} has the calls of an earlier run: add --resume to continue it, or name a new file"
            )
        version = journal.recorded_version
        if version not in {None, self._version} and not options.accept_version:
            raise UsageError(
                f"{options.path} has the results of other code than that of this function: name a new file, or add "
                "--accept-version to take them"
            )
        finished = "1 record is" if journal.ended == 1 else f"{journal.ended:,} records are"
        message = f"resuming: {finished} finished in {options.path}"
        if in_flight:
            calls = "1 call was" if len(in_flight) == 1 else f"{len(in_flight):,} calls were"
            shown = ", ".join(format_key(key) for key in in_flight[:MAX_LISTED])
            more = len(in_flight) - MAX_LISTED
            message += f"; {calls} in flight and may be paid twice: {shown}"
            message += f" and {more:,} more" if more > 0 else ""
        eprint(message)

    def describe_resume(self) -> str:
        """Return a message with the command line that continues the run."""
        return f"to resume: {self._options.resume_line}"


@contextmanager
def journal_errors(path: str) -> Generator[None]:
    """Raise the errors of a journal in this block as `CommandError`, which names the remedy."""
    try:
        yield
    except JournalError as error:
        text = str(error)
        if "damaged" in text:
            text = (
                f"{text.partition(';')[0]}; restore a copy, or run `headrace journal compact --skip-damage`: "
                "the calls of the damaged records are then made again"
            )
        raise CommandError(text) from error
    except OSError as error:
        reason = error.strerror or error
        raise CommandError(f"cannot use the journal {path}: {reason}") from error


class _Use(JournalPass):
    """The use of the journal by all runners of the command."""

    names_in_flight = False

    def describe(self, error: Exception) -> dict[str, str] | None:
        """See `JournalPass`. A `KeyboardInterrupt` of the function stops the run, and its record has not failed."""
        if isinstance(error, InterruptingError):
            return None
        failure = RecordError.of(error)
        return {"type": failure.kind, "message": failure.message, "where": failure.where}

    def recorded_error(self, described: dict[str, str], attempts: int) -> ReplayedError:
        """See `JournalPass`."""
        where = described.get("where", "")
        return ReplayedError(described["type"], described["message"], where, attempts)


def describe_failure(error: JournalStopped) -> str:
    """Describe why a journal has stopped a run, and name the records whose ends it does not have."""
    if not isinstance(error.__cause__, OSError):
        return str(error)
    reason = f"the journal cannot be written: {error.__cause__.strerror}"
    if not error.unrecorded:
        return reason
    lost = ", ".join(format_key(key) for key in error.unrecorded[:MAX_LISTED])
    more = len(error.unrecorded) - MAX_LISTED
    return f"{reason} (ended, and would be called again: {lost}{f' and {more:,} more' if more > 0 else ''})"


async def suggest_journal() -> None:
    """Say once, in a long run, that a journal keeps its results."""
    await asyncio.sleep(SUGGEST_AFTER)
    eprint("a run with --journal FILE can be resumed, also after a crash; this one has none")


def format_key(key: Hashable) -> str:
    """Return the key of a call in a message: the record of a call of the command, shortened."""
    text = record_text(key)
    return shorten(repr(key) if text is None else text, BEGINNING + 1)


def record_text(key: Hashable) -> str | None:
    """Return the record, or its beginning, out of a key that the command has made; None for any other key."""
    if isinstance(key, str):
        return key
    match key:
        case (str(beginning), bytes()):
            return f"{beginning}…"
        case _:
            return None


def _key_of_task(task: Task) -> Hashable:
    record = cast("Record", task.args[0].record)
    return key_of_record(record)


def key_of_record(record: Record) -> Hashable:
    """Return the key of a record, as described above."""
    try:
        text = json.dumps(
            record.value,
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
            default=_as_text,
        )
    except (TypeError, ValueError, RecursionError):
        # Nested too deeply for this encoder, or with keys that are no text.
        text = record.json
    if len(text) <= MAX_KEY:
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return text[:BEGINNING], digest


def _as_text(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
