"""`headrace map --executor processes`: the same results, and errors, time limits and signals that end the work itself."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.command import assert_one_line_error, interrupt, run, running, wait_for_line
from tests.journal_runs import Folder, assert_survives_kills
from tests.process_jobs import is_alive

if TYPE_CHECKING:
    from pathlib import Path

FACTOR = float(os.environ.get("HEADRACE_SOAK", "1"))

WORK = """
import asyncio, os, sys, time
from headrace import current_lease


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def double(n):
    return {"n": n * 2, "pid": os.getpid()}


async def meet(n):
    # Each worker has four of eight records at once.
    open(f"{n}.here", "w").close()
    while sum(name.endswith(".here") for name in os.listdir()) < 8:
        await asyncio.sleep(0.001)
    return n


def spoil(n):
    if n == 1:
        raise Odd(1, 2)
    if n == 2:
        os._exit(7)
    if n == 3:
        sys.exit("enough")
    if n == 4:
        return object()
    return n


def once(n):
    try:
        open(f"{n}.tried", "x").close()
    except FileExistsError:
        return n
    if n == 2:
        os._exit(7)
    raise ConnectionError("again")


def endless(n):
    print(f"call {n} in {os.getpid()}", file=sys.stderr, flush=True)
    while n == 2:
        pass
    return n


def interrupts(n):
    if n == 4:
        raise KeyboardInterrupt
    return n


def refused(n):
    error = RuntimeError("no such key")
    error.status_code = 401
    raise error
"""

PROCESSES = ("--executor", "processes", "--workers", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module `work` and ten records, the numbers from 0."""
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "in.jsonl").write_text("".join(f"{number}\n" for number in range(10)))
    return tmp_path


def errors_in(folder: Path) -> dict[int, dict[str, object]]:
    lines = (folder / "errors.jsonl").read_text().splitlines()
    return {error["input"]: error for error in map(json.loads, lines)}


def test_calls_run_in_the_workers(folder: Path) -> None:
    done = run(folder, "work.py:double", "--output", "-", *PROCESSES)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["n"] for result in results] == [number * 2 for number in range(10)]
    assert 1 <= len({result["pid"] for result in results}) <= 2
    assert done.returncode == 0


def test_async_calls_fill_the_limit(folder: Path) -> None:
    (folder / "in.jsonl").write_text("".join(f"{number}\n" for number in range(8)))
    done = run(folder, "work:meet", "--output", "-", *PROCESSES, "--limit", "8", "--timeout", "30")
    assert done.stdout.split() == [str(number) for number in range(8)], done.stderr


def test_errors_are_described_by_the_worker(folder: Path) -> None:
    options = ("--output", "-", "--errors", "errors.jsonl", *PROCESSES)
    done = run(folder, "work:spoil", *options)
    assert done.stdout.split() == ["0", "5", "6", "7", "8", "9"]
    assert done.returncode == 1
    errors = errors_in(folder)
    kinds = {number: error["error"] for number, error in errors.items()}
    assert kinds == {1: "Odd", 2: "WorkerLost", 3: "SystemExit", 4: "TypeError"}
    assert errors[1]["where"] == "work.py:25"
    assert errors[3]["message"] == "enough"
    assert "exit code 7" in str(errors[2]["message"])


def test_lost_workers_and_errors_are_retried(folder: Path) -> None:
    options = ("--output", "-", "--retries", "1", "--errors", "errors.jsonl", *PROCESSES)
    done = run(folder, "work:once", *options)
    assert done.stdout.split() == [str(number) for number in range(10)], done.stderr
    # A verdict of a worker counts too: no attempt follows a permanent error.
    done = run(folder, "work:spoil", *options)
    attempts = {number: error["attempts"] for number, error in errors_in(folder).items()}
    assert attempts == {1: 2, 2: 2, 3: 1, 4: 1}


def test_timeout_ends_a_plain_function(folder: Path) -> None:
    done = run(folder, "work:endless", "--output", "-", "--timeout", "1", *PROCESSES)
    assert done.stdout.split() == [str(number) for number in range(10) if number != 2]
    assert "record 3 failed: TimeoutError" in done.stderr


def test_interrupt_ends_the_workers(folder: Path) -> None:
    with running(folder, "work:endless", "--output", "out", *PROCESSES) as process:
        worker = int(wait_for_line(process, "call 2 in ").split()[-1])
        interrupt(process, signal.SIGINT)
        assert process.wait(30) == 130
    assert not is_alive(worker)


def test_keyboard_interrupt_of_a_call_stops_the_run(folder: Path) -> None:
    done = run(folder, "work:interrupts", "--output", "out", *PROCESSES)
    assert done.returncode == 130
    assert not (folder / "out").exists()


def test_fatal_error_in_a_worker_stops_the_run(folder: Path) -> None:
    done = run(folder, "work:refused", "--output", "out", *PROCESSES)
    assert done.returncode == 2
    assert "no such key" in done.stderr


def test_options_of_workers_are_checked(folder: Path) -> None:
    done = run(folder, "work:double", "--output", "-", "--workers", "2")
    assert_one_line_error(done, "--workers needs --executor")
    for wrong in ("threads", "processes:4", "ray:"):
        done = run(folder, "work:double", "--output", "-", "--executor", wrong)
        assert_one_line_error(done, f"ray or ray:ADDRESS, such as ray:auto, got {wrong!r}")


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_ray_must_be_installed(folder: Path) -> None:
    done = run(folder, "work:double", "--output", "-", "--executor", "ray")
    assert_one_line_error(done, "--executor ray needs Ray: pip install 'headrace[ray]'")


@pytest.mark.timeout(120 if FACTOR < 10 else 1200)
def test_law_18_kills_of_the_driver(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    folder = Folder(tmp_path)
    count = 200 if FACTOR < 10 else 2_000
    folder.write(*({"n": number, "takes": 0.01} for number in range(count)))
    kills = 6 if FACTOR < 10 else 50
    assert_survives_kills(folder, random.Random(seed), kills, "in_thread", *PROCESSES)
    assert Counter(folder.output()) == Counter(folder.undisturbed())
