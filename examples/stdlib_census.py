"""A census of the standard library, whose work is found as it goes.

A directory pushes what is in it into the queue of the pool that it runs in; files that were read go on to a second pool,
which parses them in threads.
"""

import argparse
import ast
import asyncio
import sysconfig
import warnings
from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any

from headrace import SKIP, CapacitySource, PushPullBufferObj, SinkWriterObj, Skip

ONE_TREE = Lock()  # CPython 3.11 and 3.12 fail at random when two threads make trees
COUNTED = ("bytes", "lines", "functions", "classes", "imports")


def look(path: Path) -> bytes | list[Path]:
    if path.is_file():
        return path.read_bytes()
    below = [child for child in path.iterdir() if child.name != "site-packages"]
    return [it for it in below if it.suffix == ".py" or (it.is_dir() and not it.is_symlink())]


def measure(file: tuple[Path, bytes]) -> dict[str, Any]:
    path, source = file
    row = {"path": str(path), "bytes": len(source), "lines": len(source.splitlines())}
    try:
        with ONE_TREE:
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return dict.fromkeys(COUNTED, 0) | row | {"error": f"{type(error).__name__}: {error}"}
    kinds = Counter(type(node) for node in ast.walk(tree))
    row["functions"] = kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef]
    row["imports"] = kinds[ast.Import] + kinds[ast.ImportFrom]
    return row | {"classes": kinds[ast.ClassDef]}


async def census(root: Path, output: Path) -> list[dict[str, Any]]:
    top = CapacitySource(64, name="root")
    io, parse = CapacitySource(32, top, name="io"), CapacitySource(2, top, name="parse")
    queue: PushPullBufferObj[Path] = PushPullBufferObj()
    queue.sink.next_nowait(root)
    left, rows = 1, list[dict[str, Any]]()

    async def visit(path: Path) -> list[tuple[Path, bytes]]:
        nonlocal left
        try:
            found = await asyncio.to_thread(look, path)
            if isinstance(found, bytes):
                return [(path.relative_to(root), found)]
            left += len(found)
            for child in found:
                queue.sink.next_nowait(child)
            return []
        finally:
            left -= 1
            if not left:  # nothing waits, and nothing runs that could find more
                await queue.sink.return_()

    def unread(error: Exception) -> Skip:
        print(f"not read: {error}")
        return SKIP

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) % 250 == 1:
            print(f"{len(rows):>6} files; in use: {top}, {io}, {parse}", flush=True)

    files = queue.source.map_pool(visit, io, max_buffered=64).catch(unread).flatten()
    async with files.map_pool(measure, parse, thread=True) as parsed:
        await parsed.callback(note).drain_to(SinkWriterObj(output))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="A census of the standard library.")
    parser.add_argument("--root", type=Path, default=sysconfig.get_path("stdlib"))
    parser.add_argument("--output", type=Path, default="census.jsonl")
    options = parser.parse_args()
    if not options.root.is_dir():
        parser.error(f"{options.root} is no directory; name one that is there by --root")
    warnings.simplefilter("ignore")  # old files have escapes that newer compilers warn about
    rows = asyncio.run(census(options.root, options.output))
    invalid = [f"not Python: {row['path']}: {row['error']}" for row in rows if "error" in row]
    totals = {"files": len(rows), "invalid": len(invalid)}
    print("\n".join(sorted(invalid)))
    for name, total in (totals | {it: sum(row[it] for row in rows) for it in COUNTED}).items():
        print(f"{name:<10}{total:>14,}")
    print(f"\n{'largest':<44}{'bytes':>10}{'lines':>8}{'functions':>11}{'classes':>9}")
    for row in sorted(rows, key=lambda row: int(row["bytes"]), reverse=True)[:10]:
        print("{path:<44}{bytes:>10,}{lines:>8,}{functions:>11,}{classes:>9,}".format_map(row))


if __name__ == "__main__":
    main()
