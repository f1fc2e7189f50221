"""Update the tables of the documentation from benches/results/.

`make bench` runs this, and a test checks that pages and results agree. Between a comment and `<!-- end of results -->`:

<!-- results: GROUP -->          the whole table of a group, one for each CPython
<!-- summary: GROUP=PART ... --> headrace and the best of its peers, in the rows whose name contains the part, or in all,
                                for each CPython on which all of these groups were measured
<!-- missed -->                  every row that is above its goal, with its floors
<!-- measured -->                machine and date of the measurement
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from row import misses

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "performance.md"]
MARKED = re.compile(
    r"(<!-- (results|summary|missed|measured)(?:: ([^\n]*?))? -->\n).*?(<!-- end of results -->)",
    re.DOTALL,
)
FLOORS = (
    "sync builtins",
    "sync calls",
    "smallest",
    "bare tasks",
    "a task a node",
    "workers",
    "bare timers",
    "steps in C",
    "with identities",
)
"""Floors: code that does less than any library must."""
NOTHING = "-"

Results = dict[str, Any]


def results() -> list[Results]:
    """Return the latest results for each CPython, the oldest CPython first."""
    found: dict[str, Results] = {}
    files = (ROOT / "benches" / "results").glob("*.json")
    for kept in sorted(
        (json.loads(file.read_text(encoding="utf-8")) for file in files),
        key=lambda kept: (kept["measured"], kept["machine"]),
    ):
        found[kept["python"].rpartition(".")[0]] = kept
    return sorted(
        found.values(), key=lambda kept: [int(part) for part in re.findall(r"\d+", kept["python"])]
    )


def piped(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(answer: dict[str, Any] | None, goal: float | str | None = None) -> str:
    """Format the result of a library, with a star if it misses the goal."""
    if answer is None:
        return NOTHING
    if "ratio" not in answer:
        text = str(answer["answer"])
        return f"{text} *" if isinstance(goal, str) and misses(text, goal) else text
    # Rounded as shown, so that a table never contradicts itself.
    shown = f"{answer['ratio']:.2f}"
    star = " *" if isinstance(goal, float) and float(shown) > goal else ""
    return f"{'~' if answer.get('loose') else ''}{shown}{star}"


def shown_goal(goal: float | str | None) -> str:
    if goal is None:
        return NOTHING
    return f"{goal:.2f}" if isinstance(goal, float) else goal


def head(columns: list[str]) -> str:
    """The first two lines of a table of these libraries."""
    cells = ["work", "by hand", columns[0], "goal", *columns[1:]]
    return piped(cells) + "\n|---|---|" + "--:|" * (len(cells) - 2)


def line(row: dict[str, Any], columns: list[str]) -> str:
    """One row of such a table."""
    cells, goal = row["cells"], row["goal"]
    by_hand = cell(cells.get("by hand"))
    if row.get("ns"):
        by_hand = f"{row['by hand']}, {row['ns']:,.0f} ns"
    first = cell(cells.get(columns[0]), goal if columns[0] == "headrace" else None)
    others = (cell(cells.get(library)) for library in columns[1:])
    return piped([row["work"], by_hand, first, shown_goal(goal), *others])


def columns_of(measured: list[dict[str, Any]]) -> list[str]:
    """The libraries of a group, without those that were absent from all of its rows."""
    known = dict.fromkeys(
        library
        for row in measured
        for library, answer in row["cells"].items()
        if answer.get("answer") != "absent"
    )
    return ["headrace", *(library for library in known if library not in ("headrace", "by hand"))]


def table(group: str) -> str:
    """The whole table of a group, one for each CPython."""
    written = []
    for kept in results():
        if measured := kept["groups"].get(group):
            columns = columns_of(measured)
            lines = [head(columns), *(line(row, columns) for row in measured)]
            written.append(f"{kept['python']}:\n\n" + "\n".join(lines) + "\n")
    return "\n".join(written)


Kept = dict[str, Any] | None
"""Format a row, measured or not."""


def by_work(group: str, machines: list[Results]) -> dict[str, list[Kept]]:
    """The rows of a group by their names, each as it was measured on each CPython."""
    found = [{row["work"]: row for row in kept["groups"].get(group, ())} for kept in machines]
    works = dict.fromkeys(work for rows in found for work in rows)
    return {work: [rows.get(work) for rows in found] for work in works}


def known(rows: list[Kept]) -> dict[str, Any]:
    return next(row for row in rows if row is not None)


def figure(row: Kept) -> str:
    """headrace's, with its goal."""
    if row is None:
        return NOTHING
    shown = cell(row["cells"].get("headrace"), row["goal"])
    star = " *" if shown.endswith(" *") else ""
    return f"{shown.removesuffix(' *')} ({shown_goal(row['goal'])}){star}"


def best_peer(row: Kept, peers: dict[str, str]) -> str:
    """The fastest of the other libraries."""
    ratios = {
        library: answer["ratio"]
        for library, answer in (row["cells"] if row else {}).items()
        if "ratio" in answer and library.split()[0] in peers and library != "headrace"
    }
    if not ratios:
        return NOTHING
    best = min(ratios, key=lambda library: ratios[library])
    return f"{best} {ratios[best]:.2f}"


def floors(row: Kept) -> str:
    cells = row["cells"] if row else {}
    told = [f"{floor} {cell(cells[floor])}" for floor in FLOORS if floor in cells]
    return ", ".join(told) or NOTHING


def summary(wanted: str) -> str:
    """For some rows, the figure of headrace, its goal and the best other library, for each CPython on which all were measured."""
    wants = [want.partition("=") for want in shlex.split(wanted)]
    machines = [kept for kept in results() if all(group in kept["groups"] for group, _, _ in wants)]
    heads = (head for kept in machines for head in (f"{kept['python']} (goal)", "best peer"))
    lines = [piped(["work", "by hand", *heads]), "|---|---|" + "--:|---|" * len(machines)]
    for group, _, part in wants:
        for work, rows in by_work(group, machines).items():
            if part not in work:
                continue
            cells = [work, known(rows).get("by hand", NOTHING)]
            for row, kept in zip(rows, machines, strict=True):
                cells += [figure(row), best_peer(row, kept["versions"])]
            lines.append(piped(cells))
    return "\n".join(lines) + "\n"


def misses_its_goal(row: Kept) -> bool:
    return row is not None and cell(row["cells"].get("headrace"), row["goal"]).endswith("*")


def missed(_: str = "") -> str:
    """Every row that is above its goal on some CPython."""
    machines = results()
    heads = (head for kept in machines for head in (f"{kept['python']} (goal)", "floors"))
    lines = [piped(["work", *heads]), "|---|" + "--:|---|" * len(machines)]
    groups = dict.fromkeys(group for kept in machines for group in kept["groups"])
    for group in groups:
        for work, rows in by_work(group, machines).items():
            if any(map(misses_its_goal, rows)):
                cells = (text for row in rows for text in (figure(row), floors(row)))
                lines.append(piped([work, *cells]))
    return "\n".join(lines) + "\n"


def measured(_: str = "") -> str:
    """Machine and date."""
    lines = []
    for kept in results():
        versions = ", ".join(
            f"{library} {version}" for library, version in kept["versions"].items()
        )
        lines.append(f"- {kept['python']}, {kept['machine']}, {kept['measured']}: {versions}.")
    return "\n".join(lines) + "\n"


MADE: dict[str, Callable[[str], str]] = {
    "results": table,
    "summary": summary,
    "missed": missed,
    "measured": measured,
}


def written(page: str) -> str:
    """Return a page with updated tables."""
    return MARKED.sub(lambda match: match[1] + MADE[match[2]](match[3] or "") + match[4], page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
