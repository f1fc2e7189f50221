"""SIGUSR1 and SIGQUIT print what the command waits for; calls without progress are named. With real processes and signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.command import interrupt, running, wait_for_line

if TYPE_CHECKING:
    from pathlib import Path

JOBS = r"""
import asyncio
import hashlib
import os
import time


def say(word):
    os.write(2, (word + "\n").encode())


async def waits(n):
    say("called")
    await asyncio.Event().wait()


async def sleeps(n):
    say("called")
    time.sleep(1_000)


async def spins(n):
    say("called")
    while True:
        pass


async def computes(n):
    # Releases the GIL, and does not notice signals.
    say("called")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


async def takes_the_descriptor(n):
    import signal

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, int)
    say("called")
    await asyncio.Event().wait()
"""


def blocked_by(function: str, folder: Path, *options: str) -> list[str]:
    (folder / "jobs.py").write_text(JOBS, encoding="utf-8")
    (folder / "in.jsonl").write_text("1\n", encoding="utf-8")
    return [f"jobs:{function}", *options]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGQUIT])
@pytest.mark.parametrize(
    "function", ["waits", "sleeps", "spins", "computes", "takes_the_descriptor"]
)
def test_a_signal_prints_the_waits(tmp_path: Path, function: str, number: signal.Signals) -> None:
    with running(tmp_path, *blocked_by(function, tmp_path)) as process:
        wait_for_line(process, "called")
        # Twice: it can be repeated, and the process goes on.
        for _ in range(2):
            process.send_signal(number)
            assert str(process.pid) in wait_for_line(process, "headrace: process ")
            line = wait_for_line(process, "headrace map: record 1")
            if function in ("waits", "takes_the_descriptor"):
                assert "headrace map: record 1 (1): runs for" in line
            else:
                assert "executes" in line
                assert "jobs.py" in line
        assert process.poll() is None


def test_the_command_ends_as_without_a_signal(tmp_path: Path) -> None:
    with running(tmp_path, *blocked_by("waits", tmp_path)) as process:
        wait_for_line(process, "called")
        process.send_signal(signal.SIGUSR1)
        wait_for_line(process, "headrace: process ")
        interrupt(process)


def test_an_ignored_signal_stays_ignored() -> None:
    program = """
import signal
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
from headrace.cli import signals
signals.install()
assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_call_without_progress_is_named(tmp_path: Path) -> None:
    with running(tmp_path, *blocked_by("waits", tmp_path, "--stall-after", "0.2")) as process:
        line = wait_for_line(process, "has made no progress for 0.2 s")
        assert line.count("headrace map: ") == 1
        assert line.startswith("headrace map: record 1 (1) has made no progress")
        assert "jobs.py" in line
        assert "in waits" in line
