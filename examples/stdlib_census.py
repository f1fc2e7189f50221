"""A census of the standard library, whose work is found as it goes.

What is in a directory goes back into the queue of the pool that looked there; files that were read go on to a second pool,
which parses them. It parses one at a time: up to CPython 3.12 threads that make trees at once fail at random.
"""

import argparse
import ast
import asyncio
import warnings
from collections import Counter
from pathlib import Path

from headrace import CapacitySource, PushPullBufferObj, SinkWriterObj


def look(path: Path) -> tuple[dict[Path, bytes], list[Path]]:
    try:
        if path.is_file():
            return {path: path.read_bytes()}, []
        below = [p for p in path.iterdir() if p.name != "site-packages"]
        return {}, [p for p in below if p.suffix == ".py" or (p.is_dir() and not p.is_symlink())]
    except OSError as error:
        print(f"not read: {error}")
        return {}, []


def measure(file: tuple[Path, bytes]) -> dict[str, object]:
    path, source = file
    row = dict[str, object](path=str(path), bytes=len(source), lines=len(source.splitlines()))
    kinds = Counter[type]()
    try:
        kinds.update(map(type, ast.walk(ast.parse(source))))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        row |= {"invalid": 1, "error": f"{type(error).__name__}: {error}"}
        print("not Python: {path}: {error}".format_map(row))
    row["functions"] = kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef]
    row["imports"] = kinds[ast.Import] + kinds[ast.ImportFrom]
    return row | {"classes": kinds[ast.ClassDef]}


async def census(root: Path, output: Path) -> Counter[str]:
    top = CapacitySource(64, name="root")
    io, parse = CapacitySource(32, top, name="io"), CapacitySource(1, top, name="parse")
    queue = PushPullBufferObj[Path]()
    queue.sink.next_nowait(root)
    left, totals = 1, Counter(files=0, invalid=0)

    def find(found: tuple[dict[Path, bytes], list[Path]]) -> list[tuple[Path, bytes]]:
        nonlocal left
        files, below = found
        for child in below:
            queue.sink.next_nowait(child)
        left += len(below) - 1
        if not left:  # nothing waits, and nothing runs that could find more
            queue.end()
        return [(path.relative_to(root), source) for path, source in files.items()]

    def note(row: dict[str, object]) -> None:
        if totals["files"] % 250 == 0:
            print(f"{totals['files']:>6} files; in use: {top}, {io}, {parse}", flush=True)
        totals.update({"files": 1} | {name: n for name, n in row.items() if isinstance(n, int)})

    files = queue.source.map_pool(look, io, thread=True, max_buffered=64).flat_map(find)
    async with files.map_pool(measure, parse, thread=True) as parsed:
        await parsed.callback(note).drain_to(SinkWriterObj(output))
    return totals


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A census of the standard library.")
    parser.add_argument("--root", type=Path, default=Path(ast.__file__).parent)
    parser.add_argument("--output", type=Path, default="census.jsonl")
    options = parser.parse_args()
    if not options.root.is_dir():
        parser.error(f"{options.root} is no directory; name one that is there by --root")
    warnings.simplefilter("ignore")  # old files have escapes that newer compilers warn about
    for name, total in asyncio.run(census(options.root, options.output)).items():
        print(f"{name:<10}{total:>14,}")
