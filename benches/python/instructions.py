"""Count the instructions per item of chosen rows, and compare them with the counts that are kept.

make instructions               compare; a row that takes over 3% more fails
make instructions ARGS=--keep   keep the counts of this build

Unlike times, instruction counts do not depend on the load of the machine. They depend on CPython and on the compiler, so
they are kept for each pair of versions; without kept counts for this pair, they are only printed. Each row runs twice under
valgrind, with N and with 2N items, on a clock that advances with each reading; the difference is the cost of N items.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import outcome, prepared
from row import Work

KEPT = Path(__file__).parents[1] / "instructions.json"
CLOCK = Path(__file__).with_name("counting_clock.c")
TOLERANCE = 1.03

CHOSEN: list[tuple[str, str, int]] = [
    ("pipeline", "3 map/filter stages", 8_000),
    ("collect", "`collect()` of 3 map/filter stages", 16_000),
    ("operators", "batches of 100, flattened again", 16_000),
    ("concurrent_map", "`return x`, in input order", 1_000),
    ("merge", "merge of 10 sources, ready", 4_000),
    ("push", "a push through 5 map stages", 4_000),
    ("queues", "a buffer in one loop, bound 100", 4_000),
    ("limiter", "a limit, alone, `async with`", 4_000),
    ("limiter", "a limit, 1000 waiters", 4_000),
    ("pool", "`return x`, 100 at once", 2_000),
]
"""Group, row and number of items."""


def row_of(group: str, name: str) -> Work:
    """Return a timed row."""
    rows = importlib.import_module(f"rows.{group}").GROUP
    found = next((row for row in rows if row.name == name), None)
    if not isinstance(found, Work):
        raise LookupError(f"group {group} has no timed row {name!r}")
    return found


async def run_once(group: str, name: str, items: int) -> None:
    """Do the work of a row with headrace."""
    await outcome(await prepared(row_of(group, name).libraries["headrace"], items))


def count(clock: Path, group: str, name: str, items: int) -> int:
    """Return the number of instructions of a process that does the work of a row once."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    program = [sys.executable, __file__, "--run", group, name, str(items)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "LD_PRELOAD": str(clock)}
    ran = subprocess.run(  # noqa: S603  (it is our own)
        [*command, *program], capture_output=True, text=True, check=False, env=environment
    )
    found = re.search(r"I +refs: +([\d,]+)", ran.stderr)
    if ran.returncode or found is None:
        raise RuntimeError(f"{group}, {name}: {ran.stderr}")
    return int(found[1].replace(",", ""))


def measured() -> dict[str, int]:
    """Return the instructions per item of each chosen row."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "counting_clock.so"
        compile_clock = ["cc", "-O2", "-shared", "-fPIC", str(CLOCK), "-o", str(clock)]
        subprocess.run(compile_clock, check=True)  # noqa: S603  (of our own file)

        def of(chosen: tuple[str, str, int]) -> int:
            group, name, items = chosen
            more, fewer = (count(clock, group, name, times * items) for times in (2, 1))
            return round((more - fewer) / items)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counts = list(pool.map(of, CHOSEN))
    return {f"{group}: {name}": n for (group, name, _), n in zip(CHOSEN, counts, strict=True)}


def versions() -> str:
    """Return the versions on which the counts depend."""
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return f"CPython {platform.python_version()}, rustc {compiler.stdout.split()[1]}, {platform.machine()}"


def main() -> int:
    """Compare or keep the counts; return 1 if a row takes more than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="replace the kept counts")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        group, name, items = options.run
        asyncio.run(run_once(group, name, int(items)))
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions were counted")
        return 0
    everything = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    key = versions()
    kept = everything.get(key, {})
    print(f"{key}: instructions per item")
    counts = measured()
    worse = []
    for name, number in counts.items():
        before = kept.get(name)
        change = f"{number / before - 1:+.1%} of {before:,}" if before else "not kept"
        print(f"  {name:60} {number:8,}  {change}")
        if before and number > before * TOLERANCE:
            worse.append(name)
    if options.keep:
        everything[key] = counts
        KEPT.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        return 0
    if worse:
        print(f"more than {TOLERANCE - 1:.0%} above the kept count: {', '.join(worse)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
