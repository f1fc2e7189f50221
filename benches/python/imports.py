"""What importing costs: CPU time beyond `import asyncio`, in a fresh process each, the best of several.

    make bench

Bytecode is there and files are in the system's cache, as from the second start of a program on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

from harness import machine

PROGRAM = """
import asyncio, sys, time
modules = len(sys.modules)
begun = time.process_time()
{statement}
print(time.process_time() - begun, len(sys.modules) - modules)
"""
# With the goal in milliseconds, where there is one.
STATEMENTS = {
    "import headrace": 8.0,
    "from headrace import SourceIterObj, PullMapObj": None,
    "from headrace import PushPullBufferObj, PushChain": None,
    "from headrace import HierarchicalTaskPoolRunner, CapacitySource": None,
    "from headrace import *": None,
}


def measure(statement: str, repetitions: int) -> tuple[float, int]:
    """Milliseconds, and the number of modules."""
    with tempfile.TemporaryDirectory() as folder:
        # Wherever the environment has bytecode written, or not.
        setting = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        runs = [
            subprocess.run(  # noqa: S603  (it is this program)
                [sys.executable, "-c", PROGRAM.format(statement=statement)],
                env=os.environ | setting,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for _ in range(repetitions + 1)
        ]
    return min(float(seconds) * 1e3 for seconds, _ in runs[1:]), int(runs[-1][1])


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repetitions", type=int, default=9, help="how many processes each (%(default)s)"
    )
    parser.add_argument("--only", default="", help="statements that contain this")
    options = parser.parse_args()
    print(f"{machine()}; beyond `import asyncio`\n")
    print("| statement | ms | modules | goal |")
    print("|---|--:|--:|--:|")
    for statement, goal in STATEMENTS.items():
        if options.only in statement:
            spent, modules = measure(statement, options.repetitions)
            missed = " (missed)" if goal is not None and spent > goal else ""
            print(
                f"| `{statement}` | {spent:.1f} | {modules} | {'-' if goal is None else goal}{missed} |"
            )


if __name__ == "__main__":
    main()
