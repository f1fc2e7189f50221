"""`Writer`: writes the results of an `SqliteStore` in a thread, so that no commit blocks an event loop.

The thread takes all results that were put since its last commit as one batch, which is one transaction. Results that it has not
committed are read from memory.

Invariants:

- `_pending` has the results of the next batch, `_writing` those of the current one. A batch becomes `_writing` before `_pending` is
  emptied, and leaves it after its commit. So a reader that looks into `_pending`, then `_writing`, then the database misses nothing, and
  needs no lock.
- The lock guards the change of `_pending`, and the lists of futures. It is reentrant, because a finaliser or a signal handler may put
  a result while its thread holds the lock. Under it futures are created, a thread is started and a connection is closed; no callback
  runs.
- The thread refers to this object, and this object not to the store: a dropped store is finalised, which ends the thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from headrace.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

Row: TypeAlias = tuple[bytes, float | None, bytes]
"""A key, the time of its end or None, and the pickled value."""

_INSERT = "INSERT OR REPLACE INTO results (key, expires, value) VALUES (?, ?, ?)"
_DELETE_EXPIRED = "DELETE FROM results WHERE expires <= ?"


class Writer:
    """Writes rows in a thread, which starts with the first one.

    Args:
        connection: A connection that only this object uses, and closes.
        max_unwritten: The number of unwritten rows above which `put` returns a future.
    """

    def __init__(self, connection: sqlite3.Connection, max_unwritten: int) -> None:
        self._connection = connection
        self._max_unwritten = max_unwritten
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._pending: dict[bytes, Row] = {}
        self._writing: dict[bytes, Row] = {}
        self._thread: threading.Thread | None = None
        self._futures: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._pid = os.getpid()
        self._is_closing = False
        # Whether the connection is closed: nothing resolves a future any more.
        self._is_closed = False
        self.error: Exception | None = None
        """The last error of a commit."""
        self.lost = 0
        """The number of rows that could not be written."""

    def unwritten(self, key: bytes) -> Row | None:
        """Return the row of a key that is not committed yet."""
        return self._pending.get(key) or self._writing.get(key)

    def put(self, row: Row) -> asyncio.Future[None] | None:
        """Write a row soon.

        Returns:
            A future that is resolved after the next commit, if too many rows are not written; otherwise None. Also None in a thread
            without an event loop, which could not wait for a future.

        Raises:
            ClosedError: The writer is closed.
        """
        with self._lock:
            if self._is_closing:
                # Another thread has closed the store meanwhile.
                raise ClosedError("the store is closed")
            self._pending[row[0]] = row
            if self._thread is None:
                # A daemon: a program that forgets to close the store can end. Its last rows are then written at exit.
                name = "headrace: writer of a cache"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._thread = thread
            is_full = len(self._pending) + len(self._writing) > self._max_unwritten
            loop = asyncio._get_running_loop() if is_full else None
            future = None if loop is None else self._next_commit(loop)
        self._wake.set()
        return future

    def close(self) -> asyncio.Future[None] | None:
        """Write what is left, and close the connection. Idempotent.

        Returns:
            A future that is resolved when that is done, or None if it is done already.
        """
        with self._lock:
            self._end()
            return None if self._is_closed else self._next_commit(asyncio.get_running_loop())

    def finish(self) -> None:
        """Write what is left, and wait for it. Called for a store that is dropped, and at exit."""
        if self._pid != os.getpid():
            # A child after a fork has no thread, and must not touch the connection.
            keep_open(self._connection)
            return
        with self._lock:
            self._end()
            thread = self._thread
        # A finaliser may run in the thread itself.
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _end(self) -> None:
        self._is_closing = True
        if self._thread is None:
            self._connection.close()
            self._is_closed = True
        self._wake.set()

    def _next_commit(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        future: asyncio.Future[None] = loop.create_future()
        # A virtual clock must not advance while a commit takes real time; see `VirtualLoop.hold_clock`.
        hold: Callable[[str], Callable[[], None]] | None = getattr(loop, "hold_clock", None)
        if hold is not None:
            release = hold("the writer of a cache")
            future.add_done_callback(lambda _: release())
        self._futures.append((loop, future))
        return future

    def _run(self) -> None:
        self._wake.wait()
        is_over = self._commit(is_first=True)
        while not is_over:
            self._wake.wait()
            is_over = self._commit(is_first=False)

    def _commit(self, *, is_first: bool) -> bool:
        """Write all pending rows, and resolve the futures. Return whether the writer is closed.

        A method of its own: between two batches the thread refers to no row and to no event loop.
        """
        self._wake.clear()
        with self._lock:
            batch = self._writing = self._pending
            self._pending = {}
            futures, self._futures = self._futures, []
            is_closing = self._is_closing
        if batch:
            self._write(batch, is_first)
            self._writing = {}
        if is_closing:
            with suppress(sqlite3.Error):
                # As the last connection of all processes, it copies the log into the database.
                self._connection.close()
            # Under the lock, so that no future is added behind the last ones. The thread may be alive for a while yet.
            with self._lock:
                futures += self._futures
                self._is_closed = True
        for loop, future in futures:
            # The loop may be closed.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, future)
        return is_closing

    def _write(self, batch: dict[bytes, Row], is_first: bool) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            if is_first:
                connection.execute(_DELETE_EXPIRED, (time.time(),))
            connection.executemany(_INSERT, batch.values())
            connection.execute("COMMIT")
        except Exception as error:
            # Such as a full disk, after which SQLite may have ended the transaction by itself.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            self.lost += len(batch)
            self.error = error.with_traceback(None)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def keep_open(connection: sqlite3.Connection) -> None:
    """Keep a connection of the parent of a forked process. Closing it here could disturb the parent."""
    _kept.append(connection)


_kept: list[sqlite3.Connection] = []
