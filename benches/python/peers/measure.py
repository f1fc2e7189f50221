"""Measures one row of one library, in a process of its own, and prints what came out as JSON.

By hand and by the library in turn, the best of each.
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
from typing import TYPE_CHECKING, Any

from peers.row import Probe, Run, Work

if TYPE_CHECKING:
    from collections.abc import Callable


def timed(run: Run, items: int, clock: Callable[[], float]) -> tuple[float, Any]:
    """Seconds, and what the run came to."""

    async def main() -> tuple[float, Any]:
        begun = clock()
        outcome = run(items)
        if inspect.isawaitable(outcome):
            outcome = await outcome
        return clock() - begun, outcome

    gc.collect()
    return asyncio.run(main())


def fitting(row: Work, runs: tuple[Run, Run], seconds: float) -> int:
    """How many items the slower of the two gets through in that time: both are given as many."""
    if row.is_whole:
        return row.items
    few = max(row.items // 100, 100)
    for _ in range(2):  # the first time, code is cold
        slower = max(timed(run, few, row.clock)[0] for run in runs)
    return max(few, min(row.items, int(few * seconds / slower)))


def measure(row: Work, library: str, repetitions: int, seconds: float) -> dict[str, Any]:
    runs = (row.by_hand, row.libraries[library])
    items = fitting(row, runs, seconds)
    best = [float("inf"), float("inf")]
    for _ in range(repetitions):
        (by_hand, expected), (by_library, outcome) = (timed(run, items, row.clock) for run in runs)
        if outcome != expected:
            return {"answer": f"wrong: {reprlib.repr(outcome)} for {reprlib.repr(expected)}"}
        best = [min(best[0], by_hand), min(best[1], by_library)]
    return {"by_hand": best[0] / items * 1e9, "ratio": best[1] / best[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group")
    parser.add_argument("row")
    parser.add_argument("library")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.04)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    group = importlib.import_module(f"peers.rows.{options.group}").GROUP
    row = next(row for row in group.rows if row.name == options.row)
    try:
        if isinstance(row, Probe):
            result = {"answer": asyncio.run(row.libraries[options.library]())}
        else:
            result = measure(row, options.library, options.repetitions, options.seconds)
    except Exception as error:  # whatever a library raises is what it came to
        result = {"answer": type(error).__name__}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
