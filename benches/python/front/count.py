"""Count the programs of this folder, and write the table of `docs/map.md`: `python benches/python/front/count.py`.

A line is one of the body of a program that is not blank. A concept is a name of a library or of asyncio that its reader must know: an
imported function or class, a method, or a keyword argument.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "map.md"
MARKED = re.compile(r"(<!-- programs -->\n).*?(<!-- end of programs -->)", re.DOTALL)
LIBRARIES = {
    "headrace": "headrace",
    "streamable": "streamable",
    "aiometer": "aiometer",
    "asyncio": "asyncio, tenacity",
}
PROGRAMS = {
    "first": "the first program: 20 at once, two retries, results in order",
    "rate_limit": "at most 6,000 calls a minute",
    "retry": "three retries of a `ConnectionError`, with back-off",
    "progress": "a bar that shows the progress",
    "streaming": "results as the calls end",
    "errors_returned": "errors among the results",
}


class Concepts(ast.NodeVisitor):
    """Collects the concepts of a program.

    Args:
        imported: the names of the module that libraries define.
    """

    def __init__(self, imported: set[str]) -> None:
        self.names: set[str] = set()
        self._imported = imported

    def visit_Name(self, node: ast.Name) -> None:
        """Collect an imported function or class."""
        if node.id in self._imported:
            self.names.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Collect a method, or a name of an imported module, which is no concept by itself."""
        self.names.add(node.attr)
        if not isinstance(node.value, ast.Name):
            self.visit(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        """Collect an option."""
        if node.arg is not None:
            self.names.add(node.arg)
        self.visit(node.value)


def count(library: str, program: str) -> tuple[int, int]:
    """Return the lines and the concepts of a program."""
    text = (Path(__file__).parent / f"with_{library}.py").read_text(encoding="utf-8")
    module = ast.parse(text)
    imported = {
        alias.asname or alias.name
        for node in module.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and getattr(node, "module", "") != "front.job"
        for alias in node.names
    }
    function = next(
        node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == program
    )
    lines = text.splitlines()[function.lineno : function.end_lineno]
    concepts = Concepts(imported)
    for statement in function.body:
        concepts.visit(statement)
    return sum(1 for line in lines if line.strip()), len(concepts.names)


def table() -> str:
    """Return the table of all programs."""
    rows = [f"| program | {' | '.join(LIBRARIES.values())} |", "|---|" + "--:|" * len(LIBRARIES)]
    for program, title in PROGRAMS.items():
        counts = (count(library, program) for library in LIBRARIES)
        cells = " | ".join(f"{lines} ({concepts})" for lines, concepts in counts)
        rows.append(f"| {title} | {cells} |")
    return "\n".join(rows) + "\n"


def written(text: str) -> str:
    """Return a page with the current table."""
    return MARKED.sub(lambda found: f"{found[1]}{table()}{found[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
