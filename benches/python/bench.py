"""Measure headrace against code by hand, other libraries and the limits of the interpreter, and store the results.

make bench                                   measure all, store in benches/results/, and update the tables
make bench ARGS=--quick                      measure quickly; nothing is stored
python benches/python/bench.py pool queues   measure these groups, one per file in `rows/`
python benches/python/bench.py --only '3 stages' --library headrace    some rows of some libraries; nothing is stored

Each row of each library is measured in its own process. A ratio is relative to code by hand, timed alternately in the
same process. Processes are started until two agree within 10%, and the cell is their mean; `~` marks the median of six
that did not agree. A library that is not installed is reported as absent.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import itertools
import json
import os
import pkgutil
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import rows
import tables
from row import Group, Probe, Row, Work

RESULTS = Path(__file__).parents[1] / "results"

AGREEMENT = 0.10
PROCESSES = 6
PATIENCE = 120
"""The timeout of a process in seconds."""

# Timed rows first.
GROUPS: dict[str, Group] = dict(
    sorted(
        (
            (module.name, importlib.import_module(f"rows.{module.name}").GROUP)
            for module in pkgutil.iter_modules(rows.__path__)
        ),
        key=lambda named: isinstance(named[1][0], Probe),
    )
)


def processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def file_name() -> str:
    """A stable name of this machine: system, processor, interpreter."""
    model = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    version = "{}.{}".format(*sys.version_info)
    return f"{sys.platform}-{platform.machine()}-{model}-cpython-{version}{sys.abiflags}.json"


def libraries(group: Group) -> list[str]:
    """All libraries measured in a group, headrace first."""
    known = dict.fromkeys(library for row in group for library in row.libraries)
    return ["headrace", *(library for library in known if library != "headrace")]


def versions() -> dict[str, str]:
    """The installed versions of the measured libraries."""
    found = {}
    named = {library for group in GROUPS.values() for library in libraries(group)}
    # For several entries of one library, such as a semaphore and a limiter, the first word is its name.
    for library in sorted({name.split()[0] for name in named}):
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:  # absent, or no library at all
            continue
    return found


class Bench:
    """The selection and precision of a measurement."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.only: str = options.only
        self.wanted: list[str] = options.library
        self.processes = 1 if options.quick else PROCESSES
        self._passed_on = (
            ["--repetitions=2", "--seconds=0.01"]
            if options.quick
            else [f"--repetitions={options.repetitions}", f"--seconds={options.seconds}"]
        )
        self._absent: set[str] = set()
        """Libraries that are known to be absent."""

    def group(self, name: str) -> list[dict[str, Any]]:
        """The rows of one group, printed one by one and returned for storage."""
        columns = [one for one in libraries(GROUPS[name]) if not self.wanted or one in self.wanted]
        asked = [row for row in GROUPS[name] if self.only in row.name]
        shown = [one for one in columns if one != "by hand"]
        if asked:
            print(f"\n{name}\n\n{tables.head(shown)}", flush=True)
        measured = []
        for row in asked:
            found = self._row(name, row, [one for one in columns if one in row.libraries])
            print(tables.line(found, shown), flush=True)
            measured.append(found)
        return measured

    def _row(self, group: str, row: Row, columns: list[str]) -> dict[str, Any]:
        if isinstance(row, Work):
            answers = {library: self._settled(group, row.name, library) for library in columns}
            times = [answer.pop("by_hand") for answer in answers.values() if "ratio" in answer]
            return {
                "work": row.name,
                "by hand": row.baseline,
                "ns": round(min(times), 1) if times else None,
                "goal": row.goal and row.goal.here,
                "cells": answers,
            }
        # Most of these rows wait for fixed times.
        with ThreadPoolExecutor(1 if row.is_alone else 2 * (os.cpu_count() or 1)) as pool:
            found = pool.map(lambda library: self._asked(group, row.name, library), columns)
            answers = dict(zip(columns, found, strict=True))
        return {"work": row.name, "goal": row.right, "cells": answers}

    def _asked(self, group: str, row: str, library: str) -> dict[str, Any]:
        """Measure one cell in its own process."""
        if library in self._absent:
            return {"answer": "absent"}
        program = Path(__file__).with_name("measure.py")
        command = [sys.executable, str(program), group, row, library, *self._passed_on]
        try:
            ran = subprocess.run(  # noqa: S603  (it is our own)
                command, capture_output=True, text=True, check=False, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return {"answer": "hangs"}
        if ran.returncode < 0:
            return {"answer": f"dies of {signal.Signals(-ran.returncode).name}"}
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{ran.stderr}")
        answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        if answer.get("answer") == "absent":
            self._absent.add(library)
        return answer

    def _settled(self, group: str, row: str, library: str) -> dict[str, Any]:
        """The ratio on which two processes agree; otherwise the marked median."""
        answers: list[dict[str, Any]] = []
        while True:
            answer = self._asked(group, row, library)
            if "ratio" not in answer:
                return answer
            answers.append(answer)
            by_hand = min(answer["by_hand"] for answer in answers)
            ratios = sorted(answer["ratio"] for answer in answers)
            for low, high in itertools.pairwise(ratios):
                if high <= low * (1 + AGREEMENT):
                    return {"by_hand": by_hand, "ratio": round((low + high) / 2, 3)}
            if len(answers) >= self.processes:
                median = {"by_hand": by_hand, "ratio": round(statistics.median(ratios), 3)}
                return median if self.processes == 1 else median | {"loose": True}


def keep(name: str, measured: list[dict[str, Any]]) -> Path:
    """Replace a group in the results of this machine."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / file_name()
    found = json.loads(file.read_text(encoding="utf-8"))["groups"] if file.exists() else {}
    found[name] = measured
    kept = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{processor()}, {os.cpu_count()} cores, {sys.platform}",
        "measured": dt.datetime.now(dt.UTC).date().isoformat(),
        "versions": versions(),
        "groups": {group: found[group] for group in GROUPS if group in found},
    }
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(GROUPS)}; else all")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--library", action="append", default=[], help="this one; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="one process a cell, and two short runs of each side"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="runs of a side (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=0.04, help="length of a run, at most (%(default)s)"
    )
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        there = ", ".join(GROUPS)
        parser.error(f"there is no group {', '.join(sorted(unknown))}; there are {there}")
    begun = time.monotonic()
    bench = Bench(options)
    told = ", ".join(f"{library} {version}" for library, version in versions().items())
    print(f"CPython {platform.python_version()}, {processor()}; {told}.", flush=True)
    is_part = options.quick or options.only or options.library
    kept = None
    for name in options.groups or GROUPS:
        measured = bench.group(name)
        if not is_part:
            kept = keep(name, measured)
    print(f"\n{time.monotonic() - begun:.0f} s; kept in {kept or 'no file'}.")


if __name__ == "__main__":
    main()
