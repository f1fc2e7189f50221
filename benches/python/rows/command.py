"""The cost of a trivial record of `headrace map`, relative to the same job in code: `amap` over a file, read and written as JSON.

Both are processes of their own, from start to end. Their CPU time is that of all of their threads. The function returns its record.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

from row import Goal, Work

RECORDS = 20_000

FUNCTIONS = """
async def on_loop(record):
    return record

def in_thread(record):
    return record
"""

IN_CODE = """
import asyncio, json, sys
import headrace, functions

def records():
    with open(sys.argv[2], encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)

async def main():
    function = getattr(functions, sys.argv[1])
    with open(sys.argv[3], "w", encoding="utf-8") as output:
        async with headrace.amap(function, records(), limit=20, errors="return") as results:
            async for result in results:
                output.write(json.dumps(result) + "\\n")

asyncio.run(main())
"""


@cache
def folder() -> Path:
    """A folder with the programs, which is kept for the processes of all cells."""
    found = Path(tempfile.gettempdir(), f"headrace-bench-command-{os.getuid()}")
    found.mkdir(exist_ok=True)
    for name, text in (("functions.py", FUNCTIONS), ("in_code.py", IN_CODE)):
        (found / name).write_text(text, encoding="utf-8")
    return found


def run(command: list[str | Path]) -> None:
    subprocess.run(  # noqa: S603  (it is this program)
        [sys.executable, *command],
        cwd=folder(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder()), *sys.path])},
        check=True,
        stderr=subprocess.DEVNULL,
    )


async def job(count: int, *, function: str, is_command: bool) -> int:
    """Yield once the input is written, and then the number of lines in the output."""
    name = f"{count}-{os.getpid()}"
    source, output = folder() / f"{name}.jsonl", folder() / f"{name}-out.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"id": number, "text": f"text {number}"}) + "\n")
    try:
        yield 0
        if is_command:
            options = ["--input", source, "--output", output, "--limit", "20"]
            run(["-m", "headrace", "map", f"functions:{function}", *options])
        else:
            run(["in_code.py", function, source, output])
        with output.open(encoding="utf-8") as file:
            yield sum(1 for _ in file)
    finally:
        source.unlink()
        output.unlink(missing_ok=True)


def cpu_time() -> float:
    """The CPU time of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


NAMES = {"on_loop": "an async function", "in_thread": "a plain function, in threads"}

GROUP = [
    Work(
        f"a record of {title}",
        "`amap`, `json`",
        partial(job, function=function, is_command=False),
        {"headrace": partial(job, function=function, is_command=True)},
        Goal(3.0),
        items=RECORDS,
        clock=cpu_time,
        is_whole=True,
    )
    for function, title in NAMES.items()
]
