"""`headrace map` with a closed standard error, impossible file names, and functions that interrupt it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.cli.output import Output
from tests.command import Files, command, files_in, listing, results, run

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = """
import asyncio

class Asking(Exception):
    @property
    def retry_after(self):
        raise RuntimeError("no header")

def presses_keys(n):
    if n == 3:
        raise KeyboardInterrupt
    return n

async def presses_keys_on_the_loop(n):
    await asyncio.sleep(0)
    return presses_keys(n)

calls = 0

def asks(n):
    global calls
    calls += 1
    if calls < 3:
        raise Asking("busy")
    return calls

def asks_in_vain(n):
    raise Asking("busy")
"""


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "keys.py").write_text(KEYS, encoding="utf-8")
    return files_in(tmp_path)


# Standard error


def _closed(folder: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command("work:picky", *options)]
    return subprocess.run(shell, cwd=folder, stdout=subprocess.PIPE, check=False)


def _broken(folder: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        return subprocess.run(
            command("work:picky", *options),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=writes,
            check=False,
        )
    finally:
        os.close(writes)


@pytest.mark.parametrize("run_map", [_closed, _broken])
def test_broken_stderr_does_not_change_the_result(
    tmp_path: Path, files: Files, run_map: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    files(*range(2000))
    done = run_map(tmp_path, "--every", "0.001", "--report", "report.html")
    assert (done.returncode, done.stdout) == (0, b"")
    assert results(tmp_path / "out.jsonl") == list(range(2000))
    assert "2,000" in (tmp_path / "report.html").read_text(encoding="utf-8")
    # The exit code still shows the error.
    files(text="1\nno JSON\n")
    assert run_map(tmp_path).returncode == 2


def test_messages_never_go_to_standard_output(tmp_path: Path, files: Files) -> None:
    files(1, 2)
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command("work:picky", "--output", "-")]
    done = subprocess.run(shell, cwd=tmp_path, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (0, b"1\n2\n")


# Names


@pytest.mark.parametrize("option", ["--output", "--errors", "--report"])
def test_too_long_file_name_is_a_one_line_error(tmp_path: Path, files: Files, option: str) -> None:
    files(1)
    name = "n" * 300
    done = run(tmp_path, "work:picky", option, name)
    assert done.returncode == 2
    assert done.stderr == f"headrace map: cannot write {name}: File name too long\n"
    assert listing(tmp_path) == {"work.py", "keys.py", "in.jsonl"}


def test_lines_stay_if_renaming_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with Output(str(tmp_path / "out.jsonl")) as output:
        output.write(b"1\n")
        monkeypatch.setattr(Path, "replace", refuse)
        output.keep()
    assert output.partial is not None
    assert output.partial.read_bytes() == b"1\n"


# Errors of functions


@pytest.mark.parametrize("function", ["keys:presses_keys", "keys:presses_keys_on_the_loop"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_keyboard_interrupt_in_function_stops_run(
    tmp_path: Path, files: Files, function: str, grouped: bool, last: bool
) -> None:
    files(1, 2, 3, *(() if last else range(4, 2000)))
    options = ["--report", "report.html", "--errors", "errors.jsonl"]
    if grouped:
        # Grouping needs records with fields.
        text = (tmp_path / "keys.py").read_text(encoding="utf-8")
        text = text.replace("if n == 3", 'n = n["n"]\n    if n == 3')
        (tmp_path / "keys.py").write_text(text, encoding="utf-8")
        numbers = (1, 2, 3, *(() if last else range(4, 2000)))
        files(*({"n": number, "g": 0} for number in numbers))
        options += ["--group-by", "g"]
    done = run(tmp_path, function, *options, limit=1)
    assert done.returncode == 130, done.stderr
    assert "interrupted: 2 done, 0 failed; 2 results are in " in done.stderr
    assert "not done: records 3" in done.stderr
    assert results(tmp_path / "out.jsonl.partial") == [1, 2]
    assert "Interrupted; not done: records 3" in (tmp_path / "report.html").read_text("utf-8")
    assert "out.jsonl" not in listing(tmp_path)


def test_failing_retry_after_property_is_ignored(tmp_path: Path, files: Files) -> None:
    files(1)
    done = run(tmp_path, "keys:asks", "--retries", "2", limit=1)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out.jsonl") == [3]
    done = run(tmp_path, "keys:asks_in_vain", "--retries", "1", limit=1)
    assert done.returncode == 1
    assert "record 1 failed: Asking: busy" in done.stderr
