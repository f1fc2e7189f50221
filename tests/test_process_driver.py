"""The end of a driver, however it comes, ends its workers and the processes of their tasks."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process_jobs import is_alive
from tests.support import eventually

ROOT = Path(__file__).parent.parent

PROGRAM = """
import asyncio, sys
from pathlib import Path
from headrace import ProcessExecutor, Task
from tests import process_jobs as jobs

async def main(directory, end):
    executor = ProcessExecutor(2)
    await executor.start()
    works = [executor.submit(Task(jobs.start_child_and_wait, directory / str(n))) for n in range(2)]
    for n in range(2):
        while not (directory / f"{n}.waiting").exists():
            await asyncio.sleep(0.01)
    jobs.announce(directory / "ready", " ".join(map(str, executor.workers)))
    if end == "returns":
        return
    if end == "raises":
        raise SystemExit(3)
    await asyncio.gather(*works)

if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("end", ["returns", "raises", "SIGKILL", "SIGINT", "SIGTERM"])
def test_end_of_the_driver_ends_everything(tmp_path: Path, end: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    driver = subprocess.Popen(
        [sys.executable, program, tmp_path, end],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'python'}"},
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(eventually((tmp_path / "ready").exists))
        workers = [int(pid) for pid in (tmp_path / "ready").read_text().split()]
        children = [int((tmp_path / f"{number}.child").read_text()) for number in range(2)]
        assert len(workers) == 2
        if end.startswith("SIG"):
            driver.send_signal(getattr(signal, end))
        driver.wait(30)
        # Their watchdogs do not depend on the driver, nor on the GIL that their tasks use.
        asyncio.run(eventually(lambda: not any(map(is_alive, workers + children))))
    finally:
        driver.kill()
        driver.wait()
