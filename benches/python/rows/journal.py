"""The cost of a journal: of a recorded call on the event loop, of a record in a tight loop, and of an open.

A call has a key of 11 bytes and a result of 130, so that its start and its end take about 230 bytes. The CPU time of a call is that of the
event loop's thread, without the threads that sync.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from row import Probe, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Durability = Literal["disk", "process"]

RESULT = "x" * 130
LIMIT = 100
RECORDS = 1_000_000


async def call(_key: str) -> str:
    return RESULT


def keys(n: int) -> Iterator[str]:
    return (f"key {number:07}" for number in range(n))


async def by_json_lines(n: int) -> int:
    """Tasks that write two lines of JSON each."""
    slots = asyncio.Semaphore(LIMIT)
    with tempfile.TemporaryDirectory() as directory:
        file = os.open(Path(directory, "lines"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

        async def recorded(key: str) -> int:
            async with slots:
                os.write(file, json.dumps({"time": time.time(), "start": key}).encode() + b"\n")
                result = await call(key)
                end = {"time": time.time(), "end": key, "result": result}
                os.write(file, json.dumps(end).encode() + b"\n")
                return len(result)

        try:
            return sum(await asyncio.gather(*map(recorded, keys(n))))
        finally:
            os.close(file)


async def by_amap(n: int, durability: Durability | None) -> int:
    from headrace import Journal, amap

    total = 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "run.journal")
        journal = None if durability is None else Journal(path, durability=durability)
        async with amap(call, keys(n), limit=LIMIT, journal=journal) as stream:
            async for result in stream:
                total += len(result)
    return total


async def cost_of_a_call(durability: Durability) -> str:
    """The CPU time that a journal adds to a call on the event loop."""
    n = 50_000
    times: dict[Durability | None, float] = {}
    for kind in (None, durability, None, durability):
        before = time.thread_time()
        await by_amap(n, kind)
        passed = time.thread_time() - before
        times[kind] = min(passed, times.get(kind, passed))
    return f"{(times[durability] - times[None]) / n * 1e6:.1f} us"


async def calls_in_a_second(durability: Durability) -> str:
    n = 50_000
    before = time.perf_counter()
    await by_amap(n, durability)
    return f"{n / (time.perf_counter() - before):.0f}"


def with_a_million(measure: Callable[[Path], str]) -> str:
    """Measure a journal of a million records."""
    from headrace import Journal
    from headrace._core import JournalFile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "run.journal")
        file = JournalFile(str(path), False, False)
        for key in keys(RECORDS):
            file.store(key, RESULT)
        file.close(False)
        assert Journal(path).open().ended == RECORDS
        return measure(path)


async def time_of_an_open() -> str:
    from headrace import Journal

    def measure(path: Path) -> str:
        before = time.process_time()
        journal = Journal(path).open()
        passed = time.process_time() - before
        journal.close()
        return f"{passed:.2f} s"

    return with_a_million(measure)


async def memory_of_a_record() -> str:
    from headrace._core import JournalFile

    def measure(path: Path) -> str:
        file = JournalFile(str(path), False, False)
        memory = file.memory / RECORDS
        file.close(False)
        return f"{memory:.1f} bytes"

    return with_a_million(measure)


def only(ask: Any) -> dict[str, Any]:
    return {"headrace": ask}


GROUP = [
    Work(
        "a call with a start and an end record",
        "`gather()`, a semaphore and lines of JSON",
        by_json_lines,
        {"headrace": partial(by_amap, durability="process")},
        items=20_000,
    ),
    Probe(
        "CPU time on the loop that `durability='process'` adds to a call",
        "<= 5 us",
        only(partial(cost_of_a_call, "process")),
    ),
    Probe(
        "CPU time on the loop that `durability='disk'` adds to a call",
        "<= 5 us",
        only(partial(cost_of_a_call, "disk")),
    ),
    Probe(
        "calls in a second with `durability='process'`",
        ">= 50000",
        only(partial(calls_in_a_second, "process")),
        is_alone=True,
    ),
    Probe(
        "calls in a second with `durability='disk'`",
        ">= 10000",
        only(partial(calls_in_a_second, "disk")),
        is_alone=True,
    ),
    Probe("CPU time to open a million records", "<= 3 s", only(time_of_an_open)),
    Probe(
        "memory of the index for a record, of a million", "<= 32 bytes", only(memory_of_a_record)
    ),
]
