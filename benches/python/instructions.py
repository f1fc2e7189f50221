"""Count the instructions per item of chosen rows, and compare them with the counts that are kept.

make instructions               compare; a row that takes over 3% more fails, also than the same row without cooldown
make instructions ARGS=--keep   keep the counts of this build

Unlike times, instruction counts do not depend on the load of the machine. They depend on CPython and on the compiler, so
they are kept for each pair of versions; without kept counts for this pair, they are only printed. Each row runs twice under
valgrind, with N and with 2N items, on a clock that advances with each reading; the difference is the cost of N items. The runs are
children of one process that has imported everything, which takes longer than the runs.

About one run in fifty executes some million instructions more than all others of its row. So a row that takes too many is counted
again, and its lowest count is compared. A regression is in all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from measure import outcome, prepared
from row import Work

KEPT = Path(__file__).parents[1] / "instructions.json"
CLOCK = Path(__file__).with_name("counting_clock.c")
TOLERANCE = 1.03
COUNTS = 3
"""The number of counts of a row that takes too many instructions."""


class Chosen(NamedTuple):
    """A row, and its smaller number of items."""

    group: str
    name: str
    items: int
    library: str = "headrace"

    def __str__(self) -> str:
        title = f"{self.group}: {self.name}"
        return title if self.library == "headrace" else f"{title}, {self.library}"


CHOSEN = [
    Chosen("pipeline", "3 map/filter stages", 8_000),
    Chosen("collect", "`collect()` of 3 map/filter stages", 16_000),
    Chosen("operators", "batches of 100, flattened again", 16_000),
    Chosen("concurrent_map", "`return x`, in input order", 1_000),
    Chosen("merge", "merge of 10 sources, ready", 4_000),
    Chosen("push", "a push through 5 map stages", 4_000),
    Chosen("queues", "a buffer in one loop, bound 100", 4_000),
    Chosen("limiter", "a limit, alone, `async with`", 4_000),
    Chosen("limiter", "a limit, 1000 waiters", 4_000),
    Chosen("pool", "`return x`, 100 at once", 2_000),
    Chosen("pool", "`return x`, 100 at once", 2_000, "`map_pool`"),
    Chosen("pool", "`return x`, 100 at once", 2_000, "`cooldown=False`"),
    Chosen("pool_options", "a timeout and a retry, 100 at once", 2_000),
    Chosen("pool_options", "`ordered=True`, 100 at once", 2_000),
    Chosen("pool_options", "a key, 100 at once", 2_000),
    Chosen("pool_options", 'cost `{"slots": 1}`, 100 at once', 2_000),
]


# A row, and the same one without a feature that must cost no more than the tolerance.
FEATURES = [
    ("pool: `return x`, 100 at once", "pool: `return x`, 100 at once, `cooldown=False`"),
]


def row_of(group: str, name: str) -> Work:
    """Return a timed row."""
    rows = importlib.import_module(f"rows.{group}").GROUP
    found = next((row for row in rows if row.name == name), None)
    if not isinstance(found, Work):
        raise LookupError(f"group {group} has no timed row {name!r}")
    return found


async def run_once(chosen: Chosen, items: int) -> None:
    """Do the work of a row."""
    run = row_of(chosen.group, chosen.name).libraries[chosen.library]
    await outcome(await prepared(run, items))


def run_in_fork(chosen: Chosen, items: int) -> int:
    """Do the work of a row in a child process; return its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            raise RuntimeError(f"{chosen}: the process failed")
        return child
    failed = 1
    try:
        asyncio.run(run_once(chosen, items))
        failed = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(failed)


def run_in_forks(rows: list[Chosen]) -> None:
    """Do the work of each row with N and with 2N items, each in a child process; print their ids, two in a line."""
    import headrace

    for name in headrace.__all__:
        getattr(headrace, name)
    for group, name, *_ in rows:
        row_of(group, name)
    gc.collect()
    gc.freeze()
    for chosen in rows:
        print(*(run_in_fork(chosen, times * chosen.items) for times in (1, 2)), flush=True)


def count(clock: Path, numbers: list[int]) -> dict[int, int]:
    """Return the instructions per item of chosen rows, by their numbers, from one process under valgrind."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    program = [sys.executable, __file__, "--run", *map(str, numbers)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "LD_PRELOAD": str(clock)}
    ran = subprocess.run(  # noqa: S603  (it is our own)
        [*command, *program], capture_output=True, text=True, check=False, env=environment
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    # A child has counted the instructions of its parent up to the fork too.
    found = re.findall(r"==(\d+)== I +refs: +([\d,]+)", ran.stderr)
    counts = {child: int(instructions.replace(",", "")) for child, instructions in found}
    counted = {}
    for number, line in zip(numbers, ran.stdout.splitlines(), strict=True):
        fewer, more = (counts[child] for child in line.split())
        counted[number] = round((more - fewer) / CHOSEN[number].items)
    return counted


def measured(kept: dict[str, int]) -> dict[str, int]:
    """Return the instructions per item of each chosen row, the lowest of several counts for rows above their kept count."""
    lowest: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "counting_clock.so"
        compile_clock = ["cc", "-O2", "-shared", "-fPIC", str(CLOCK), "-o", str(clock)]
        subprocess.run(compile_clock, check=True)  # noqa: S603  (of our own file)
        rows = list(range(len(CHOSEN)))
        for _ in range(COUNTS):
            counts = count_side_by_side(clock, rows)
            lowest |= {
                name: min(number, lowest.get(name, number)) for name, number in counts.items()
            }
            worse = rows_above(lowest, kept)
            rows = [number for number, chosen in enumerate(CHOSEN) if str(chosen) in worse]
            if not rows:
                break
    return {str(chosen): lowest[str(chosen)] for chosen in CHOSEN}


def count_side_by_side(clock: Path, numbers: list[int]) -> dict[str, int]:
    """Return the instructions per item of chosen rows, by their names, from one process for each processor."""
    parts = min(os.cpu_count() or 1, len(numbers))
    counts: dict[int, int] = {}
    with ThreadPoolExecutor(parts) as pool:
        for counted in pool.map(
            partial(count, clock), (numbers[part::parts] for part in range(parts))
        ):
            counts |= counted
    return {str(CHOSEN[number]): instructions for number, instructions in counts.items()}


def rows_above(counts: dict[str, int], kept: dict[str, int]) -> dict[str, str]:
    """Return the rows that take too many instructions, each with the count that it exceeds."""
    above = {
        name: f"the kept count, {kept[name]:,}"
        for name, number in counts.items()
        if name in kept and number > kept[name] * TOLERANCE
    }
    return above | {
        name: f"{without}, {counts[without]:,}"
        for name, without in FEATURES
        if counts[name] > counts[without] * TOLERANCE
    }


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
    parser.add_argument("--run", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_in_forks([CHOSEN[number] for number in options.run])
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions were counted")
        return 0
    everything = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    key = versions()
    kept = everything.get(key, {})
    print(f"{key}: instructions per item")
    counts = measured(kept)
    for name, number in counts.items():
        before = kept.get(name)
        change = f"{number / before - 1:+.1%} of {before:,}" if before else "not kept"
        print(f"  {name:60} {number:8,}  {change}")
    worse = rows_above(counts, kept)
    if options.keep:
        everything[key] = counts
        KEPT.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        return 0
    for name, limit in worse.items():
        print(f"more than {TOLERANCE - 1:.0%} above {limit}: {name}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
