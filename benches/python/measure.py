"""Measure one cell, a row of one library, and print the result as JSON. `bench.py` starts it in its own process.

Code by hand and the library are timed alternately; the best time of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import inspect
import json
import reprlib
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from row import Absent, Probe, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from row import Run

    Clock = Callable[[], float]


async def prepared(run: Run, items: int) -> Callable[[], Any]:
    """The timed part of the work."""
    if inspect.isasyncgenfunction(run):
        steps = run(items)
        await anext(steps)
        return cast("Callable[[], Any]", steps.__anext__)
    return partial(run, items)


async def outcome(work: Callable[[], Any]) -> Any:
    result = work()
    return await result if inspect.isawaitable(result) else result


async def timed(run: Run, items: int, clock: Clock) -> tuple[float, Any]:
    """Return the seconds and the result of a run."""
    work = await prepared(run, items)
    begun = clock()
    result = await outcome(work)
    return clock() - begun, result


def ran(row: Work, run: Run, items: int) -> tuple[float, Any]:
    """The same in a new event loop, after a garbage collection."""
    gc.collect()
    with asyncio.Runner(loop_factory=row.loop) as runner:
        return runner.run(timed(run, items, row.clock))


def fitting(row: Work, runs: tuple[Run, Run], seconds: float) -> int:
    """Return the number of items that the slower of the two processes in that time; both get that number."""
    if row.is_whole:
        return row.items
    few = max(row.items // 100, 100)
    for _ in range(2):  # the first run is a warm-up
        slower = max(ran(row, run, few)[0] for run in runs)
    return max(few, min(row.items, int(few * seconds / slower)))


def measure(row: Work, library: str, repetitions: int, seconds: float) -> dict[str, Any]:
    runs = (row.by_hand, row.libraries[library])
    items = fitting(row, runs, seconds)
    best = [float("inf"), float("inf")]
    for _ in range(repetitions):
        (by_hand, expected), (by_library, result) = (ran(row, run, items) for run in runs)
        if result != expected:
            return {"answer": f"wrong: {reprlib.repr(result)} for {reprlib.repr(expected)}"}
        best = [min(best[0], by_hand), min(best[1], by_library)]
    return {"by_hand": best[0] / items * 1e9, "ratio": best[1] / best[0]}


def asked(row: Work | Probe, library: str, repetitions: int, seconds: float) -> dict[str, Any]:
    """Return the result of a cell. An error of a library is its result; an error of headrace is a bug and is raised."""
    try:
        if isinstance(row, Probe):
            return {"answer": asyncio.run(row.libraries[library]())}
        return measure(row, library, repetitions, seconds)
    except Exception as error:
        if library == "headrace" and not isinstance(error, Absent):
            raise
        is_absent = isinstance(error, (ModuleNotFoundError, Absent))
        return {"answer": "absent" if is_absent else type(error).__name__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group")
    parser.add_argument("row")
    parser.add_argument("library")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.04)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    group = importlib.import_module(f"rows.{options.group}").GROUP
    row = next(row for row in group if row.name == options.row)
    answer = asked(row, options.library, options.repetitions, options.seconds)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
