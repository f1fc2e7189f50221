"""Drivers on Ray that are killed: nothing runs afterwards, and a journal knows what was finished."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ray_support import calls, last_beat, processes, skip_without_ray
from tests.support import eventually

skip_without_ray()

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]

DRIVER = Path(__file__).with_name("ray_driver.py")
TASKS = 200


def start(*arguments: object) -> subprocess.Popen[bytes]:
    root = DRIVER.parents[1]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(DRIVER), *map(str, arguments)], env={**os.environ, "PYTHONPATH": path}
    )


def started(before: set[int]) -> list[str]:
    """Return the commands of the processes that have been started since."""
    return [name for pid, name in processes().items() if pid not in before]


async def test_kill_of_the_driver_ends_all(tmp_path: Path) -> None:
    before = set(processes())
    driver = start("beat", tmp_path)
    beat = tmp_path / "beat"
    await eventually(beat.exists, 60)
    driver.kill()
    killed = time.monotonic()
    driver.wait()
    await asyncio.sleep(2.0)
    assert last_beat(beat) - killed < 2.0
    # Also of Ray, which the driver has started.
    assert started(before) == []


async def test_killed_driver_is_resumed(tmp_path: Path) -> None:
    driver = start("journal", tmp_path, TASKS)
    values = tmp_path / "values"

    def half() -> bool:
        return values.exists() and len(values.read_text().split()) >= TASKS // 2

    await eventually(half, 60)
    driver.kill()
    driver.wait()
    delivered = set(map(int, values.read_text().split()))
    values.unlink()
    at_kill = calls(tmp_path)
    again = start("journal", tmp_path, TASKS)
    assert await asyncio.to_thread(again.wait, 60) == 0
    assert sorted(map(int, values.read_text().split())) == list(range(TASKS))
    called = calls(tmp_path)
    assert called.keys() == set(range(TASKS))
    # No result that was delivered is paid again; the others are only those that were in flight.
    assert all(called[number] == 1 for number in delivered)
    assert sum(called.values()) - TASKS <= 8
    assert len(at_kill) < TASKS


def test_example_counts_alike_on_ray(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.py").write_text("import os\n" * (1 + number % 3))
    program = DRIVER.parents[1] / "examples" / "imports.py"

    def table(*options: str) -> str:
        command = [sys.executable, str(program), str(tmp_path), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout[done.stdout.index("\n40 files were parsed") :]

    assert table("--ray", "local") == table()


PROGRAM = """
import headrace
from tests import process_jobs as jobs

if __name__ == "__main__":
    cluster = headrace.RayExecutor(workers=2)
    for _ in range(2):
        print(headrace.map(jobs.double, range(3), limit=4, executor=cluster))
"""


def test_map_ends_its_cluster_with_the_program(tmp_path: Path) -> None:
    before = set(processes())
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(DRIVER.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stdout == "[0, 2, 4]\n" * 2
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert started(before) == []
