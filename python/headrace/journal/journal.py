"""`Journal`: the journal of a run. The runner, `map_pool`, `amap` and `map` take one as `journal=`.

A journal belongs to one *pass* over its input at a time: the runs of one runner, or one cycle of a stream. The pass opens the file and
closes it at its end, unless the journal was opened before with a `with` statement.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast
from weakref import WeakKeyDictionary, WeakSet

from headrace._core import JournalFile
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import describe_value, format_repr, pluralize, short_repr
from headrace._internal.validate import check_flag, check_path
from headrace.capacity.limits import Budget
from headrace.errors import JournalError, JournalWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from types import TracebackType
    from typing import Self

    from headrace._internal.validate import Path
    from headrace.capacity.node import CapacitySource

_LISTED = 5
"""The number of keys that a message lists."""

_SMALL = 1 << 20
"""The largest file, in bytes, that is read on the event loop: in about 10 ms."""

# The files and budgets whose spend was restored, by the node of the budget: later spend is charged while it happens.
_restored: WeakKeyDictionary[CapacitySource, set[tuple[str, str]]] = WeakKeyDictionary()


# The open files. The lock of one is shared by forked processes.
_open_files: WeakSet[JournalFile] = WeakSet()


def _close_in_child() -> None:
    """Close the files of the parent, so that a child that outlives it does not hold their locks."""
    for file in tuple(_open_files):
        file.close(False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


class Pass(Protocol):
    """The owner of an open journal."""

    @property
    def is_active(self) -> bool:
        """Whether it uses the journal now."""
        ...

    has_begun: bool
    """Whether it has used a journal."""


class Journal(Uncopied):
    """A file that says which calls of a run have begun and how they ended. A later run does not repeat the calls that have ended.

    Pass it to the run, as in `amap(fetch, urls, limit=20, journal=Journal("fetch.journal"))`.

    Each call has a key: a string, an integer, bytes, or a tuple of these. A start record is written before a call, and an
    end record after its last attempt. When the run is repeated, a call with a recorded result is not made: the result is
    delivered in its place, with `replayed=True` in its envelope. So is a recorded error, as a `RecordedError`. The other
    calls are made, and a `JournalWarning` names those that had begun, which may be paid twice. The second call with the same
    key is its second occurrence, and so on, in the order of the source.

    Cancelled calls and calls with a fatal error, such as a refused key, are made again by the next run.

    Values are stored as pickles, except for text, bytes, numbers, booleans and None. **A pickle can run any code when it is
    read**: use only journals that you trust.

    Law: a call whose result was delivered is not made again: with `durability="disk"` also after a power cut. (Guarantee 18.)
    Order: that of the run, for stored results too.
    Bound: about 32 bytes of memory for each call; values stay on disk. While 1,024 ended tasks wait for the disk, no more are
        called.
    Cost: two writes and about 3 us on the event loop for each call; one sync of the file for all calls that end meanwhile.
    Cancel safety: a cancelled run leaves the journal complete.

    Args:
        path: The path of the file, which is created if it does not exist. One driver at a time may use it; its lock is a file beside it,
            with the suffix `.lock`.
        durability: `"disk"` delivers a result when it is on disk, so that it survives a power cut. `"process"` delivers it when it is
            written, so that it survives the process, however that ends.
        version: The version of the function, a string that you change when old results must not be used. A resume with another version
            raises a `JournalError`. None for a hash of the code of the function; a resume with another hash only warns.
        accept_version: Whether results of another version are used without error or warning.
        retry_failed: Whether calls that have failed are made again.
        rerun: Whether calls are made again whose results could not be stored. Otherwise the run stops there with a `JournalStopped`.
        damaged: `"refuse"` raises a `JournalError` if a part of the file was changed on disk. `"skip"` uses the rest.

    Raises:
        TypeError: A parameter is of the wrong type.
        ValueError: `durability` or `damaged` is unknown.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Literal["disk", "process"] = "disk",
        version: str | None = None,
        accept_version: bool = False,
        retry_failed: bool = False,
        rerun: bool = False,
        damaged: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if durability not in ("disk", "process"):
            raise ValueError(
                f"durability must be 'disk' or 'process', got {describe_value(durability)}"
            )
        if damaged not in ("refuse", "skip"):
            raise ValueError(f"damaged must be 'refuse' or 'skip', got {describe_value(damaged)}")
        if version is not None and not isinstance(cast("object", version), str):
            raise TypeError(f"version must be a string or None, not {describe_value(version)}")
        self._path = check_path("path", path)
        self.durability: Literal["disk", "process"] = durability
        self._version = version
        self._accept_version = check_flag("accept_version", accept_version)
        self.retry_failed: bool = check_flag("retry_failed", retry_failed)
        self.rerun: bool = check_flag("rerun", rerun)
        self._skips_damage = damaged == "skip"
        self._file: JournalFile | None = None
        self._pass: Pass | None = None
        # Whether a `with` statement holds it open.
        self._is_entered = False
        self._in_flight: tuple[Hashable, ...] = ()
        # The thread that opens the file, and the number of coroutines that wait for it.
        self._opening: asyncio.Future[Any] | None = None
        self._opening_waiters = 0

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._path

    @property
    def is_open(self) -> bool:
        """Whether the file is open; a run that uses it has locked it."""
        return self._file is not None

    @property
    def in_flight(self) -> tuple[Hashable, ...]:
        """The keys of the calls that had begun and not ended when the file was last opened."""
        return self._in_flight

    @property
    def recorded_version(self) -> str | None:
        """The version of the last run that has used the file: that of a `Journal`, or the hash of a function. None for a new file.

        Raises:
            RuntimeError: The journal is not open.
        """
        version = self._opened().version
        return None if version is None else version[1]

    @property
    def ended(self) -> int:
        """The number of calls that have ended.

        Raises:
            RuntimeError: The journal is not open.
        """
        return self._opened().ended

    @property
    def spend(self) -> dict[str, float]:
        """The amounts of budgets that the calls of earlier runs were charged, by the name of the budget.

        Raises:
            RuntimeError: The journal is not open.
        """
        return self._opened().spend

    def open(self) -> Self:
        """Open the file, read all its records, and lock it. Called by the first run; idempotent.

        Blocks: about 2 us for each record. A run and a `SinkJournal` open a file above 1 MiB in a thread.

        Raises:
            JournalError: Another driver has locked it, it is no journal, it is damaged, or a later version of headrace has written it.
            OSError: The operating system refuses it.
        """
        if self._file is None:
            self._use(JournalFile(self._path, self._skips_damage, self.durability == "disk"))
        return self

    def _use(self, file: JournalFile) -> None:
        """Use a file that was opened."""
        _open_files.add(file)
        self._in_flight = tuple(file.in_flight)
        for start, end in file.damage:
            warnings.warn(
                f"{self._path}: {pluralize(end - start, 'byte')} at byte {start:,} are damaged and were skipped",
                JournalWarning,
                stacklevel=3,
            )
        # Last: a warning may be an error, and the lock is freed with the file.
        self._file = file

    def close(self) -> None:
        """Put everything on disk, close the file and free its lock. Idempotent.

        Raises:
            RuntimeError: A run uses the journal.
            OSError: The disk fails.
        """
        if self._is_used():
            raise RuntimeError(f"{self._path}: a run uses this journal; close that first")
        self._close()

    def _close(self) -> None:
        file, self._file, self._pass = self._file, None, None
        if file is not None:
            file.close(self.durability == "disk")

    def __enter__(self) -> Self:
        self.open()
        self._is_entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_entered = False
        self.close()

    async def open_beside(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open a large file in a thread. A small one is left to `attach`, which opens it on the event loop.

        Cancel safety: the thread cannot be cancelled. Once it has opened the file, the file is closed if no other call needs it.

        Raises:
            JournalError, OSError: As `open`.
        """
        if self._is_small():
            return
        if self._opening is None:
            self._opening = loop.run_in_executor(None, self.open)
        opening = self._opening
        self._opening_waiters += 1
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unused)
            raise
        finally:
            self._opening_waiters -= 1
            if opening.done():
                self._opening = None

    def _close_unused(self, opening: asyncio.Future[Any]) -> None:
        if self._opening_waiters or self._is_used():
            return
        self._opening = None
        if opening.exception() is None:
            self._close()

    def _is_used(self) -> bool:
        return self._pass is not None and self._pass.is_active

    def _is_small(self) -> bool:
        """Return whether `open` is fast enough for the event loop."""
        try:
            return self._file is not None or os.path.getsize(self._path) <= _SMALL  # noqa: PTH202 - `pathlib` makes the import of a pool slower
        except OSError:
            # `open` raises the error.
            return True

    def attach(self, owner: Pass, version: Callable[[], str] | None) -> JournalFile:
        """Begin or continue a pass, with an open file.

        Args:
            owner: The pass.
            version: Returns the version of the function, for a journal without one of its own; None if it has none.

        Raises:
            JournalError: Another pass uses the journal, or `version` does not fit.
        """
        if self._pass is owner:
            file = self._opened()
            if not owner.is_active:
                file.relock()
            return file
        if self._is_used():
            raise JournalError(
                f"{self._path}: another run uses this journal; give each run a journal of its own"
            )
        if owner.has_begun:
            raise JournalError(
                f"{self._path}: another run has used this journal since; begin with a new runner"
            )
        if self._pass is not None:
            # Another pass begins: all calls can be claimed again.
            self._close()
        file = self.open()._opened()
        try:
            self._check_version(file, version)
        except BaseException:
            if not self._is_entered:
                self._close()
            raise
        self._pass = owner
        return file

    def suspend(self, owner: Pass) -> None:
        """Free the lock between two runs of a pass, unless a `with` statement holds it.

        Raises:
            OSError: The disk fails.
        """
        if self._pass is owner and self._file is not None and not self._is_entered:
            self._file.unlock(self.durability == "disk")

    def detach(self, owner: Pass) -> None:
        """End a pass: close the file, unless a `with` statement holds it open.

        Raises:
            OSError: The disk fails.
        """
        if self._pass is owner and not self._is_entered:
            self._close()

    def _check_version(self, file: JournalFile, version: Callable[[], str] | None) -> None:
        """Compare the version with that of the last pass, and record it."""
        if self._version is not None:
            current, is_explicit = self._version, True
        elif version is not None:
            current, is_explicit = version(), False
        else:
            return
        last = file.version
        if last == (is_explicit, current):
            return
        if last is not None and not self._accept_version:
            if is_explicit or last[0]:
                shown = f"version {last[1]!r}" if last[0] else "a function without a version"
                given = f"version {current!r}" if is_explicit else "no version"
                raise JournalError(
                    f"{self._path} has results of {shown}, and this run has {given}: "
                    "give the run a new file, or pass accept_version=True to use the old results"
                )
            warnings.warn(
                f"{self._path} has results of other code than that of this run, and they are used: give the run a new file if they "
                "must not be, a version=, or accept_version=True",
                JournalWarning,
                stacklevel=2,
            )
        file.run(current, is_explicit)

    def restore_spend(self, capacity: CapacitySource) -> list[str]:
        """Charge the budgets on the path of a capacity with what earlier runs have spent. Return the names of the budgets."""
        budgets = _budgets(capacity)
        spend = self._opened().spend if budgets else {}
        path = os.path.realpath(self._path)
        for name, nodes in budgets.items():
            known = [_restored.setdefault(node, set()) for node in nodes]
            if all((path, name) in restored for restored in known):
                continue
            for restored in known:
                restored.add((path, name))
            if amount := spend.get(name):
                capacity._spend(name, amount)
        return sorted(budgets)

    def warn_in_flight(self) -> None:
        """Name the calls that had begun in an earlier run and not ended."""
        if not self._in_flight:
            return
        shown = ", ".join(short_repr(key) for key in self._in_flight[:_LISTED])
        more = len(self._in_flight) - _LISTED
        if more > 0:
            shown += f" and {more:,} more"
        calls = pluralize(len(self._in_flight), "call")
        warnings.warn(
            f"{self._path}: {calls} had begun when an earlier run ended, and may be paid twice: {shown}",
            JournalWarning,
            stacklevel=2,
        )

    def _opened(self) -> JournalFile:
        if self._file is None:
            raise RuntimeError(
                f"{self._path}: this journal is not open; use it in a with statement"
            )
        return self._file

    def __repr__(self) -> str:
        return format_repr("Journal", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield short_repr(self._path)
        yield "closed" if self._file is None else f"{self._file.ended:,} ended"


def as_journal(parameter: str, journal: Any) -> Journal:
    """Return a journal for a parameter: a `Journal`, or the path of one.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(journal, Journal):
        return journal
    if isinstance(journal, (str, bytes, os.PathLike)):
        return Journal(cast("str", journal))
    raise TypeError(f"{parameter} must be a Journal or a path, not {describe_value(journal)}")


def _budgets(capacity: CapacitySource) -> dict[str, list[CapacitySource]]:
    """Return the nodes on the path of a capacity that have a budget, by its name."""
    found: dict[str, list[CapacitySource]] = {}
    node: CapacitySource | None = capacity
    while node is not None:
        for name, limit in node.limits.items():
            if isinstance(limit, Budget):
                found.setdefault(name, []).append(node)
        node = node.parent
    return found
