"""`JournalPass`: the use of a journal by the runs of a runner. The runner makes one; a stream makes them by a `pass_maker`.

Several runners may share a pass, as those of the groups of `headrace map` do. A `with` statement must then hold the journal open.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import describe_value, safe_str
from headrace.errors import RecordedError
from headrace.journal.journal import as_journal
from headrace.task.task import Task

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

    from headrace._core import JournalFile
    from headrace.journal.journal import Journal


def key_of_task(item: object) -> Hashable:
    """Return the key of a task, for the journal of a runner.

    Raises:
        TypeError: It has none.
    """
    key = item.key if isinstance(item, Task) else None
    if key is None:
        raise TypeError("a task in a run with a journal needs a key, as in Task(fn, item, key=...)")
    return key


def checked_item_key(item: Any) -> Hashable:
    """Return an item as the key of its call in a journal.

    Raises:
        TypeError: It cannot be one.
    """
    if not isinstance(item, (str, bytes, int, tuple)) or isinstance(item, bool):
        raise TypeError(
            f"with a journal, an item must be a str, int or bytes, got {describe_value(item)}; "
            "for others, pass key=, a function that returns the key of an item"
        )
    return cast("Hashable", item)


def pass_maker(
    journal: Journal, key_of: Callable[[Any], Hashable], fn: Callable[..., Any]
) -> Callable[[], JournalPass]:
    """Return a function that makes the passes of a stream, one for each cycle.

    Args:
        journal: The journal.
        key_of: Returns the key of a task of the stream.
        fn: The function of the stream, whose code is the version.
    """
    return partial(JournalPass, journal, key_of, partial(_version_of, fn))


def _version_of(fn: Callable[..., Any]) -> str:
    # Late: it imports the modules for bytecode and hashes, which a pool without a journal does not need.
    from headrace.task._version import version_of

    return version_of(fn, of_state=False)


class JournalPass:
    """A pass over the input of a runner, with its journal.

    Args:
        journal: The journal.
        key_of: Returns the key of an item of the runner.
        version: Returns the version of the function; None if there is no single one.
    """

    names_in_flight: bool = True
    """Whether a `JournalWarning` names the calls that were in flight."""

    def __init__(
        self,
        journal: Journal,
        key_of: Callable[[Any], Hashable] = key_of_task,
        version: Callable[[], str] | None = None,
    ) -> None:
        self.journal = journal
        self.key_of = key_of
        self._version = version
        self.has_begun: bool = False
        # The runs that use it now.
        self._users = 0

    @classmethod
    def of(cls, journal: Any) -> JournalPass:
        """Return the pass of a runner for its argument: a pass that runners share, or what `as_journal` takes."""
        if isinstance(journal, JournalPass):
            return journal
        return cls(as_journal("journal", journal))

    @property
    def is_active(self) -> bool:
        """Whether a run uses the journal."""
        return self._users > 0

    def describe(self, error: Exception) -> dict[str, str] | None:
        """Return the description of an error that is recorded; None if the call has not ended for the journal."""
        return {"type": type(error).__qualname__, "message": safe_str(error)}

    def recorded_error(self, described: dict[str, str], attempts: int) -> RecordedError:
        """Return the error that a description stands for, of a task that failed after so many attempts."""
        return RecordedError(described["type"], described["message"])

    async def begin(self, loop: asyncio.AbstractEventLoop) -> JournalFile:
        """Open the journal for a run."""
        journal = self.journal
        await journal.open_beside(loop)
        file = journal.attach(self, self._version)
        self._users += 1
        if not self.has_begun:
            self.has_begun = True
            if self.names_in_flight:
                journal.warn_in_flight()
        return file

    def suspend(self) -> None:
        """End the use by a run; another may continue the pass."""
        self._users = max(0, self._users - 1)
        if not self._users:
            self.journal.suspend(self)

    def end(self) -> None:
        """End the pass: close the journal, unless the user holds it open."""
        self._users = max(0, self._users - 1)
        if not self._users:
            self.journal.detach(self)

    def __del__(self) -> None:
        # A runner was dropped before the end of its source.
        if self.journal.is_open:
            self.journal.detach(self)
