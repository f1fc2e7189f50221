"""`SqliteStore`: a store in a file of SQLite, which several processes may share."""

from __future__ import annotations

import os
import pickle
import sqlite3
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin, short_repr
from headrace._internal.tasks import wait_until_done, warn_unclosed
from headrace._internal.validate import check_path, check_size
from headrace.cache._writer import Writer, keep_open
from headrace.errors import ClosedError, ForkError, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from headrace._internal.validate import Path

_APPLICATION = 0x48526368
"""Identifies the file as a store of results."""

_FORMAT = 1
"""The version of the schema. A store refuses a newer one."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, expires REAL, value BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS expiring ON results (expires) WHERE expires IS NOT NULL",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_FORMAT}",
)
_SELECT = "SELECT expires, value FROM results WHERE key = ?"

_OPEN_WAIT = 5.0
"""The seconds after which opening is not tried again while other processes use the file. One attempt may wait as long."""

_READ_WAIT = 1.0
"""The seconds for which a read waits for another process, which is needed only while that process repairs the file after a crash."""

_WRITE_WAIT = 60.0
"""The seconds for which the writer's thread waits for the writes of other processes."""

_PAGE_CACHE = 16_384
"""The KiB of pages that reads keep in memory: the index of some 100,000 results, and a part of these."""


class SqliteStore(ReprMixin, Uncopied):
    """A store of a `Cache` in a file of SQLite. Its results survive the process, and other processes may use them.

    Values are pickled (protocol 5), so that each caller gets an object of its own. **Unpickling runs code: use only files that you
    trust as much as the program.** A value that cannot be pickled is delivered, and the cache warns once that it is not stored. One
    that cannot be unpickled, because its class has changed, counts as missing, and is replaced.

    A result is read on the event loop: it is one look-up by key. It is written by a thread, in batches, and is visible in this
    process at once. When the store is closed, all results are written. A process that is killed loses the last batch; a power
    cut may lose the last seconds, and never corrupts the file (WAL, `synchronous=NORMAL`).

    A time to live is wall-clock time, since it must outlive the process. If the clock of the machine is set back, results live
    longer by that step; if it is set forward, they expire earlier. Expired results are deleted at the first write after opening.

    Any thread and any loop may use the store. After a fork, the child must open another one.

    Bound: in memory `max_unwritten` results, one more for each call that waits for the next commit, and 16 MB of pages; on disk
        all results.
    Cost: a hit, about 10 us, also with 100,000 entries, and the time of unpickling.

    Args:
        path: The file; it is created if it does not exist. It must be on a local disk, since WAL needs shared memory.
        max_unwritten: The number of unwritten results above which a call is delivered only after the next commit.

    Raises:
        TypeError: `path` is not a path, or `max_unwritten` not an integer.
        ValueError: `max_unwritten` is less than 1.
        StoreError: The file is a directory, read-only, damaged, locked, of another program, or of a newer format.
    """

    def __init__(self, path: Path, *, max_unwritten: int = 1_000) -> None:
        self._given = check_path("path", path)
        self._path = os.path.abspath(self._given)  # noqa: PTH100  # `pathlib` is slow to import
        check_size("max_unwritten", max_unwritten)
        self._pid = os.getpid()
        writing = self._open()
        try:
            self._reading = _connect(self._path, _READ_WAIT)
            self._reading.execute(f"PRAGMA cache_size = -{_PAGE_CACHE}")
        except BaseException:
            writing.close()
            raise
        self._lock = threading.RLock()
        self._closed = False
        self._has_reported = False
        self._writer = Writer(writing, max_unwritten)
        self._finalizer = weakref.finalize(self, self._writer.finish)

    def get(self, key: bytes, default: Any, /) -> Any:
        """Return a stored value, or `default`.

        Raises:
            StoreError: The file cannot be read.
            ClosedError: The store is closed.
            ForkError: The store was opened before this process was forked.
        """
        self._check_usable()
        row = self._writer.unwritten(key)
        if row is None:
            try:
                # The connection is shared by threads, and may not be used by two at once.
                with self._lock:
                    # Another thread may have closed the store meanwhile.
                    self._check_usable()
                    found = self._reading.execute(_SELECT, (key,)).fetchone()
            except sqlite3.Error as error:
                raise self._error("cannot be read", error) from error
            if found is None:
                return default
            expires, pickled = found
        else:
            _, expires, pickled = row
        if expires is not None and time.time() >= expires:
            return default
        try:
            return pickle.loads(pickled)  # noqa: S301  # a store must be trusted, as its documentation says
        except Exception:
            # Its class was moved or has changed.
            return default

    def put(self, key: bytes, value: Any, ttl: float | None, /) -> asyncio.Future[None] | None:
        """Accept a value; return a future to wait for if more than `max_unwritten` are not written.

        Raises:
            StoreError: The value cannot be pickled; or, once, earlier values could not be written.
            ClosedError: The store is closed.
            ForkError: The store was opened before this process was forked.
        """
        self._check_usable()
        try:
            pickled = pickle.dumps(value, protocol=5)
        except Exception as error:
            raise StoreError(f"{short_repr(value)} cannot be pickled: {error}") from error
        expires = None if ttl is None else time.time() + ttl
        future = self._writer.put((key, expires, pickled))
        if self._writer.error is not None and not self._has_reported:
            self._has_reported = True
            raise self._error("cannot be written", self._writer.error)
        return future

    async def aclose(self) -> None:
        """Write all accepted values, and close the file. Idempotent.

        Raises:
            StoreError: Values could not be written.
            ForkError: The store was opened before this process was forked.

        Cancel safety: a cancellation is raised when the file is closed.
        """
        self._check_process()
        self._closed = True
        with self._lock:
            self._reading.close()
        cancellation = None
        if (future := self._writer.close()) is not None:
            cancellation = await wait_until_done(future)
        self._finalizer.detach()
        lost, self._writer.lost = self._writer.lost, 0
        if cancellation is not None:
            raise cancellation
        if lost:
            error = self._writer.error
            raise self._error(f"lacks {lost} results, which could not be written", error) from error

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ForkError(
                f"the store {self._path} was opened before this process was forked; open another one here"
            )

    def _check_usable(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError(f"the store {self._path} is closed")

    def __del__(self) -> None:
        # The attribute is missing if `__init__` raised.
        if getattr(self, "_closed", True):
            return
        if self._pid == os.getpid():
            warn_unclosed(self)
        else:
            keep_open(self._reading)

    def _repr_parts(self) -> Iterator[str]:
        yield short_repr(self._given)
        yield "closed" if self._closed else "open"

    def _error(self, problem: str, error: BaseException | None) -> StoreError:
        return StoreError(f"{self._path} {problem}: {error}")

    def _open(self) -> sqlite3.Connection:
        """Open the file for writing, and create or check its schema."""
        if os.path.isdir(self._path):  # noqa: PTH112  # pathlib is slow to import
            raise StoreError(f"{self._path} is a directory; path must name a file")
        end = time.monotonic() + _OPEN_WAIT
        while True:
            connection: sqlite3.Connection | None = None
            try:
                connection = _connect(self._path, _OPEN_WAIT)
                self._prepare(connection)
                connection.execute(f"PRAGMA busy_timeout = {_WRITE_WAIT * 1000:.0f}")
            except BaseException as error:
                if connection is not None:
                    connection.close()
                # The change to WAL does not wait for other processes by itself.
                if _is_busy(error) and time.monotonic() < end:
                    time.sleep(0.01)
                    continue
                if isinstance(error, sqlite3.Error):
                    raise self._error(_describe_problem(error, self._path), error) from error
                raise
            return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        read = _reader(connection)
        application, version = read("PRAGMA application_id"), read("PRAGMA user_version")
        # Read before anything is written: the file may belong to another program.
        if read("SELECT count(*) FROM sqlite_master"):
            if application != _APPLICATION:
                raise StoreError(f"{self._path} is a database of another program; name a new file")
            if version > _FORMAT:
                raise StoreError(
                    f"{self._path} was written by a newer headrace, in format {version}; this one knows format {_FORMAT}"
                )
        if read("PRAGMA journal_mode = WAL") != "wal":
            raise StoreError(f"{self._path} must be on a local disk: WAL is not possible there")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")


def _connect(path: str, wait: float) -> sqlite3.Connection:
    # No implicit transactions. The threads are kept apart by locks.
    return sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)


def _reader(connection: sqlite3.Connection) -> Callable[[str], Any]:
    def read(statement: str) -> Any:
        return connection.execute(statement).fetchone()[0]

    return read


def _is_busy(error: BaseException) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _describe_problem(error: sqlite3.Error, path: str) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    directory = os.path.dirname(path)  # noqa: PTH120  # pathlib is slow to import
    if not os.path.isdir(directory):  # noqa: PTH112
        return "is in a directory that does not exist"
    # SQLite creates its log beside the file.
    is_readable = os.path.exists(path) and os.access(path, os.R_OK)  # noqa: PTH110
    is_writable = os.access(directory, os.W_OK) and os.access(path, os.W_OK)
    if code == sqlite3.SQLITE_READONLY or (is_readable and not is_writable):
        return "is read-only; a store must be writable, and so must its directory"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "is damaged, or is no database; delete it, or name a new file"
    if _is_busy(error):
        return "is locked by another process"
    return "cannot be opened"
