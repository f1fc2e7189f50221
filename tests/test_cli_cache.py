"""`headrace map --cache`: equal records are called once for each version of the function, also in later runs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.conversion import NUMBER, RESULT
from tests.command import assert_one_line_error, interrupt, run, running, wait_for_line
from tests.journal_runs import WORK

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

CACHE = ["--cache", "answers.db"]


class Folder:
    """A folder with the module `work` and an input."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "work.py").write_text(WORK, encoding="utf-8")

    def write(self, *numbers: int, name: str = "in.jsonl", **fields: Any) -> None:
        lines = [json.dumps({"n": number, **fields}) + "\n" for number in numbers]
        (self.path / name).write_text("".join(lines), encoding="utf-8")

    def run(self, function: str, *options: str) -> subprocess.CompletedProcess[str]:
        return run(self.path, f"work:{function}", *CACHE, *options)

    def calls(self) -> Counter[int]:
        """Return how often each record was called so far."""
        lines = (self.path / "calls").read_text(encoding="utf-8").splitlines()
        return Counter(json.loads(line)["n"] for line in lines)

    def answers(self) -> list[int]:
        lines = (self.path / "out.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["answer"] for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write(*range(3))
    return folder


@pytest.mark.parametrize("options", [[], ["--executor", "processes"], ["--group-by", "n"]])
@pytest.mark.parametrize("function", ["on_loop", "in_thread"])
def test_hits_are_not_called(folder: Folder, function: str, options: list[str]) -> None:
    assert "3 done, 0 failed" in folder.run(function, *options).stderr
    # In another order, and with a record that is new.
    folder.write(4, 2, 1, 0)
    done = folder.run(function, *options, "--report", "run.html")
    assert done.returncode == 0
    assert "4 done (3 from the cache), 0 failed" in done.stderr
    assert folder.answers() == [8, 4, 2, 0]
    assert folder.calls() == Counter([0, 1, 2, 4])
    assert "answers.db" in (folder.path / "run.html").read_text()


def test_equal_records_of_one_moment_are_one_call(folder: Folder) -> None:
    folder.write(*[5, 6] * 10, takes=0.2)
    done = folder.run("on_loop", "--limit", "20")
    assert "20 done (18 from the cache)" in done.stderr
    assert folder.answers() == [10, 12] * 10
    assert folder.calls() == Counter([5, 6])


def test_another_function_and_version_is_called(folder: Folder) -> None:
    folder.run("on_loop")
    folder.run("in_thread")
    assert folder.calls() == Counter([0, 1, 2] * 2)
    changed = WORK.replace("await asyncio.sleep(", "await asyncio.sleep(0 * ")
    (folder.path / "work.py").write_text(changed, encoding="utf-8")
    assert "from the cache" not in folder.run("on_loop").stderr
    assert "3 done (3 from the cache)" in folder.run("in_thread").stderr
    assert folder.calls() == Counter([0, 1, 2] * 3)


def test_failures_are_not_kept(folder: Folder) -> None:
    folder.write(2, 3, 4)
    for sources in ("", " (2 from the cache)"):
        done = folder.run("on_loop", "--retries", "0")
        assert done.returncode == 1
        assert f"2 done{sources}, 1 failed" in done.stderr
    assert folder.calls() == Counter([2, 3, 3, 4])


def test_numbers_are_those_of_the_input(folder: Folder) -> None:
    folder.run("on_loop", "--number")
    folder.write(9, 1)
    folder.run("on_loop", "--number")
    lines = (folder.path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one[NUMBER], one[RESULT]["answer"]) for one in found] == [(1, 18), (2, 2)]


def test_hits_are_recorded_in_the_journal(folder: Folder) -> None:
    folder.run("on_loop")
    folder.write(0, 0, 7)
    done = folder.run("on_loop", "--journal", "run.journal")
    assert "3 done (2 from the cache), 0 failed" in done.stderr
    # The journal comes first, and needs no cache.
    (folder.path / "answers.db").unlink()
    folder.write(0, 0, 7, 8, 8)
    done = folder.run("on_loop", "--journal", "run.journal", "--resume")
    assert "5 done (3 from the journal, 1 from the cache), 0 failed" in done.stderr
    assert folder.answers() == [0, 0, 14, 16, 16]
    assert folder.calls() == Counter([0, 1, 2, 7, 8])


def test_results_before_a_signal_are_kept(folder: Folder) -> None:
    folder.write(0, 1, 2, 4)
    options = [*CACHE, "--every", "0.05"]
    with running(folder.path, "work:stuck", *options) as process:
        wait_for_line(process, "stuck on 4")
        wait_for_line(process, "3 done")
        interrupt(process)
    folder.write(2, 1, 0)
    assert "3 done (3 from the cache)" in folder.run("stuck").stderr
    assert folder.calls() == Counter([0, 1, 2, 4])


def test_trial_uses_no_cache(folder: Folder) -> None:
    assert folder.run("on_loop", "--first", "2").returncode == 0
    assert not (folder.path / "answers.db").exists()


def test_cache_must_be_a_file_of_its_own(folder: Folder) -> None:
    for name, message in {
        "-": "--cache must be a file, got '-'",
        "in.jsonl": "--cache would replace the input",
        "out.jsonl": "--output and --cache must be different files",
        ".": "cannot use the cache .:",
        "work.py": "cannot use the cache work.py:",
    }.items():
        done = run(folder.path, "work:on_loop", "--cache", name)
        assert_one_line_error(done, message)
    assert not folder.calls()
