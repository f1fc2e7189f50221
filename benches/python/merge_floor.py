"""What taking async generators together costs at the least: a stepper in C, beside headrace.

    make bench

The stepper (`merge_floor.c`, which the C compiler of this machine builds into a temporary folder) takes the same
generators for the same consumer, and knows nothing but that they are ready: no suspension, no error, no cancellation, no
closing. *Steps* are steps and nothing else, all of them in the consumer's task and context. *Identities* are the same
steps, each in its source's own task and context, entered as cheaply as CPython lets it be done: what a context variable,
a timeout or a task group inside a source needs. All three are ratios to the same code by hand, each timed in turn with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from by_hand import in_turn, numbers, zipped
from harness import Case, machine, measure
from merge import sources, total

from headrace import PullRoundRobinObj, PullZipObj

if TYPE_CHECKING:
    from collections.abc import Callable

TEN = 10


def built() -> Any:
    """The module of `merge_floor.c`."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "_merge_floor.so"
        include = f"-I{sysconfig.get_path('include')}"
        source = str(Path(__file__).with_suffix(".c"))
        subprocess.run(  # noqa: S603  (of our own file)
            ["cc", "-O3", "-shared", "-fPIC", include, source, "-o", str(library)],  # noqa: S607
            check=True,
        )
        spec = importlib.util.spec_from_file_location("_merge_floor", library)
        if spec is None or spec.loader is None:
            raise ImportError(str(library))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def current_tasks() -> dict[Any, Any]:
    """Where asyncio keeps which task is the current one of a loop."""
    import _asyncio

    tasks: dict[Any, Any] = vars(_asyncio)["_current_tasks"]
    return tasks


async def stepped(floor: Any, generators: list[Any], *, rows: bool, identities: bool) -> int:
    """What the stepper gives, added up."""
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        owners: list[tuple[Any, contextvars.Context]] = []
        for _ in generators if identities else ():
            context = contextvars.copy_context()
            task = loop.create_task(asyncio.sleep(3600), context=context)
            stack.callback(task.cancel)
            owners.append((task, context))
        return await total(floor.Stepper(generators, rows, owners, current_tasks(), loop))


def contenders(
    floor: Any, by_hand: Any, by_headrace: Any, *, rows: bool
) -> dict[str, Callable[[], Case]]:
    def case(run: Callable[[int], Any]) -> Callable[[], Case]:
        return lambda: Case(
            "", "", lambda n: total(by_hand(sources(numbers, TEN, n))), run, 1.0, 100_000
        )

    def in_c(*, identities: bool) -> Callable[[int], Any]:
        return lambda n: stepped(floor, sources(numbers, TEN, n), rows=rows, identities=identities)

    return {
        "steps": case(in_c(identities=False)),
        "identities": case(in_c(identities=True)),
        "headrace": case(lambda n: total(by_headrace(*sources(numbers, TEN, n)))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=9, help="how often each side runs")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    if sys.version_info >= (3, 14):
        print("no floor here: from CPython 3.14 on asyncio keeps its current tasks out of reach")
        return
    floor = built()
    rows = {
        f"zip of {TEN}": contenders(floor, zipped, PullZipObj, rows=True),
        f"round-robin of {TEN}": contenders(floor, in_turn, PullRoundRobinObj, rows=False),
    }
    print(f"{machine()}; best of each in one process, ratios to the code by hand\n")
    print("| work | by hand, ns an item | steps in C | with identities | headrace |")
    print("|---|--:|--:|--:|--:|")
    for name, cases in rows.items():
        if options.only not in name:
            continue
        results = [measure(case(), options.repetitions) for case in cases.values()]
        by_hand = min(result.by_hand for result in results)
        ratios = " | ".join(f"{result.ratio:.2f}" for result in results)
        print(f"| {name} | {by_hand:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
