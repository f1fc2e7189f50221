"""What a line of a file costs, beside `for line in open(path)`.

    make bench

The CPU time is that of the whole process, so that the threads which read count too; the wall's time is what one waits for.
"""

from __future__ import annotations

import gzip
import operator
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Case, Clock, main

from headrace import SourceLinesObj

if TYPE_CHECKING:
    from harness import Clock

LINES = 1_000_000


def write(path: Path, count: int, alphabet: str, *, zipped: bool = False) -> None:
    """Lines of about 60 characters."""
    rng = random.Random(1)
    line = "".join(rng.choices(alphabet, k=80))
    text = "".join(f"{line[: rng.randint(40, 78)]}\n" for _ in range(count))
    if zipped:
        path.write_bytes(gzip.compress(text.encode(), 6))
    else:
        path.write_text(text, encoding="utf-8")


async def by_open(path: Path) -> int:
    total = 0
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            total += len(line)
    return total


def by_async_for(name: str, path: Path, goal: float, clock: Clock) -> Case:
    async def by_headrace(_: int) -> int:
        total = 0
        async with SourceLinesObj(path) as lines:
            async for line in lines:
                total += len(line)
        return total

    return Case(name, "`open()`", lambda _: by_open(path), by_headrace, goal, LINES, clock)


def by_reduce_all(name: str, path: Path, goal: float, clock: Clock) -> Case:
    async def by_headrace(_: int) -> int:
        async with SourceLinesObj(path) as lines:
            return await lines.map(len).reduce_all(operator.add, 0)

    return Case(name, "`open()`", lambda _: by_open(path), by_headrace, goal, LINES, clock)


def cases(folder: str) -> list[Case]:
    cpu, wall = time.process_time, time.perf_counter
    ascii_, greek, zipped = (Path(folder, name) for name in ("ascii", "greek", "ascii.gz"))
    write(ascii_, LINES, "abcdefghij klmnop")
    write(greek, LINES, "abcdefghij αβγδ")
    write(zipped, LINES, "abcdefghij klmnop", zipped=True)
    return [
        by_async_for("lines by `async for`, CPU", ascii_, 1.8, cpu),
        by_async_for("lines by `async for`, wall", ascii_, 1.8, wall),
        by_reduce_all("lines by `reduce_all`, CPU", ascii_, 1.0, cpu),
        by_reduce_all("lines by `reduce_all`, wall", ascii_, 1.0, wall),
        by_async_for("lines that are not ASCII, CPU", greek, 1.8, cpu),
        by_async_for("gzipped lines, CPU", zipped, 1.8, cpu),
        by_async_for("gzipped lines, wall", zipped, 1.8, wall),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(__doc__, lambda: cases(temporary), repetitions=5)
