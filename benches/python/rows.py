"""Measures headrace beside code by hand, all rows of it, and keeps the results.

make bench                      all of it, into benches/results/, and the tables that are made out of them
make bench ARGS=--quick         a look in less time, which is kept nowhere
python benches/python/floor.py  one group; --only 'a part of a name' for one row
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import concurrent_map
import floor
import imports
import limiter
import lines
import merge
import pool
import push
import queues
from harness import machine, measure, print_table

GROUPS: dict[str, Any] = {
    module.__name__: module
    for module in (floor, push, lines, queues, limiter, merge, concurrent_map, pool, imports)
}
RESULTS = Path(__file__).parents[1] / "results"


def name() -> str:
    """A name for this machine that stays: the system, the processor, the interpreter."""
    processor = re.sub(r"[^a-z0-9]+", "-", machine().split(", ")[1].lower()).strip("-")
    version = "{}.{}".format(*sys.version_info)
    return f"{sys.platform}-{platform.machine()}-{processor}-cpython-{version}{sys.abiflags}"


def measured(group: str, repetitions: int) -> list[dict[str, Any]]:
    """The rows of one group, printed and to be kept."""
    if group == "imports":
        return [
            {
                "work": f"`{statement}`",
                "ms": round(imports.measure(statement, repetitions)[0], 1),
                "goal": goal,
            }
            for statement, goal in imports.STATEMENTS.items()
        ]
    with tempfile.TemporaryDirectory() as folder:
        cases = lines.cases(folder) if group == "lines" else GROUPS[group].cases()
        results = [measure(case, repetitions) for case in cases]
    print(f"\n{group}: ", end="")
    print_table(results)
    return [result.row() for result in results]


def keep(groups: dict[str, list[dict[str, Any]]], repetitions: int) -> None:
    """Puts groups among the results of this machine, in the place of what they were."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name()}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"groups": {}}
    found = kept["groups"] | {
        group: {"best of": repetitions, "rows": rows} for group, rows in groups.items()
    }
    kept = {
        "machine": machine(),
        "groups": {group: found[group] for group in GROUPS if group in found},
    }
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Measures, prints, and unless only a look was asked for, keeps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(GROUPS)}; else all")
    parser.add_argument("--repetitions", type=int, default=5, help="how often each side runs")
    parser.add_argument("--quick", action="store_true", help="twice each, and kept nowhere")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(
            f"there is no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}"
        )
    repetitions = 2 if options.quick else options.repetitions
    for group in options.groups or GROUPS:
        rows = measured(group, repetitions)
        if not options.quick:
            keep({group: rows}, repetitions)


if __name__ == "__main__":
    main()
