"""`JournalPass`: the use of a journal by the runs of a runner. The runner makes one; a stream makes them by a `PassMaker`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import describe_value
from headrace.task._version import version_of
from headrace.task.task import Task

if TYPE_CHECKING:
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


class PassMaker:
    """Makes the passes of a stream, one for each cycle.

    Args:
        journal: The journal.
        key_of: Returns the key of a task of the stream.
        fn: The function of the stream, whose code is the version.
    """

    def __init__(
        self, journal: Journal, key_of: Callable[[Any], Hashable], fn: Callable[..., Any]
    ) -> None:
        self._journal = journal
        self._key_of = key_of
        self._fn = fn

    def __call__(self) -> JournalPass:
        """Make the pass of a cycle."""
        return JournalPass(self._journal, self._key_of, partial(version_of, self._fn))


class JournalPass:
    """A pass over the input of a runner, with its journal.

    Args:
        journal: The journal.
        key_of: Returns the key of an item of the runner.
        version: Returns the version of the function; None if there is no single one.
    """

    def __init__(
        self,
        journal: Journal,
        key_of: Callable[[Any], Hashable] = key_of_task,
        version: Callable[[], str] | None = None,
    ) -> None:
        self.journal = journal
        self.key_of = key_of
        self._version = version
        self.is_active: bool = False
        self.has_begun: bool = False

    async def begin(self, loop: asyncio.AbstractEventLoop) -> JournalFile:
        """Open the journal for a run."""
        journal = self.journal
        if not journal.is_small():
            opening = loop.run_in_executor(None, journal.open)
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                # The thread cannot be cancelled.
                opening.add_done_callback(self._drop)
                raise
        file = journal.attach(self, self._version)
        self.is_active = True
        if not self.has_begun:
            self.has_begun = True
            journal.warn_in_flight()
        return file

    def _drop(self, opening: asyncio.Future[Journal]) -> None:
        if opening.exception() is None:
            self.journal.close()

    def suspend(self) -> None:
        """End the use by a run; another may continue the pass."""
        self.is_active = False
        self.journal.suspend(self)

    def end(self) -> None:
        """End the pass: close the journal, unless the user holds it open."""
        self.is_active = False
        self.journal.detach(self)

    def __del__(self) -> None:
        # A runner was dropped before the end of its source.
        if self.journal.is_open:
            self.journal.detach(self)
