"""A census of the standard library, whose work is found as it goes.

What is in a directory goes back into the queue of the pool that looked there; files that were read go on to a second pool,
which parses them in threads.
"""

import argparse
import ast
import asyncio
import warnings
from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any

from headrace import CapacitySource, PushPullBufferObj, SinkWriterObj

ONE_TREE = Lock()  # CPython 3.11 and 3.12 fail at random when two threads make trees


def look(path: Path) -> tuple[dict[Path, bytes], list[Path]]:
    try:
        if path.is_file():
            return {path: path.read_bytes()}, []
        below = [p for p in path.iterdir() if p.name != "site-packages"]
        return {}, [p for p in below if p.suffix == ".py" or (p.is_dir() and not p.is_symlink())]
    except OSError as error:
        print(f"not read: {error}")
        return {}, []


def measure(file: tuple[Path, bytes]) -> dict[str, Any]:
    path, source = file
    row: dict[str, Any] = {"path": str(path), "bytes": len(source)}
    kinds = Counter[type]()
    try:
        with ONE_TREE:
            kinds.update(map(type, ast.walk(ast.parse(source))))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
        print("not Python: {path}: {error}".format_map(row))
    row["lines"] = len(source.splitlines())
    row["functions"] = kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef]
    row["imports"] = kinds[ast.Import] + kinds[ast.ImportFrom]
    return row | {"classes": kinds[ast.ClassDef]}


async def census(root: Path, output: Path) -> list[dict[str, Any]]:
    top = CapacitySource(64, name="root")
    io, parse = CapacitySource(32, top, name="io"), CapacitySource(2, top, name="parse")
    queue = PushPullBufferObj[Path]()
    queue.sink.next_nowait(root)
    left, rows = 1, list[dict[str, Any]]()

    def find(found: tuple[dict[Path, bytes], list[Path]]) -> list[tuple[Path, bytes]]:
        nonlocal left
        files, below = found
        for child in below:
            queue.sink.next_nowait(child)
        left += len(below) - 1
        if not left:  # nothing waits, and nothing runs that could find more
            queue.end()
        return [(path.relative_to(root), source) for path, source in files.items()]

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) % 250 == 1:
            print(f"{len(rows):>6} files; in use: {top}, {io}, {parse}", flush=True)

    files = queue.source.map_pool(look, io, thread=True, max_buffered=64).flat_map(find)
    async with files.map_pool(measure, parse, thread=True) as parsed:
        await parsed.tap(note).drain_to(SinkWriterObj(output))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A census of the standard library.")
    parser.add_argument("--root", type=Path, default=Path(ast.__file__).parent)
    parser.add_argument("--output", type=Path, default="census.jsonl")
    options = parser.parse_args()
    if not options.root.is_dir():
        parser.error(f"{options.root} is no directory; name one that is there by --root")
    warnings.simplefilter("ignore")  # old files have escapes that newer compilers warn about
    rows = asyncio.run(census(options.root, options.output))
    print(f"{'files':<10}{len(rows):>14,}")
    print(f"{'invalid':<10}{sum('error' in row for row in rows):>14,}")
    for name in ("bytes", "lines", "functions", "classes", "imports"):
        print(f"{name:<10}{sum(row[name] for row in rows):>14,}")
    print(f"\n{'largest':<44}{'bytes':>10}{'lines':>8}{'functions':>11}{'classes':>9}")
    for row in sorted(rows, key=lambda row: int(row["bytes"]), reverse=True)[:10]:
        print("{path:<44}{bytes:>10,}{lines:>8,}{functions:>11,}{classes:>9,}".format_map(row))
