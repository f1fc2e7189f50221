"""Helpers of the tests of the command: a module of functions to call, and runs of the command in processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.pool.failure_limits import FailureLimits

if TYPE_CHECKING:
    from collections.abc import Generator

Files = Callable[..., Path]

# The functions that the command calls.
WORK = r'''
import asyncio
import os
import sys
import threading
import time
from collections import Counter

finished = {}
calls = []
barrier = threading.Barrier(8)
inside = set()
most = 0


def say(*words):
    """Write a whole line at once, because threads write concurrently."""
    os.write(2, (" ".join(map(str, words)) + "\n").encode())


def double(n):
    return n * 2


async def shout(line):
    return line.upper() + "!"


async def backwards(n):
    """Finish records in reverse order, the last of five first."""
    mine = finished.setdefault(n, asyncio.Event())
    if n < 5:
        await finished.setdefault(n + 1, asyncio.Event()).wait()
    mine.set()
    return n


async def inverse(n):
    return 1 / n


def picky(value):
    if value == "cancel":
        raise asyncio.CancelledError
    if value == "exit":
        sys.exit(3)
    if value == "set":
        return {1}
    if value == "nan":
        return float("nan")
    return value


async def picky_async(value):
    return picky(value)


def meet(n):
    """Return only once eight threads are in here at the same time."""
    barrier.wait(timeout=30)
    return n


async def crowd(n):
    """Return the peak of concurrent calls. The first seven wait for one another."""
    global most
    inside.add(n)
    most = max(most, len(inside))
    while most < 7:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    inside.discard(n)
    return most


in_groups = Counter()


def enter(record):
    in_groups[record["group"]] += 1
    return {
        "number": record["number"],
        "inside": in_groups[record["group"]],
        "inside in all": in_groups.total(),
    }


async def crowd_of_groups(record):
    seen = enter(record)
    # The report samples every few milliseconds; the run must last for many samples.
    await asyncio.sleep(0.01)
    in_groups[record["group"]] -= 1
    return seen


lock = threading.Lock()


def crowd_of_threads(record):
    with lock:
        seen = enter(record)
    time.sleep(0.01)
    with lock:
        in_groups[record["group"]] -= 1
    return seen


class BusyError(Exception):
    status_code = 429


refused = at_once = 0


async def at_most_four(n):
    """Refuse more than four calls at once, and return the number of refused calls."""
    global refused, at_once
    if at_once >= 4:
        refused += 1
        raise BusyError
    at_once += 1
    await asyncio.sleep(0.01)
    at_once -= 1
    return refused


async def head_waits(n):
    """Let the first record wait until the fourth was called, and then long enough for any other call."""
    calls.append(n)
    if n == 1:
        while 4 not in calls:
            await asyncio.sleep(0)
        for _ in range(2000):
            await asyncio.sleep(0)
        return sorted(calls)
    return n


async def stuck_after_three(n):
    if n > 3:
        say("stuck on", n)
        await asyncio.Event().wait()
    return n


def stuck_thread(n):
    if n > 3:
        say("stuck on", n)
        threading.Event().wait()
    return n


def slow_thread(n):
    """Continue after the interruption, until the gate opens."""
    if n > 3:
        say("stuck on", n)
        with open("gate") as gate:
            gate.read()
    return n


async def stuck_or_fails(n):
    return await stuck_after_three(n) if n else 1 / n


def spoil(value):
    """Change the record and fail."""
    if isinstance(value, dict):
        value["spoilt"] = {1}
    elif isinstance(value, list):
        value.append(value)
    raise RuntimeError("spoilt\n\x1b[31m\x00")


class MuteError(Exception):
    def __str__(self):
        return str(1 / 0)


async def mute(n):
    raise MuteError


class LaterError(Exception):
    """Has the attribute `retry_after`."""

    def __init__(self, retry_after):
        super().__init__("not yet")
        self.retry_after = retry_after


class RefusedError(Exception):
    """Has the status of a refused key."""

    status_code = 401


tries = Counter()


async def third_time(record):
    """Succeed at the third call, and change the record before."""
    number = record["number"]
    tries[number] += 1
    if tries[number] < 3 and number % 2:
        record["number"] = -1
        raise LaterError(0)
    return [number, tries[number]]


def third_time_in_a_thread(record):
    with lock:
        tries[record["number"]] += 1
        tried = tries[record["number"]]
    if tried < 3:
        record.clear()
        raise LaterError(0)
    return [record["number"], tried]


async def hopeless(kind):
    tries[kind] += 1
    say("called with", kind, tries[kind])
    if kind == "exit":
        sys.exit(3)
    if kind == "set":
        return {1}
    if kind == "odd":
        raise LaterError("soon")
    if kind == "cancel":
        raise asyncio.CancelledError
    if kind == "key":
        raise RefusedError("no such key")
    if kind == "bug":
        undefined
    raise LaterError(0)


async def refused_at_30(record):
    """Be refused at the record 30. The record 29 fails if it is the first."""
    number = record["number"]
    say("called with", number, "")
    if number == 29 and not tries:
        tries[number] += 1
        raise ValueError("not yet")
    tries[number] += 1
    await asyncio.sleep(0.001)
    if number == 30:
        raise RefusedError("no such key")
    return number


def refused_at_30_in_a_thread(record):
    return asyncio.run(refused_at_30(record))


async def odd(record):
    """Fail for odd numbers."""
    say("called with", record["number"], "")
    if record["number"] % 2:
        raise ValueError("odd")
    return record["number"]


async def later(n):
    """Retry the first record after all others are done."""
    tries[n] += 1
    if n == 0 and tries[n] == 1:
        raise LaterError(1)
    return n


async def later_and_bad(n):
    """Be throttled twice, and fail at each later call."""
    tries[n] += 1
    if tries[n] <= 2:
        raise LaterError(0.01)
    raise ValueError("bad")


async def much_later(n):
    if n == 1:
        say("retried in an hour")
        raise LaterError(3600)
    if n == 2:
        say("stuck on 2")
        await asyncio.Event().wait()
    return n


async def moment(record):
    return time.monotonic()


async def hangs(n):
    if n % 2:
        await asyncio.Event().wait()
    return n


def overruns(n):
    if n % 2:
        time.sleep(2)
    return n


def generate(n):
    yield n


not_a_function = 3


class Group:
    @staticmethod
    async def member(n):
        return -n
'''


def files_in(folder: Path) -> Files:
    """Write the module `work`. Return a function that writes an input of the given values and returns its path."""
    (folder / "work.py").write_text(WORK, encoding="utf-8")

    def write(*values: Any, text: str | None = None) -> Path:
        path = folder / "in.jsonl"
        lines = "".join(json.dumps(value) + "\n" for value in values) if text is None else text
        path.write_text(lines, encoding="utf-8")
        return path

    return write


def command(
    function: str,
    *options: str,
    input: str = "in.jsonl",  # noqa: A002
    limit: int | str = 2,
) -> list[str]:
    where = ["--input", input, "--output", "out.jsonl", "--limit", str(limit)]
    return [sys.executable, "-m", "headrace", "map", function, *where, *options]


def run(
    folder: Path, function: str, *options: str, limit: int | str = 2, **more: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(function, *options, limit=limit),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def run_words(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with exactly these words."""
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def running(
    folder: Path, function: str, *options: str, **more: Any
) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(function, *options, **more),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Killed first: leaving the block of a `Popen` waits for its exit.
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], part: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if part in line:
            return line
    pytest.fail(f"the command ended without printing {part!r}")


def rest(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.read()


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> str:
    """Send a signal, wait for the exit code that belongs to it, and return the remaining messages."""
    process.send_signal(number)
    messages = rest(process)
    assert process.wait() == 128 + number
    return messages


def no_limits() -> FailureLimits:
    """Return limits on failures that stop nothing."""
    return FailureLimits(stops_if_fatal=False, max_failures=None, retry_budget=None)


def assert_one_line_error(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Assert exit code 2 and one line on standard error that contains `message`."""
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def run_and_measure(
    folder: Path, function: str, *options: str
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run the command and return its peak memory in bytes as well.

    The peak is read from /proc: that of `resource` includes the peak of the parent process.
    """
    program = (
        "import re, sys; from pathlib import Path; from headrace.cli.main import main;"
        "code = main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command(function, *options)[3:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, int(done.stdout) * 1024


def results(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__"}
