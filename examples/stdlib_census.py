"""A census of the standard library of the Python that runs this: what is in each of its files.

The work is found as it goes. The task of a directory pushes a task for each directory and each file that it finds into
the queue that feeds a first pool; what that one has read feeds a second, which parses. Both run under one tree:

    root 64 --+-- io 32     listing directories and reading files
              +-- parse 2   making syntax trees of them, in threads, since that is all CPU

    python examples/stdlib_census.py [--root DIRECTORY] [--output FILE]

writes one line of JSON a file, and prints a table at the end. Progress is shown in bars if `rich` is there.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import heapq
import json
import sys
import sysconfig
import threading
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import CapacitySource, HierarchicalTaskPoolRunner, PushPullBufferObj, Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from headrace import TaskProgressEnvelope

# CPython 3.11 and 3.12 count the depth of the tree that is being built once for all threads: two at a time, switched in
# the middle by the garbage collector, fail at random with a SystemError. Reading the trees needs no such care.
ONE_TREE = threading.Lock()
COUNTED = ("bytes", "lines", "functions", "classes", "imports")


class Walk:
    """Finds and reads the files below a directory, and ends the queue when nothing is left to be found."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.queue: PushPullBufferObj[Task] = PushPullBufferObj()
        self.left = 0
        self.unread: list[str] = []
        self.push(self.directory, root)

    def push(self, work: Callable[[Path], Any], path: Path) -> None:
        self.left += 1
        self.queue.sink.next_nowait(Task(work, path, key=path))

    async def directory(self, directory: Path) -> None:
        for path in await asyncio.to_thread(lambda: list(directory.iterdir())):
            if path.is_dir() and not path.is_symlink():
                if path != self.root / "site-packages":
                    self.push(self.directory, path)
            elif path.suffix == ".py":
                self.push(self.file, path)

    async def file(self, path: Path) -> tuple[str, bytes]:
        return str(path.relative_to(self.root)), await asyncio.to_thread(path.read_bytes)

    async def was_read(self, envelope: TaskProgressEnvelope[Any]) -> bool:
        """Whether a task that ended has read a file. Whatever it found was pushed before, so that 0 is the end."""
        self.left -= 1
        if not self.left:
            await self.queue.sink.return_()
        if envelope.error is not None:
            self.unread.append(f"{envelope.key}: {envelope.error!r}")
        return envelope.value is not None


def measure(path: str, source: bytes) -> dict[str, Any]:
    """The line of one file. Some files of the library's own tests are invalid, and meant to be."""
    record: dict[str, Any] = dict.fromkeys(("path", *COUNTED), 0)
    record.update(path=path, bytes=len(source), lines=len(source.splitlines()))
    try:
        with ONE_TREE:
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return record | {"error": f"{type(error).__name__}: {error}"}
    kinds = Counter(type(node) for node in ast.walk(tree))
    record.update(
        functions=kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
        classes=kinds[ast.ClassDef],
        imports=kinds[ast.Import] + kinds[ast.ImportFrom],
    )
    return record


def progress(
    capacities: tuple[CapacitySource, ...],
) -> tuple[AbstractContextManager[object], Callable[[int], None]]:
    """Something to enter, and something to call with the number of files: bars, or now and then a line."""
    try:
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        bars = None
    else:
        bars = Progress(
            "{task.description:>6}", BarColumn(), TextColumn("{task.fields[use]}"), transient=True
        )
    if bars is not None and bars.console.is_terminal:
        files = bars.add_task("files", total=None, use="")
        rows = {
            capacity: bars.add_task(str(capacity.name), total=capacity.limit, use="")
            for capacity in capacities
        }

        def draw(done: int) -> None:
            bars.update(files, use=f"{done}")
            for capacity, row in rows.items():
                bars.update(
                    row, completed=capacity.held, use=f"{capacity.held} of {capacity.limit}"
                )

        return bars, draw
    due = time.monotonic()

    def write(done: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + 2
            use = ", ".join(
                f"{capacity.name} {capacity.held}/{capacity.limit}" for capacity in capacities
            )
            print(f"{done:>6} files   in use: {use}", flush=True)

    return nullcontext(), write


async def census(root: Path, output: Path) -> list[dict[str, Any]]:
    """Writes the census and returns its records."""
    top = CapacitySource(64, name="root")
    io, parse = CapacitySource(32, top, name="io"), CapacitySource(2, top, name="parse")
    bars, show = progress((top, io, parse))
    records: list[dict[str, Any]] = []

    walk = Walk(root)
    reading = HierarchicalTaskPoolRunner(
        walk.queue.source, io, name="io", max_buffered=64
    ).run_tasks()
    # Lazy: a file waits here until the second pool asks for it, and the first one waits when 64 do.
    files = reading.filter(walk.was_read).map(lambda read: Task(measure, *read.value, thread=True))
    parsing = HierarchicalTaskPoolRunner(files, parse, name="parse").run_tasks()
    with output.open("w", encoding="utf-8") as lines, bars:
        async with reading, parsing:
            async for envelope in parsing:
                if envelope.error is not None:
                    raise envelope.error
                records.append(envelope.value)
                lines.write(json.dumps(envelope.value) + "\n")
                show(len(records))
    for unread in walk.unread:
        print(f"not read: {unread}", file=sys.stderr)
    return records


def report(records: list[dict[str, Any]]) -> None:
    invalid = [record for record in records if "error" in record]
    for record in sorted(invalid, key=lambda record: str(record["path"])):
        print(f"not Python: {record['path']}: {record['error']}")
    totals = {"files": len(records), "invalid": len(invalid)}
    totals |= {name: sum(record[name] for record in records) for name in COUNTED}
    print()
    for name, total in totals.items():
        print(f"{name:<10}{total:>14,}")
    print(f"\n{'largest':<44}{'bytes':>10}{'lines':>8}{'functions':>11}{'classes':>9}")
    for record in heapq.nlargest(10, records, key=lambda record: int(record["bytes"])):
        print("{path:<44}{bytes:>10,}{lines:>8,}{functions:>11,}{classes:>9,}".format_map(record))


def main() -> None:
    parser = argparse.ArgumentParser(description="A census of the standard library.")
    parser.add_argument(
        "--root", type=Path, default=Path(sysconfig.get_path("stdlib")), help="what to count"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("census.jsonl"), help="where the lines go"
    )
    options = parser.parse_args()
    if not options.root.is_dir():
        parser.error(f"{options.root} is no directory")
    # Old files have escapes that newer compilers warn about.
    warnings.simplefilter("ignore")
    begun = time.monotonic()
    records = asyncio.run(census(options.root, options.output))
    report(records)
    print(f"\n{options.root} in {time.monotonic() - begun:.1f} s, written to {options.output}")


if __name__ == "__main__":
    main()
