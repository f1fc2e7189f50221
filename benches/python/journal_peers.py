"""Run calls with a durable record beside other libraries that have one, and print the calls in a second and those paid twice after kills.

python benches/python/journal_peers.py                  all that are installed: requirements/peers.txt
python benches/python/journal_peers.py headrace dbos    these

A call returns a text of 130 characters, and at most 100 run at once. The rate is that of a process with calls that take no time. Then calls
take 10 ms and append a line to a file when they begin; the process is killed at random moments, and started again until it ends. The
lines above the number of calls were paid twice.

Each library is used as its documentation shows for this: headrace with `amap`, async-batch-llm with its store in SQLite at its default
durability, DBOS with one workflow that starts its steps in groups of 100, on SQLite.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

LIMIT = 100
RESULT = "x" * 130
RATE_CALLS = {"headrace process": 20_000, "headrace disk": 20_000}
OTHER_RATE_CALLS = 1_000
KILL_CALLS = 2_000
KILLS = 10


class Work:
    """The calls of a process."""

    def __init__(self, folder: Path, delay: float) -> None:
        self._delay = delay
        self._log = os.open(folder / "calls", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    async def call(self, key: str) -> str:
        if self._delay:
            os.write(self._log, f"{key}\n".encode())
            await asyncio.sleep(self._delay)
        return RESULT


def keys(n: int) -> list[str]:
    return [f"key {number:07}" for number in range(n)]


async def by_headrace(folder: Path, work: Work, n: int, durability: Any) -> int:
    import headrace

    journal = headrace.Journal(folder / "run.journal", durability=durability)
    async with headrace.amap(work.call, keys(n), limit=LIMIT, journal=journal) as stream:
        return sum([1 async for _ in stream])


async def by_async_batch_llm(folder: Path, work: Work, n: int) -> int:
    import async_batch_llm as peer

    async def invoke(prompt: str, **_: Any) -> Any:
        return peer.CallOutcome(await work.call(prompt))

    identity = peer.ArtifactIdentity(provider="bench", model="bench")
    strategy = peer.CallableStrategy(invoke, identity=identity)
    processor: Any = peer.ParallelBatchProcessor(
        config=peer.ProcessorConfig(max_workers=LIMIT),
        artifact_store=peer.SqliteArtifactStore(folder / "store.sqlite"),
        resume=peer.ResumePolicy.REUSE_SUCCESSES,
    )
    async with processor:
        for key in keys(n):
            await processor.add_work(peer.LLMWorkItem(item_id=key, strategy=strategy, prompt=key))
        return (await processor.process_all()).succeeded


async def by_dbos(folder: Path, work: Work, n: int) -> int:
    from dbos import DBOS, SetWorkflowID

    url = f"sqlite:///{folder / 'dbos.sqlite'}"
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )

    @DBOS.step()
    async def step(key: str) -> str:
        return await work.call(key)

    @DBOS.workflow()
    async def run(count: int) -> int:
        done, every = 0, keys(count)
        for first in range(0, count, LIMIT):
            done += len(await asyncio.gather(*map(step, every[first : first + LIMIT])))
        return done

    DBOS.launch()
    try:
        with SetWorkflowID("run"):
            handle = await DBOS.start_workflow_async(run, n)
        return await handle.get_result()
    finally:
        DBOS.destroy()


async def work_as(library: str, folder: Path, n: int, delay: float) -> None:
    """Make the calls, and print their number and the seconds."""
    work = Work(folder, delay)
    before = time.perf_counter()
    if library.startswith("headrace"):
        done = await by_headrace(folder, work, n, library.split()[1])
    elif library == "async-batch-llm":
        done = await by_async_batch_llm(folder, work, n)
    else:
        done = await by_dbos(folder, work, n)
    print(f"{done} {time.perf_counter() - before}")


LIBRARIES = ["headrace process", "headrace disk", "async-batch-llm", "dbos"]


def start(library: str, folder: Path, n: int, delay: float) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "--work", library, str(folder), str(n), str(delay)]
    return subprocess.Popen(  # noqa: S603  (it is our own)
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def answer_of(process: subprocess.Popen[str], n: int) -> float:
    """Return the seconds of a process that has made all calls."""
    out, _ = process.communicate()
    if process.returncode or not out:
        raise RuntimeError("absent, or it failed")
    done, seconds = out.split()[-2:]
    assert int(done) == n, out
    return float(seconds)


def rate(library: str) -> str:
    n = RATE_CALLS.get(library, OTHER_RATE_CALLS)
    with tempfile.TemporaryDirectory() as folder:
        return f"{n / answer_of(start(library, Path(folder), n, 0), n):,.0f}"


def paid_twice(library: str, generator: random.Random) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "calls"
        log.touch()
        for number in range(KILLS):
            # Each kill is at another part of the run.
            until = KILL_CALLS * (number + generator.random()) / (KILLS + 1)
            process = start(library, folder, KILL_CALLS, 0.01)
            while len(set(log.read_text().split("\n"))) < until and process.poll() is None:
                time.sleep(0.005)
            time.sleep(generator.uniform(0, 0.02))
            process.kill()
            process.communicate()
        answer_of(start(library, folder, KILL_CALLS, 0.01), KILL_CALLS)
        made = Counter(line for line in log.read_text().split("\n") if line)
        return f"{(made.total() - KILL_CALLS) / KILLS:.0f}"


def main(wanted: list[str]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}; {KILLS} kills in {KILL_CALLS:,} calls, {LIMIT} at once\n")
    print("| library | calls in a second | paid twice after a kill |\n|---|--:|--:|")
    for library in LIBRARIES:
        if wanted and library.split()[0] not in wanted:
            continue
        try:
            row = f"{rate(library)} | {paid_twice(library, random.Random(seed))}"
        except RuntimeError as error:
            row = f"{error} |"
        print(f"| {library} | {row} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        _, _, library, folder, n, delay = sys.argv
        asyncio.run(work_as(library, Path(folder), int(n), float(delay)))
    else:
        main(sys.argv[1:])
