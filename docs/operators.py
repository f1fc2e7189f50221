"""Write `operators.md`: the table of all operators, from their docstrings.

make docs
"""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import headrace
from headrace import PullObj
from marbles import SCENES

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).with_name("operators.md")

HEAD = """\
# The operators

The tables list every operator with its law (the result that it yields), order, bound, cost and cancel safety. Each name links to
[its picture](pictures.md). For arguments and errors, read the docstrings, from which the tables are generated: `help(headrace.PullMapObj)`.

An operator is a class over its source, `PullMapObj(source, ...)`. Most are a method too, with the same arguments: `source.map(...)`.
"""

# The titles of the sections in reading order, by the module that defines the classes.
SECTIONS = {
    "pull.source": "Sources",
    "pull.transform": "One item out for one in, or none",
    "pull.slicing": "Parts of a stream",
    "pull.batching": "Batches",
    "pull.flattening": "Items of items",
    "pull.gate": "With a signal",
    "pull.limit": "Under a capacity",
    "pool.map_pool": "As tasks of a pool",
    "pull.prefetch": "With a task of their own",
    "pull.timing": "With time",
    "pull.merge": "Many to one",
    "pull.labeled": "Many to one, with labels",
    "buffer": "The queue between push and pull",
    "bridge": "Between pull and push",
    "graph.sources": "Sources for a pool",
    "journal.replay": "Out of a journal",
    "journal.sink": "Sinks into a journal",
    "push.sink": "Sinks",
    "push.writer": "Sinks into files",
    "push.transform": "Push: one item out for one in, or none",
    "push.slicing": "Push: parts of a stream",
    "push.batching": "Push: batches",
    "push.flattening": "Push: items of items",
    "push.signal": "Push: with a signal",
    "push.limit": "Push: under a capacity",
    "push.timing": "Push: with time",
    "push.fanout": "Push: one to many",
}
PICTURED = {scene.operator for scene in SCENES}
LINES = ("Law", "Order", "Bound", "Cost", "Cancel safety")
METHODS = {
    "One stream, several readers": ("tee",),
    "To the end of a stream": ("collect", "count", "first", "for_each", "reduce", "drain_to"),
}


def facts(thing: Any) -> dict[str, str]:
    """Return the lines of a docstring that begin with one of `LINES`, and its first paragraph as `""`."""
    text = inspect.getdoc(thing) or ""
    body = re.split(r"^(?:Args|Raises):$", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = {"": " ".join(body.split("\n\n")[0].split())}
    pattern = rf"(?:^|(?<=[.`)\]]) )({'|'.join(LINES)}): (.*?)(?=\s(?:{'|'.join(LINES)}): |\n\n|\Z)"
    for name, said in re.findall(pattern, body, flags=re.MULTILINE | re.DOTALL):
        found.setdefault(name, " ".join(said.split()))
    return found


def link(name: str, thing: Any) -> str:
    """Return the names of the class and its method, with a link to the picture if there is one."""
    method = fluent().get(name) if inspect.isclass(thing) else name
    shown = f"[`{name}`](pictures.md#{name.lower()})" if name in PICTURED else f"`{name}`"
    if not inspect.isclass(thing):
        return shown.replace("`", "`.", 1)
    return f"{shown} `.{method}`" if method else shown


def table(rows: list[tuple[str, Any]]) -> str:
    """Return a table of the objects, by their names."""
    lines = ["| name | law | order | bound | cost | cancel safety |", "|---|---|---|---|---|---|"]
    for name, thing in rows:
        said = facts(thing)
        cells = [said.get("Law") or said[""], *(said.get(line, "") for line in LINES[1:])]
        lines.append(
            f"| {link(name, thing)} | "
            + " | ".join(cell.replace("|", "\\|") for cell in cells)
            + " |"
        )
    return "\n".join(lines) + "\n"


def signature(thing: Any) -> str:
    """Return the parameters without types; `...` marks a default without a name."""
    plain = inspect.signature(thing)
    parameters = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=default
            if isinstance(default, (type(None), bool, int, float, str, tuple))
            or default is inspect.Parameter.empty
            else ...,
        )
        for parameter in plain.parameters.values()
        if parameter.name != "self"
        for default in [cast("object", parameter.default)]
    ]
    written = str(plain.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return written.replace("Ellipsis", "...").replace("'", '"')


def fluent() -> dict[str, str]:
    """Return the fluent method that creates each class."""
    made: dict[str, str] = {}
    for name, method in inspect.getmembers(PullObj, inspect.isfunction):
        if not name.startswith("_"):
            for kind in re.findall(r"see `(\w+)`", method.__doc__ or ""):
                made[kind] = name
    return made


def sections() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Return the sections, each with its operators by name: classes, and methods without a class."""
    public = [getattr(headrace, name) for name in import_module("headrace").__all__]
    for module, title in SECTIONS.items():
        classes = [
            (thing.__name__, thing)
            for thing in public
            if inspect.isclass(thing) and thing.__module__ == f"headrace.{module}"
        ]
        if rows := [(name, kind) for name, kind in classes if "Law" in facts(kind)]:
            yield title, rows
    for title, names in METHODS.items():
        yield title, [(name, getattr(PullObj, name)) for name in names]


def called(name: str, thing: Any) -> str:
    """Return how to create an operator: by its class and by its method."""
    if not inspect.isclass(thing):
        return f"`.{name}{signature(thing)}`"
    method = fluent().get(name)
    as_method = f" / `.{method}{signature(getattr(PullObj, method))}`" if method else ""
    return f"`{name}{signature(thing)}`{as_method}"


def document() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(f"## {title}\n\n{table(rows)}" for title, rows in sections())])


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
    print(textwrap.shorten(f"{TARGET.name}: {len(document().splitlines())} lines", 100))
