"""`headrace journal show|export|compact`."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from tests.command import assert_one_line_error, running, wait_for_line
from tests.journal_runs import Folder

if TYPE_CHECKING:
    from pathlib import Path


class Trap:
    """Its pickle creates a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The journal of five records: one fails, one is there twice."""
    folder = Folder(tmp_path)
    folder.write(*({"n": number} for number in (1, 2, 3, 2, 5)))
    assert folder.run("on_loop").returncode == 1
    return folder


@pytest.fixture
def trap(folder: Folder) -> Path:
    """A journal with a pickle that creates the file `sprung`, and the path of that."""
    sprung = folder.path / "sprung"
    headrace.map(
        lambda _: Trap(str(sprung)), ["item"], limit=1, journal=folder.path / "trap.journal"
    )
    assert not sprung.exists()
    return sprung


def test_show(folder: Folder) -> None:
    done = folder.words("journal", "show", "run.journal")
    assert done.returncode == 0
    assert not done.stderr
    assert "4 finished, 1 failed" in done.stdout
    assert "in flight  0\n" in done.stdout
    assert f"{(folder.path / 'run.journal').stat().st_size:,} bytes" in done.stdout
    assert done.stdout.count("written    from ") == 1
    records = folder.words("journal", "show", "--records", "run.journal").stdout
    assert records.endswith(done.stdout)
    assert records.count("started   ") == 5
    assert 'returned  {"n":2} (occurrence 2)  1 attempt  {"answer": 4, "group": null}' in records
    assert 'failed    {"n":3}  1 attempt  {"type": "ValueError"' in records


def test_show_names_calls_in_flight(folder: Folder) -> None:
    folder.write({"n": 4})
    options = ["--journal", "other.journal"]
    with running(folder.path, "work:stuck", *options) as process:
        wait_for_line(process, "stuck on")
        # The journal may be in use.
        done = folder.words("journal", "show", "other.journal")
        process.kill()
    assert 'in flight  1: {"n":4}\n' in done.stdout


def test_pickles_are_not_read(folder: Folder, trap: Path) -> None:
    shown = folder.words("journal", "show", "--records", "trap.journal")
    assert "<pickle, " in shown.stdout
    exported = folder.words("journal", "export", "trap.journal", "-")
    row = json.loads(exported.stdout)
    assert row["format"] == "pickle"
    assert base64.b64decode(row["value"]).startswith(b"\x80")
    for suffix in ("db", "parquet"):
        assert folder.words("journal", "export", "trap.journal", f"a.{suffix}").returncode == 0
    assert not trap.exists()
    trusted = folder.words("journal", "show", "--records", "--trust", "trap.journal")
    assert trusted.returncode == 0
    assert trap.exists()


def test_a_trusted_pickle_that_cannot_be_read_is_exported(folder: Folder) -> None:
    # `open` fails, as the import of a class that was moved would.
    trap = Trap(str(folder.path / "no such directory" / "sprung"))
    headrace.map(lambda _: trap, ["item"], limit=1, journal=folder.path / "moved.journal")
    exported = folder.words("journal", "export", "--trust", "moved.journal", "-")
    assert exported.returncode == 0
    assert json.loads(exported.stdout)["format"] == "pickle"
    shown = folder.words("journal", "show", "--records", "--trust", "moved.journal")
    assert "<pickle, " in shown.stdout


def test_an_output_that_cannot_be_looked_up_is_named(folder: Folder) -> None:
    name = "x" * 300 + ".db"
    done = folder.words("journal", "export", "run.journal", name)
    assert done.returncode != 0
    assert done.stderr.startswith(f"headrace journal: cannot write {name}: ")


def expected() -> list[tuple[str, int, str, object]]:
    def value(number: int) -> object:
        return {"answer": number, "group": None}

    return [
        ('{"n":1}', 0, "returned", value(2)),
        ('{"n":2}', 0, "returned", value(4)),
        ('{"n":2}', 1, "returned", value(4)),
        ('{"n":3}', 0, "failed", "ValueError"),
        ('{"n":5}', 0, "returned", value(10)),
    ]


def sort(rows: list[tuple[str, int, str, object]]) -> list[tuple[str, int, str, object]]:
    def simple(value: object) -> object:
        return value["type"] if isinstance(value, dict) and "type" in value else value

    return sorted(
        ((key, occurrence, status, simple(value)) for key, occurrence, status, value in rows),
        key=lambda row: row[:2],
    )


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_export_lines(folder: Folder, output: str) -> None:
    folder.run("on_loop", "--resume", "--retry-failed")
    options = ["--force"] if output != "-" else []
    done = folder.words("journal", "export", "run.journal", output, *options)
    assert done.returncode == 0
    text = done.stdout if output == "-" else (folder.path / output).read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert sort([(r["key"], r["occurrence"], r["status"], r["value"]) for r in rows]) == expected()
    assert {row["format"] for row in rows} == {"json"}


def test_export_sqlite(folder: Folder) -> None:
    assert folder.words("journal", "export", "run.journal", "out.db").returncode == 0
    with closing(sqlite3.connect(folder.path / "out.db")) as database:
        rows = database.execute("SELECT key, occurrence, status, value FROM calls").fetchall()
    rows = [(key, occurrence, status, json.loads(value)) for key, occurrence, status, value in rows]
    assert sort(rows) == expected()
    # Neither a temporary file nor a file of SQLite is left.
    assert not [
        path for path in folder.path.iterdir() if "out.db" in path.name and path.name != "out.db"
    ]


def test_export_parquet(folder: Folder) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert (
        folder.words("journal", "export", "run.journal", "out", "--to", "parquet").returncode == 0
    )
    table = parquet.read_table(folder.path / "out").to_pylist()
    rows = [
        (row["key"], row["occurrence"], row["status"], json.loads(row["value"])) for row in table
    ]
    assert sort(rows) == expected()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["export", "run.journal", "out.jsonl"],
            "out.jsonl exists; name another file, or add --force",
        ),
        (
            ["export", "run.journal", "run.journal", "--to", "jsonl", "--force"],
            "would replace the journal",
        ),
        (["export", "run.journal", "out.xlsx"], "the suffix of OUTPUT must be one of .jsonl"),
        (["export", "run.journal", "-", "--to", "sqlite"], "--to sqlite needs a file"),
        (["export", "run.journal", "no/where.db"], "cannot write no/where.db"),
        (
            ["export", "none.journal", "a.jsonl"],
            "cannot use the journal none.journal: No such file",
        ),
        (["show", "none.journal"], "cannot use the journal none.journal: No such file"),
        (["show", "work.py"], "work.py"),
        (["show", "."], "cannot use the journal ."),
        (["compact", "none.journal"], "cannot use the journal none.journal: No such file"),
        (["compact", "work.py"], "work.py"),
    ],
)
def test_errors(folder: Folder, words: list[str], message: str) -> None:
    before = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    done = folder.words("journal", *words)
    assert done.stderr.startswith("headrace journal: ")
    assert_one_line_error(done, message)
    after = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if name.endswith(".tmp")]


@pytest.mark.parametrize("action", [["show", "--records"], ["export"]])
def test_a_closed_pipe(folder: Folder, action: list[str]) -> None:
    output = ["-"] if action == ["export"] else []
    # The reader has left before the first line is written.
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "journal", *action, "run.journal", *output],
        cwd=folder.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_compact(folder: Folder) -> None:
    for _ in range(2):
        folder.run("on_loop", "--resume", "--retry-failed")
    size = (folder.path / "run.journal").stat().st_size
    calls = folder.calls()
    done = folder.words("journal", "compact", "run.journal")
    now = (folder.path / "run.journal").stat().st_size
    assert done.stdout == f"run.journal: {size:,} bytes before, {now:,} bytes now\n"
    assert now < size
    assert folder.run("on_loop", "--resume").returncode == 1
    assert folder.calls() == calls
    assert folder.output() == folder.undisturbed()


def test_compact_in_use(folder: Folder) -> None:
    folder.write({"n": 4})
    with running(folder.path, "work:stuck", "--journal", "other.journal") as process:
        wait_for_line(process, "stuck on")
        done = folder.words("journal", "compact", "other.journal")
        process.kill()
    assert_one_line_error(done, "wait for its end")
