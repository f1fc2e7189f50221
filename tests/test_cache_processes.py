"""`SqliteStore` in several processes: shared, killed, forked, and of another user."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from headrace import ForkError, StoreError
from headrace.cache import SqliteStore
from tests.cache_support import Calls, cache_of, count_rows
from tests.test_fork import in_child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "results.db"


PROCESS = """
import asyncio, sys, time
from headrace.cache import Cache, SqliteStore

async def ask(item):
    await asyncio.sleep(0)
    return item, sys.argv[2]

async def main():
    async with Cache(SqliteStore(sys.argv[1]), key=lambda item: item) as cache:
        asked = cache.wrap(ask)
        # All processes begin together.
        print("ready", flush=True)
        sys.stdin.readline()
        for item in range(300):
            result = await asked(item)
            assert result[0] == item, result
        print(cache.stats().flights)

asyncio.run(main())
"""


@pytest.mark.loops("asyncio")
async def test_processes_share_a_store(path: Path) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS, path, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def outcomes(processes: list[subprocess.Popen[str]]) -> list[int]:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()
        counts: list[int] = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            output, error = process.communicate(timeout=50)
            assert (error, process.returncode) == ("", 0)
            counts.append(int(output))
        return counts

    together = outcomes([start(str(number)) for number in range(3)])
    assert all(count <= 300 for count in together)
    assert sum(together) >= 300
    # Later processes find all results.
    assert outcomes([start("later") for _ in range(2)]) == [0, 0]
    assert count_rows(path) == 300


KILLED = PROCESS.replace("print(cache.stats().flights)", "import os; os._exit(9)")


def test_killed_process_leaves_a_valid_file(path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", KILLED, path, "x"],
        input="\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert completed.returncode == 9
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM results").fetchone()[0] <= 300


FORGOTTEN = PROCESS.replace("async with Cache(", "cache = Cache(").replace(
    ") as cache:", ")\n    if True:"
)


def test_forgotten_store_writes_at_exit_and_warns(path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-W", "default", "-c", FORGOTTEN, path, "x"],
        input="\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert completed.returncode == 0
    assert "ResourceWarning: unclosed <SqliteStore" in completed.stderr
    assert count_rows(path) == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.loops("asyncio")
async def test_law_15_store_of_the_parent_is_refused_in_a_child(path: Path) -> None:
    store = SqliteStore(path)
    async with cache_of(store) as cache:
        await cache.wrap(Calls())("a")

        def child() -> str:
            found: list[str] = []
            for use in (lambda: store.get(b"", 0), lambda: store.put(b"", 0, None)):
                try:
                    use()
                except ForkError as error:
                    found.append(str(error))
            store.__del__()
            store._finalizer()
            return " ".join(found)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            report = in_child(child)
        assert report.count("was opened before this process was forked; open another one") == 2
        assert await cache.wrap(Calls())("a") == ("a", "result")
        assert cache.stats().flights == 1
    assert count_rows(path) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_read_only_file_is_refused(what: str) -> None:
    # Not `tmp_path`, which other users cannot enter.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "results.db"
        asyncio.run(SqliteStore(path).aclose())
        path.chmod(0o444)
        path.parent.chmod(0o555 if what == "directory" else 0o777)

        def child() -> str:
            if os.getuid() == 0:
                # The administrator may write anything.
                os.setuid(65534)
            try:
                SqliteStore(path)
            except StoreError as error:
                return str(error)
            return "it was opened"

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            report = in_child(child)
        path.parent.chmod(0o777)
    assert "is read-only; a store must be writable, and so must its directory" in report
