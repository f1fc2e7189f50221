"""Prints the tables of docs/benchmarks.md, one a file in `rows/`.

    make bench-peers ARGS='--only pipeline'

Each library has a process of its own for each row. A ratio is to the code by hand, timed in turn with it in that process;
processes are started until two of them agree within 10%, and the cell is the mean of those two.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import pkgutil
import signal
import statistics
import subprocess
import sys
from importlib import metadata
from typing import Any

from harness import machine

from peers import rows
from peers.row import Group, Probe, Work

AGREEMENT = 0.10
PROCESSES = 6
PATIENCE = 60
"""Seconds after which a process counts as hanging."""

NO_CELL = "-"


def ask(group: str, row: str, library: str, options: list[str]) -> dict[str, Any]:
    """What a process of its own says about one cell."""
    command = [sys.executable, "-m", "peers.measure", group, row, library, *options]
    try:
        ran = subprocess.run(  # noqa: S603  (it is this program)
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {"answer": "hangs"}
    if ran.returncode < 0:
        return {"answer": f"dies of {signal.Signals(-ran.returncode).name}"}
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{ran.stderr}")
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer


def settled(group: str, row: str, library: str, options: list[str]) -> dict[str, Any]:
    """The ratio that two processes agree on; the median, marked, if none do."""
    answers: list[dict[str, Any]] = []
    while len(answers) < PROCESSES:
        answer = ask(group, row, library, options)
        if "ratio" not in answer:
            return answer
        answers.append(answer)
        ratios = sorted(answer["ratio"] for answer in answers)
        for low, high in itertools.pairwise(ratios):
            if high <= low * (1 + AGREEMENT):
                best = min(answer["by_hand"] for answer in answers)
                return {"by_hand": best, "ratio": (low + high) / 2}
    best = min(answer["by_hand"] for answer in answers)
    return {"by_hand": best, "ratio": statistics.median(ratios), "loose": True}


def cell(answer: dict[str, Any], goal: float | None) -> str:
    if "ratio" not in answer:
        return str(answer["answer"])
    text = f"{'~' if answer.get('loose') else ''}{answer['ratio']:.2f}"
    # As it is shown, so that a table never contradicts itself.
    return f"{text} *" if goal is not None and round(answer["ratio"], 2) > goal else text


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def timed_row(group: str, row: Work, libraries: list[str], options: list[str]) -> str:
    answers = {
        library: settled(group, row.name, library, options)
        for library in libraries
        if library in row.libraries
    }
    by_hand = min(answer.get("by_hand", float("inf")) for answer in answers.values())
    goal = row.goal.here if row.goal else None
    cells = {
        library: cell(answer, goal if library == "headrace" else None)
        for library, answer in answers.items()
    }
    return line(
        [
            row.name,
            f"{by_hand:.0f} ns",
            cells.get("headrace", NO_CELL),
            NO_CELL if goal is None else f"{goal:.2f}",
            *(cells.get(library, NO_CELL) for library in libraries[1:]),
        ]
    )


def probed_row(group: str, row: Probe, libraries: list[str]) -> str:
    answers = (
        cell(ask(group, row.name, library, []), None) if library in row.libraries else NO_CELL
        for library in libraries
    )
    first, *others = answers
    return line([row.name, first, row.right, *others])


def print_group(name: str, group: Group, options: list[str]) -> None:
    """One table in Markdown, line by line as it is measured."""
    known = dict.fromkeys(library for row in group.rows for library in row.libraries)
    libraries = ["headrace", *(library for library in known if library != "headrace")]
    is_timed = isinstance(group.rows[0], Work)
    head = ["work", *(["by hand"] if is_timed else []), "headrace", "goal", *libraries[1:]]
    print(f"### {group.title}\n\n{group.text}\n")
    print(line(head))
    print("|".join(["", "---", *("--:" for _ in head[1:]), ""]))
    for row in group.rows:
        if isinstance(row, Work):
            print(timed_row(name, row, libraries, options), flush=True)
        else:
            print(probed_row(name, row, libraries), flush=True)
    print(flush=True)


def versions(groups: list[Group]) -> str:
    """The libraries that are measured, as they are installed."""
    found = {}
    named = {library for group in groups for row in group.rows for library in row.libraries}
    # Of two things of one library, such as a semaphore and a limiter, it is the first word.
    for library in {name.split()[0] for name in named}:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:  # what one writes without a library
            continue
    return ", ".join(f"{library} {version}" for library, version in sorted(found.items()))


def main() -> None:
    names = [module.name for module in pkgutil.iter_modules(rows.__path__)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="these groups")
    parser.add_argument("--repetitions", type=int, default=5, help="runs of a side (5)")
    parser.add_argument(
        "--seconds", type=float, default=0.04, help="length of a run, at most (0.04)"
    )
    options = parser.parse_args()
    groups = {name: importlib.import_module(f"peers.rows.{name}").GROUP for name in options.only}
    print(f"{machine()}; {versions(list(groups.values()))}.\n", flush=True)
    # Those that are timed come first, since the others are read for their words.
    in_order = sorted(groups.items(), key=lambda named: isinstance(named[1].rows[0], Probe))
    passed_on = [f"--repetitions={options.repetitions}", f"--seconds={options.seconds}"]
    for name, group in in_order:
        print_group(name, group, passed_on)


if __name__ == "__main__":
    main()
