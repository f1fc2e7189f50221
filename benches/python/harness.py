"""Times pairs fairly: the baseline and headrace in turn, in one process, best of several.

The clock is the process's CPU time, which other programs on the machine do not move; where two threads work at once it is the wall's. A
ratio below 1 means that headrace is faster. Each case checks that both sides came to the same result.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = Callable[[int], Coroutine[Any, Any, Any]]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """One row: the same work by hand and by headrace."""

    name: str
    baseline: str
    by_hand: Run
    by_headrace: Run
    goal: float
    items: int = 200_000
    clock: Clock = time.process_time


@dataclass(frozen=True)
class Result:
    case: Case
    by_hand: float
    by_headrace: float

    @property
    def ratio(self) -> float:
        return self.by_headrace / self.by_hand

    def row(self) -> dict[str, Any]:
        """What is kept of it."""
        return {
            "work": self.case.name,
            "by hand": self.case.baseline,
            "by hand, ns": round(self.by_hand, 1),
            "headrace, ns": round(self.by_headrace, 1),
            "ratio": round(self.ratio, 3),
            "goal": self.case.goal,
        }


async def _timed(run: Run, items: int, clock: Clock) -> tuple[float, Any]:
    begun = clock()
    outcome = await run(items)
    return (clock() - begun) / items * 1e9, outcome


def measure(case: Case, repetitions: int = 9) -> Result:
    """Runs both sides in turn; the best of each, in nanoseconds an item."""
    best = [float("inf"), float("inf")]
    for _ in range(repetitions):
        outcomes: list[Any] = []
        for side, run in enumerate((case.by_hand, case.by_headrace)):
            gc.collect()
            elapsed, outcome = asyncio.run(_timed(run, case.items, case.clock))
            best[side] = min(best[side], elapsed)
            outcomes.append(outcome)
        if outcomes[0] != outcomes[1]:
            raise AssertionError(
                f"{case.name}: {outcomes[0]!r} by hand, {outcomes[1]!r} by headrace"
            )
    return Result(case, *best)


def machine() -> str:
    """The interpreter and the processor, for the line above a table."""
    model = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open() as file:
            model = next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        pass
    return f"CPython {platform.python_version()}, {model}, {sys.platform}"


def print_table(results: list[Result]) -> None:
    """The results as a table in Markdown."""
    print(f"{machine()}; best of each in one process, ns an item\n")
    print("| work | by hand | ns | headrace | ratio | goal |")
    print("|---|---|--:|--:|--:|--:|")
    for result in results:
        case = result.case
        met = "" if result.ratio <= case.goal else " (missed)"
        print(
            f"| {case.name} | {case.baseline} | {result.by_hand:.0f} | {result.by_headrace:.0f} "
            f"| {result.ratio:.2f} | {case.goal:.2f}{met} |"
        )


def main(about: str | None, cases: Callable[[], list[Case]], repetitions: int = 9) -> None:
    """The program of a file with cases: measures those that are asked for."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=repetitions,
        help="how often each side runs (%(default)s)",
    )
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    print_table(
        [measure(case, options.repetitions) for case in cases() if options.only in case.name]
    )
