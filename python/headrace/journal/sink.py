"""`SinkJournal`: a sink that records the pushed items in a journal. `Journal` opens its file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from headrace._core import IteratorResult
from headrace._internal.fair_lock import FairLock
from headrace._internal.validate import check_callable_or_none
from headrace.journal.journal import Journal, as_journal
from headrace.push.sink import SinkObj

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from headrace._core import JournalFile
    from headrace._internal.validate import Path

T_contra = TypeVar("T_contra", contravariant=True)


class SinkJournal(SinkObj[T_contra], stock=True):
    """Record each pushed item in a journal; a `PullJournalObj` reads them.

    End it with `async with`, as in `async with SinkJournal("seen.journal", key=itemgetter("id")) as sink`.

    Law: an item is accepted when it is recorded; with the durability `"disk"`, when it is on disk.
    Order: of arrival.
    Bound: nothing is held.
    Cost: one write for each item, and a sync for `"disk"`.
    Cancel safety: a push that is cancelled during the sync has recorded its item. With a `key`, it can be pushed again: it is
        not recorded twice. `return_()` waits for the pushes that have begun; if it is cancelled, it continues when it is called
        again.

    Args:
        journal: A `Journal`, or a path. It is opened by the first push.
        key: Returns the key of an item: a string, an integer, bytes, or a tuple of these. An item whose key is recorded, by
            this program or an earlier one, is accepted and not recorded again. None records every item.

    Raises:
        TypeError: A parameter is of the wrong type.
        JournalError: At the first push: the journal cannot be used.
        OSError: The file cannot be written. The item was not accepted.
    """

    def __init__(
        self, journal: Journal | Path, key: Callable[[T_contra], Hashable] | None = None
    ) -> None:
        self._journal = as_journal("journal", journal)
        self._key = check_callable_or_none("key", key)
        self._pass = _Pass()
        self._file: JournalFile | None = None
        # The key of the next item, if items have none.
        self._next = 0
        # Held while the file is opened: no later push overtakes those that wait for it, and the end comes after them.
        self._lock = FairLock()
        super().__init__()

    async def next_impl(self, item: T_contra) -> IteratorResult[Any]:
        """Record an item."""
        async with self._lock:
            file = self._file or await self._open()
            self._store(file, item)
        if self._journal.durability == "disk":
            await file.sync()
        return IteratorResult(None, False)

    async def _open(self) -> JournalFile:
        await self._journal.open_beside(asyncio.get_running_loop())
        self._file = self._journal.attach(self._pass, version=None)
        self._pass.is_active = self._pass.has_begun = True
        self._next = self._file.ended
        return self._file

    def _store(self, file: JournalFile, item: T_contra) -> None:
        if self._key is not None:
            file.store(self._key(item), item)
            return
        # Damage that was skipped, or integer keys of another sink, may have left a higher key than the number of records.
        while not file.store(self._next, item):
            self._next += 1
        self._next += 1

    async def return_impl(self, value: Any) -> None:
        """Close the journal after the pushes that have begun, unless a `with` statement holds it open."""
        async with self._lock:
            self._close()

    async def throw_impl(self, error: BaseException) -> None:
        """Close the journal after the pushes that have begun, unless a `with` statement holds it open."""
        async with self._lock:
            self._close()

    def _close(self) -> None:
        self._pass.is_active = False
        self._file = None
        self._journal.detach(self._pass)

    def _repr_parts(self) -> Iterator[str]:
        yield repr(self._journal)
        yield from super()._repr_parts()


class _Pass:
    """The use of the journal by a sink: see `journal.Pass`."""

    is_active = False
    has_begun = False
