"""Write `pictures.md` and the pictures in `pictures/`: a marble diagram of every operator, each drawn from a run.

make docs
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import operators
from marbles import SCENES, Played, draw, play

TARGET = Path(__file__).with_suffix(".md")
FOLDER = Path(__file__).with_suffix("")

HEAD = """\
# Operators in pictures

Each picture is drawn from a run of the code in its box, on a [virtual clock](testing.md):

- A column is a second. The tracks above the box are inputs, those below it outputs.
- A marble is an item, a bar the end, a cross an error. An arrow means that the stream continues.
- A dashed marble is an item that was never pulled.
- Unless a note says otherwise, the consumer pulls the next item immediately.

[The tables](operators.md) compare all operators. To write such a diagram of your own pipeline in a test, see
[Test a pipeline](testing.md#time-as-a-picture).
"""


def pictures() -> dict[str, list[tuple[str, Played]]]:
    """Return, for each operator, the names of its pictures and their runs."""
    found: dict[str, list[tuple[str, Played]]] = defaultdict(list)
    for scene in SCENES:
        of = found[scene.operator]
        name = scene.operator if not of else f"{scene.operator}-{len(of) + 1}"
        of.append((f"{name}.svg", play(scene)))
    return found


def document(drawn: dict[str, list[tuple[str, Played]]]) -> str:
    """Return the page."""
    parts = [HEAD]
    for title, rows in operators.sections():
        shown = [(name, thing) for name, thing in rows if name in drawn]
        if shown:
            parts.append(f"## {title}\n")
        parts += [_entry(name, thing, drawn[name]) for name, thing in shown]
    return "\n".join(parts)


def _entry(name: str, thing: Any, drawn: list[tuple[str, Played]]) -> str:
    said = operators.facts(thing)
    images = "\n\n".join(
        f"![{played.scene.code.replace(chr(10), '')}: {_plain(played.lines())}]({FOLDER.name}/{file})"
        for file, played in drawn
    )
    law = said.get("Law") or said[""]
    return (
        f"### {name}\n\n{operators.called(name, thing)}\n\n{law[0].upper()}{law[1:]}\n\n{images}\n"
    )


def _plain(line: str) -> str:
    """Escape a marble string for an image text, in which brackets and bars have another meaning."""
    return line.translate({ord(sign): f"\\{sign}" for sign in "[]|*_"})


def write() -> None:
    """Write the page and the pictures, and remove pictures that are no longer drawn."""
    drawn = pictures()
    TARGET.write_text(document(drawn), encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    svgs = {file: draw(played) for of in drawn.values() for file, played in of}
    for stale in FOLDER.glob("*.svg"):
        if stale.name not in svgs:
            stale.unlink()
    for file, svg in svgs.items():
        (FOLDER / file).write_text(svg, encoding="utf-8")
    print(f"{TARGET.name}: {len(svgs)} pictures of {len(drawn)} operators")


if __name__ == "__main__":
    write()
