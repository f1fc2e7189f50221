"""Helpers of the tests of `headrace map --journal`: functions that log their calls, and runs that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.cli.journal_log import JournalLog

if TYPE_CHECKING:
    import random
    from pathlib import Path

# Each call appends its record to the log of the run, in one write.
WORK = r'''
import asyncio
import json
import os
import time

log = os.open("calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(record):
    os.write(log, (json.dumps(record) + "\n").encode())


def answer(record):
    if record["n"] % 10 == 3:
        raise ValueError(f"bad {record['n']}")
    return {"answer": record["n"] * 2, "group": record.get("group")}


async def on_loop(record):
    note(record)
    await asyncio.sleep(record.get("takes", 0.002))
    return answer(record)


def in_thread(record):
    note(record)
    time.sleep(record.get("takes", 0.002))
    return answer(record)


async def stuck(record):
    """Never answer from record 4 on."""
    note(record)
    if record["n"] >= 4:
        os.write(2, f"stuck on {record['n']}\n".encode())
        await asyncio.Event().wait()
    return answer(record)


async def stuck_unless_open(record):
    """Never answer from record 4 on, until the file `open` exists."""
    note(record)
    if record["n"] >= 4 and not os.path.exists("open"):
        os.write(2, f"stuck on {record['n']}\n".encode())
        await asyncio.Event().wait()
    return answer(record)


async def interrupts_once(record):
    """Raise `KeyboardInterrupt` at record 4, until the file `open` exists."""
    note(record)
    if record["n"] == 4 and not os.path.exists("open"):
        raise KeyboardInterrupt
    return answer(record)


async def refused_once(record):
    note(record)
    if record["n"] == 4 and not os.path.exists("open"):
        error = RuntimeError("no such key")
        error.status_code = 401
        raise error
    return answer(record)
'''


def key_of(record: Any) -> str:
    """Return the text by which the command names a record."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@dataclass
class Folder:
    """A folder with the module `work`, an input and a journal."""

    path: Path
    records: list[Any] = field(default_factory=list[Any])

    def __post_init__(self) -> None:
        (self.path / "work.py").write_text(WORK, encoding="utf-8")

    def write(self, *records: Any) -> None:
        """Write the input."""
        self.records = list(records)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (self.path / "in.jsonl").write_text(lines, encoding="utf-8")

    def run(self, function: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the command with the journal, to its end."""
        return self.words("map", *self.arguments(function, *options))

    def words(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command with these words."""
        return subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
        )

    def arguments(self, function: str, *options: str) -> list[str]:
        """Return the arguments of `headrace map`."""
        where = ["--input", "in.jsonl", "--output", "out.jsonl", "--journal", "run.journal"]
        return [
            f"work:{function}",
            *where,
            *options,
            *([] if "--limit" in options else ["--limit", "4"]),
        ]

    def calls(self) -> list[str]:
        """Return the records of all calls so far."""
        path = self.path / "calls"
        if not path.exists():
            return []
        return [key_of(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def output(self) -> list[bytes]:
        """Return the lines of the output."""
        return (self.path / "out.jsonl").read_bytes().splitlines(keepends=True)

    def undisturbed(self) -> list[bytes]:
        """Return the lines of a run that nothing disturbs."""
        return [
            json.dumps({"answer": record["n"] * 2, "group": record.get("group")}).encode() + b"\n"
            for record in self.records
            if record["n"] % 10 != 3
        ]

    def kill(self, words: list[str], delay: float, calls: int = 0) -> None:
        """Start the command, and kill it when it has made some calls and then a time has passed, unless it has ended before."""
        log = self.path / "calls"
        log.touch()
        until = log.stat().st_size + calls * 30
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", *words],
            cwd=self.path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with process:
            try:
                while log.stat().st_size < until and process.poll() is None:
                    time.sleep(0.002)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(delay)
            finally:
                # By its handle, so that no other process is ended.
                process.kill()

    def kill_compaction(self, generator: random.Random) -> None:
        """Kill a compaction between the first byte of its new file and the rename of that file."""
        new = self.path / "run.journal.compact"
        longest = 0.0005
        for _ in range(40):
            # A killed compaction leaves the file to the next one.
            before = _time_of(new)
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "journal", "compact", "run.journal"],
                cwd=self.path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            with process:
                try:
                    while process.poll() is None and _time_of(new) in {None, before}:
                        pass
                    end = time.perf_counter() + generator.uniform(0, longest)
                    while time.perf_counter() < end:
                        pass
                finally:
                    process.kill()
            if process.returncode == -signal.SIGKILL and _time_of(new) not in {None, before}:
                return
            # It has renamed the file before, so the next kill is earlier.
            longest /= 2
        raise AssertionError("no compaction was killed")


def _time_of(path: Path) -> int | None:
    """Return the time of the last change of a file, or None if there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def assert_survives_kills(
    folder: Folder, generator: random.Random, kills: int, function: str, *options: str
) -> str:
    """Kill a run again and again, and a compaction of its journal before every fourth; check the calls of the last run.

    Returns:
        The messages of the last run.
    """
    arguments = ["map", *folder.arguments(function, *options, "--resume")]
    allowed: Counter[str] = Counter(key_of(record) for record in folder.records)
    for number in range(kills):
        if number % 4 == 3:
            folder.kill_compaction(generator)
        # Every third kill is at some moment of the start, the others among the calls.
        calls = generator.randint(1, len(folder.records) // kills) if number % 3 else 0
        folder.kill(arguments, generator.uniform(0, 0.05 if calls else 0.6), calls)
        # Only a call in flight may be made again.
        allowed.update(in_flight(folder))
    done = folder.words(*arguments)
    assert done.returncode in {0, 1}, done.stderr
    made = Counter(folder.calls())
    assert made <= allowed, made - allowed
    assert not in_flight(folder)
    return done.stderr


def in_flight(folder: Folder) -> list[str]:
    """Return the records that the journal names as in flight."""
    path = folder.path / "run.journal"
    # A kill while the file is created leaves it shorter than its header.
    if not path.exists() or path.stat().st_size < 16:
        return []
    log = JournalLog(str(path), skips_damage=False)
    for _ in log.records():
        pass
    return [str(key) for key in log.in_flight()]
