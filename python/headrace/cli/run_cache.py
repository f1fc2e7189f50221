"""`RunCache`: the cache of `headrace map`. `map` opens one for `--cache`.

A result belongs to the value of a record, as in a journal, and to the function: its module, its name and its code. So equal records are
called once, also in another file, order or format, and a changed function is called again. The stored result is the line of the
output without `--number`.

The runners of all groups share one use of the cache.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from headrace.cache._call_key import CallKey
from headrace.cache.cache import Cache
from headrace.cache.sqlite import SqliteStore
from headrace.cli.errors import CommandError, UsageError
from headrace.cli.run_journal import key_of_record
from headrace.cli.stderr import eprint
from headrace.errors import StoreError
from headrace.pool.cache_use import CacheUse
from headrace.task._version import version_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Self

    from headrace.cache._call_key import Key
    from headrace.cli.record import Record
    from headrace.cli.record_task import RecordTask
    from headrace.task.task import Task


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """Add the option to the parser of `headrace map`."""
    parser.add_argument_group("cache").add_argument(
        "--cache",
        metavar="FILE",
        help="keep the results in FILE (SQLite), and take those that it has, also of other runs and inputs: an equal record "
        "is called once for each version of the function; failed records are not kept",
    )


def cache_path(options: argparse.Namespace) -> str | None:
    """Return the path of the cache; None for none, and for a trial, which writes no file.

    Raises:
        UsageError: it is standard output.
    """
    path: str | None = options.cache
    if path == "-":
        raise UsageError("--cache must be a file, got '-'")
    return None if options.first is not None else path


class RunCache:
    """The cache of a run, opened in a `with` block. `close` closes it on the event loop of the run.

    Args:
        path: the file.
        function: the function of the user.

    Raises:
        CommandError: the file cannot be used.
    """

    def __init__(self, path: str, function: Callable[[Any], Any]) -> None:
        self._path = path
        try:
            store = SqliteStore(path)
        except StoreError as error:
            raise CommandError(f"cannot use the cache {path}: {error}") from error
        self._cache = Cache(store, key=_key)
        self.use: CacheUse = _Use(self._cache, function)
        """The use of the cache by all runners."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._cache.closed:
            # The run did not begin.
            asyncio.run(self.close())

    async def close(self) -> None:
        """Write all results. If that fails, say so: the outputs have them."""
        try:
            await self._cache.aclose()
        except StoreError as error:
            eprint(f"results are missing in the cache {self._path}: {error}")


class _Use(CacheUse):
    """The use of the cache by all runners of the command."""

    def __init__(self, cache: Cache, function: Callable[[Any], Any]) -> None:
        super().__init__(cache)
        self._of_record = CallKey(function, _key, version_of(function, of_state=False))

    def identity(self, item: Task) -> bytes:
        """See `CacheUse`. A result that the record gets without a call is then from the cache."""
        record_task: RecordTask = item.args[0]
        record_task.is_looked_up = True
        return self._of_record.of((record_task.record,), {})


def _key(record: Record) -> Key:
    return cast("Key", key_of_record(record))
