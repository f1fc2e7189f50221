"""`executor=` of `headrace.amap` and `headrace.map`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace import ProcessExecutor
from headrace.pool import ThreadExecutor
from tests import process_jobs as jobs
from tests.process_jobs import is_alive

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """\
import sys
import time

import headrace
from headrace import ProcessExecutor


def double(number):
    return 2 * number


def hang(number):
    print("begun", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    executors = [ProcessExecutor(2), ProcessExecutor(2)]
    for executor in executors:
        print(headrace.map(double, range(3), limit=4, executor=executor))
        print(*executor.workers, flush=True)
    if "hang" in sys.argv:
        headrace.map(hang, range(3), limit=1, executor=executors[0])
"""


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the program with warnings as errors."""
    file = folder / "program.py"
    file.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", str(file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_plain_function_runs_in_the_executor() -> None:
    async with ProcessExecutor(1) as executor:
        for thread in (None, False):
            stream = headrace.amap(
                jobs.same, range(3), limit=2, executor=executor, thread=thread, errors="raise"
            )
            assert await stream.collect() == [0, 1, 2]
        found = await headrace.amap(jobs.getpid_of, [0], limit=1, executor=executor).collect()
        # The executor outlives the runs.
        assert tuple(found) == executor.workers
    assert found != [os.getpid()]


async def test_async_function_runs_in_the_executor() -> None:
    async with ProcessExecutor(1) as executor:
        stream = headrace.amap(jobs.async_getpid_of, [0], limit=1, executor=executor)
        assert tuple(await stream.collect()) == executor.workers


def test_thread_and_executor_are_refused() -> None:
    with pytest.raises(ValueError, match="thread=True runs the calls in threads of the run, not"):
        headrace.amap(jobs.same, [1], limit=1, thread=True, executor=ThreadExecutor())


def test_no_warning_at_the_end_of_the_program(tmp_path: Path) -> None:
    with started(tmp_path) as program:
        output, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, "")
    results, *_ = lines = output.splitlines()
    assert results == lines[2] == "[0, 2, 4]"
    assert not any(is_alive(int(pid)) for pid in (lines[1] + " " + lines[3]).split())


def test_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    with started(tmp_path, "hang") as program:
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(5)]
        assert lines[4] == "begun\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Warning" not in errors
    assert not any(is_alive(int(pid)) for pid in (lines[1] + lines[3]).split())
