"""What a line of a file costs, beside `for line in open(path)`.

The CPU time is that of the whole process, so that the threads which read count too; the wall's time is what one waits for.
"""

from __future__ import annotations

import functools
import gzip
import operator
import os
import random
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from row import Goal, Work

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = 300_000
ASCII, GREEK = "abcdefghij klmnop", "abcdefghij αβγδ"


@functools.cache
def path_of(alphabet: str, suffix: str = "") -> Path:
    """A file of lines of about 60 characters; written once, since every cell is a process."""
    name = f"headrace-bench-{LINES}-{'ascii' if alphabet.isascii() else 'greek'}.txt{suffix}"
    path = Path(tempfile.gettempdir(), name)
    if not path.exists():
        rng = random.Random(1)
        line = "".join(rng.choices(alphabet, k=80))
        text = "".join(f"{line[: rng.randint(40, 78)]}\n" for _ in range(LINES)).encode()
        # Whole or not at all, also for processes beside this one.
        written = path.with_suffix(f".{os.getpid()}")
        written.write_bytes(gzip.compress(text, 6) if suffix else text)
        written.replace(path)
    return path


async def by_open(_: int, path: Callable[[], Path]) -> int:
    total = 0
    with (gzip.open if path().suffix == ".gz" else open)(path(), "rt", encoding="utf-8") as file:
        for line in file:
            total += len(line)
    return total


async def by_async_for(_: int, path: Callable[[], Path]) -> int:
    from headrace import SourceLinesObj

    total = 0
    async with SourceLinesObj(path()) as lines:
        async for line in lines:
            total += len(line)
    return total


async def by_reduce(_: int, path: Callable[[], Path]) -> int:
    from headrace import SourceLinesObj

    async with SourceLinesObj(path()) as lines:
        return await lines.map(len).reduce(operator.add, 0)


PLAIN, WIDE, ZIPPED = (
    partial(path_of, ASCII),
    partial(path_of, GREEK),
    partial(path_of, ASCII, ".gz"),
)
CPU, WALL = time.process_time, time.perf_counter

GROUP = [
    Work(
        name,
        "`open()`",
        partial(by_open, path=path),
        {"headrace": partial(run, path=path)},
        Goal(goal),
        items=LINES,
        clock=clock,
        is_whole=True,
    )
    for name, run, path, clock, goal in (
        ("lines by `async for`, CPU", by_async_for, PLAIN, CPU, 1.8),
        ("lines by `async for`, wall", by_async_for, PLAIN, WALL, 1.8),
        ("lines by `reduce`, CPU", by_reduce, PLAIN, CPU, 1.0),
        ("lines by `reduce`, wall", by_reduce, PLAIN, WALL, 1.0),
        ("lines that are not ASCII, CPU", by_async_for, WIDE, CPU, 1.8),
        ("lines that are not ASCII, wall", by_async_for, WIDE, WALL, 1.8),
        ("gzipped lines, CPU", by_async_for, ZIPPED, CPU, 1.8),
        ("gzipped lines, wall", by_async_for, ZIPPED, WALL, 1.8),
    )
]
