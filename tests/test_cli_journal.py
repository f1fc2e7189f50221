"""`headrace map --journal`: what a later run takes from the journal, what it calls, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.hidden_retries import HiddenRetries
from headrace.cli.record import PlainText, Record
from headrace.cli.record_runner import RecordRunner
from headrace.cli.record_task import RecordTask
from tests.command import assert_one_line_error, interrupt, rest, run, running, wait_for_line
from tests.journal_runs import Folder, in_flight, key_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Ten records, of which the fourth fails."""
    folder = Folder(tmp_path)
    folder.write(*({"n": number} for number in range(10)))
    return folder


JOURNAL = ["--journal", "run.journal"]


def open_gate(folder: Folder) -> None:
    (folder.path / "open").touch()


def test_resume_calls_nothing_again(folder: Folder) -> None:
    first = folder.run("on_loop", "--errors", "failed.jsonl")
    assert "9 done, 1 failed" in first.stderr
    failure = json.loads((folder.path / "failed.jsonl").read_text())
    calls = folder.calls()
    again = folder.run("on_loop", "--errors", "failed.jsonl", "--report", "run.html", "--resume")
    assert again.returncode == 1
    assert "resuming: 10 records are finished" in again.stderr
    assert "9 done (9 from the journal), 1 failed (1 in an earlier run)" in again.stderr
    assert "record 4 failed: ValueError: bad 3 (work.py:" in again.stderr
    assert folder.calls() == calls
    assert folder.output() == folder.undisturbed()
    replayed = json.loads((folder.path / "failed.jsonl").read_text())
    assert failure["attempts"] > 0
    for name in ("record", "error", "message", "where", "attempts", "input"):
        assert replayed[name] == failure[name]
    assert "run.journal" in (folder.path / "run.html").read_text()


def test_an_existing_journal_needs_resume(folder: Folder) -> None:
    folder.run("on_loop")
    calls, content = folder.calls(), (folder.path / "run.journal").read_bytes()
    done = folder.run("on_loop")
    assert_one_line_error(done, "add --resume to continue it, or name a new file")
    assert folder.calls() == calls
    assert (folder.path / "run.journal").read_bytes() == content


def test_resume_begins_a_journal(folder: Folder) -> None:
    done = folder.run("on_loop", "--resume")
    assert "run.journal is new" in done.stderr
    assert len(folder.calls()) == 10


def test_a_journal_of_no_calls_needs_no_resume(folder: Folder) -> None:
    folder.write()
    assert folder.run("on_loop").returncode == 0
    folder.write({"n": 1})
    assert folder.run("on_loop").returncode == 0


def test_retry_failed_calls_only_the_failed(folder: Folder) -> None:
    folder.run("on_loop")
    done = folder.run("on_loop", "--resume", "--retry-failed")
    assert "9 done (9 from the journal), 1 failed, in" in done.stderr
    assert folder.calls()[10:] == [key_of({"n": 3})]


def test_other_code_needs_accept_version(folder: Folder) -> None:
    folder.run("on_loop")
    calls = folder.calls()
    assert_one_line_error(folder.run("in_thread", "--resume"), "add --accept-version")
    done = folder.run("in_thread", "--resume", "--accept-version")
    assert "9 done (9 from the journal)" in done.stderr
    assert folder.calls() == calls


def test_lines_are_inserted_deleted_and_moved(folder: Folder) -> None:
    folder.run("on_loop")
    records = [{"n": number} for number in (9, 20, 2, 1, 21, 8, 0)]
    folder.write(*records)
    done = folder.run("on_loop", "--resume", "--number")
    assert "7 done (5 from the journal)" in done.stderr
    assert sorted(folder.calls()[10:]) == [key_of({"n": 20}), key_of({"n": 21})]
    # The numbers are those of this input.
    assert [json.loads(line) for line in folder.output()] == [
        {"record": number, "result": {"answer": record["n"] * 2, "group": None}}
        for number, record in enumerate(records, 1)
    ]


def test_duplicates_stay_duplicates(folder: Folder) -> None:
    folder.write({"n": 1}, {"n": 2}, {"n": 1})
    folder.run("on_loop")
    assert len(folder.calls()) == 3
    folder.write({"n": 1}, {"n": 1}, {"n": 2}, {"n": 1})
    done = folder.run("on_loop", "--resume")
    assert "4 done (3 from the journal)" in done.stderr
    assert folder.calls()[3:] == [key_of({"n": 1})]
    assert folder.output() == folder.undisturbed()


def test_another_format_has_the_same_records(folder: Folder) -> None:
    long = {"n": 1, "text": "long " * 100}
    folder.write(long, {"n": 2})
    folder.run("on_loop")
    (folder.path / "in.json").write_text(
        json.dumps([{"n": 2}, dict(reversed(long.items()))], indent=2)
    )
    done = run(folder.path, "work:on_loop", *JOURNAL, "--resume", "--input", "in.json")
    assert "2 done (2 from the journal)" in done.stderr


def test_calls_in_flight_are_named(folder: Folder) -> None:
    with running(folder.path, "work:stuck", *JOURNAL, limit=3) as process:
        for _ in range(3):
            wait_for_line(process, "stuck on")
        process.kill()
        process.wait()
    assert len(in_flight(folder)) == 3
    with running(folder.path, "work:stuck", *JOURNAL, "--resume", limit=3) as process:
        line = wait_for_line(process, "resuming")
        for _ in range(3):
            wait_for_line(process, "stuck on")
    assert "4 records are finished" in line
    assert 'in flight and may be paid twice: {"n":4}, {"n":5}, {"n":6}' in line
    assert folder.calls()[7:] == [key_of({"n": number}) for number in (4, 5, 6)]


def test_an_interrupted_run_prints_how_to_resume(folder: Folder) -> None:
    shutil.copy(folder.path / "in.jsonl", folder.path / "in put.jsonl")
    options = [*JOURNAL, "--input", "in put.jsonl"]
    with running(folder.path, "work:stuck_unless_open", *options, limit=3) as process:
        for _ in range(3):
            wait_for_line(process, "stuck on")
        messages = interrupt(process)
    line = messages.partition("to resume: ")[2].splitlines()[0]
    assert shlex.split(line)[-1] == "--resume"
    open_gate(folder)
    # The line is for a shell.
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder.path, capture_output=True, text=True, check=False
    )
    assert "9 done (3 from the journal), 1 failed (1 in an earlier run)" in done.stderr
    assert folder.output() == folder.undisturbed()


@pytest.mark.parametrize("function", ["interrupts_once", "refused_once"])
def test_a_stopped_run_is_resumed(folder: Folder, function: str) -> None:
    stopped = folder.run(function, "--limit", "1")
    assert stopped.returncode in {2, 130}
    assert "to resume: " in stopped.stderr
    open_gate(folder)
    done = folder.run(function, "--resume")
    assert done.returncode == 1
    assert folder.output() == folder.undisturbed()
    assert folder.calls().count(key_of({"n": 4})) == 2


class _Stopped:
    """A listener of a run that was stopped."""

    def is_stopped(self) -> bool:
        return True

    def complete(self, record_task: RecordTask, line: bytes) -> None:
        pytest.fail("it was not called")

    def fail(self, record_task: RecordTask, error: BaseException) -> None:
        pytest.fail("no run has ended it")


async def _on_loop(record: object) -> object:
    return record


@pytest.mark.parametrize("function", [_on_loop, str])
async def test_a_stop_records_no_empty_result(function: Callable[[Any], Any]) -> None:
    """A call that was granted before the stop has not ended for the journal."""
    runner = RecordRunner(function, _Stopped(), HiddenRetries(), cooldown=True, number=False)
    record = Record(1, "a", "a", 2, PlainText())
    task = runner.make_task(RecordTask(record, 0, 0.0), 1)
    with pytest.raises(asyncio.CancelledError):
        called: Any = task.fn(*task.args)
        await called


def test_two_drivers(folder: Folder) -> None:
    with running(folder.path, "work:stuck", *JOURNAL, limit=3) as process:
        wait_for_line(process, "stuck on")
        done = folder.run("stuck", "--resume")
        process.kill()
        rest(process)
    assert_one_line_error(done, "cannot open the journal run.journal")
    assert "wait for its end" in done.stderr


def test_a_directory(folder: Folder) -> None:
    (folder.path / "run.journal").mkdir()
    assert_one_line_error(folder.run("on_loop", "--resume"), "run.journal")
    assert not folder.calls()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any file")
def test_a_read_only_file(folder: Folder) -> None:
    folder.run("on_loop")
    (folder.path / "run.journal").chmod(0o400)
    assert_one_line_error(folder.run("on_loop", "--resume"), "run.journal: Permission denied")


def test_another_file_is_never_overwritten(folder: Folder) -> None:
    (folder.path / "run.journal").write_text("a text of the user, and no journal\n")
    done = folder.run("on_loop", "--resume")
    assert_one_line_error(done, "give the path of a new file")
    assert (folder.path / "run.journal").read_text().startswith("a text of the user")


def test_damage_is_found_and_named(folder: Folder) -> None:
    folder.run("on_loop")
    path = folder.path / "run.journal"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_one_line_error(
        folder.run("on_loop", "--resume"), "headrace journal compact --skip-damage"
    )
    assert folder.words("journal", "compact", "--skip-damage", "run.journal").returncode == 0
    assert folder.run("on_loop", "--resume").returncode == 1
    assert folder.output() == folder.undisturbed()


@pytest.mark.parametrize("options", [[], ["--group-by", "group"]])
def test_a_full_disk(folder: Folder, options: list[str]) -> None:
    """A limit on the size of files, which the journal reaches before the output, stands for the full disk."""
    folder.write(*({"n": number * 10, "group": f"{number % 3}"} for number in range(300)))
    words = ["-m", "headrace", "map", *folder.arguments("on_loop", *options)]
    limited = ["sh", "-c", 'ulimit -f 16; exec "$0" "$@"', sys.executable, *words]
    full = subprocess.run(limited, cwd=folder.path, capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert "headrace map: the journal cannot be written: File too large" in full.stderr
    assert "to resume: " in full.stderr
    calls = folder.calls()
    assert 10 < len(calls) < 290
    # A call whose end could not be written is made again.
    allowed = len(in_flight(folder))
    assert folder.run("on_loop", *options, "--resume").returncode == 0
    assert len(folder.calls()) <= 300 + allowed
    assert sorted(folder.output()) == sorted(folder.undisturbed())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume needs --journal"),
        (["--durability", "disk"], "--durability needs --journal"),
        ([*JOURNAL, "--retry-failed"], "--retry-failed needs --resume"),
        ([*JOURNAL, "--accept-version"], "--accept-version needs --resume"),
        (["--journal", "-"], "--journal must be a file"),
        (["--journal", "in.jsonl"], "--journal would replace the input"),
        (["--journal", "out.jsonl"], "--output and --journal must be different files"),
    ],
)
def test_wrong_options(folder: Folder, options: list[str], message: str) -> None:
    assert_one_line_error(run(folder.path, "work:on_loop", *options), message)
    assert not folder.calls()


def test_a_trial_leaves_the_journal_alone(folder: Folder) -> None:
    folder.run("on_loop", "--first", "2")
    assert not (folder.path / "run.journal").exists()


@pytest.mark.parametrize("is_journaled", [False, True])
def test_a_long_run_without_a_journal(folder: Folder, *, is_journaled: bool) -> None:
    """The message comes after a minute; here after no time."""
    folder.write({"n": 1, "takes": 0.1})
    program = (
        "import sys, headrace.cli.run_journal as run_journal; from headrace.cli.main import main;"
        "run_journal.SUGGEST_AFTER = 0; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["map", *folder.arguments("on_loop")]
    if not is_journaled:
        arguments = [word for word in arguments if word not in JOURNAL]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.count("a run with --journal FILE can be resumed") == (not is_journaled)
