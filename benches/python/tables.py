"""Writes the tables of the README and of the documentation anew, out of benches/results/.

A table stands between `<!-- results: GROUP ... -->` and `<!-- end of results -->`; behind a group a part of a row's name may
stand, `pool="a turn"`, for those rows alone. `make bench` runs this, and a test says when a page and the results differ.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmarks.md"]
MARKED = re.compile(r"(<!-- results: (.*?) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def results() -> list[dict[str, Any]]:
    """What was measured, a machine each."""
    files = sorted((ROOT / "benches" / "results").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def cell(row: dict[str, Any] | None) -> str:
    """The figure of a row, with a star where it missed its goal; a dash where it was not measured."""
    if row is None:
        return "-"
    figure = row["ms"] if "ms" in row else row["ratio"]
    missed = row["goal"] is not None and figure > row["goal"]
    return (f"{figure:.1f} ms" if "ms" in row else f"{figure:.2f}") + " *" * missed


def table(wanted: str) -> str:
    """A table of the groups, or of some of their rows, with a column for each machine."""
    machines = results()
    found: dict[str, dict[str, Any]] = {}
    columns: list[dict[str, Any]] = [{} for _ in machines]
    for want in shlex.split(wanted):
        group, _, part = want.partition("=")
        for machine, column in zip(machines, columns, strict=True):
            for row in machine["groups"].get(group, {}).get("rows", ()):
                if part in row["work"]:
                    found.setdefault(row["work"], row)
                    column[row["work"]] = row
    heads = [machine["machine"].split(",")[0] for machine in machines]
    lines = ["| work | by hand | goal | " + " | ".join(heads) + " |"]
    lines.append("|---|---|--:|" + "--:|" * len(heads))
    for work, row in found.items():
        goal = (
            "-"
            if row["goal"] is None
            else f"{row['goal']:g} ms"
            if "ms" in row
            else f"{row['goal']:.2f}"
        )
        cells = " | ".join(cell(column.get(work)) for column in columns)
        lines.append(f"| {work} | {row.get('by hand', '-')} | {goal} | {cells} |")
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """A page with its tables as the results have them."""
    return MARKED.sub(lambda match: match[1] + table(match[2]) + match[3], page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
