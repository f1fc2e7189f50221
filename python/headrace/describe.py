"""What a pipeline is made of and how each part stands, as text and as a Mermaid flowchart.

A pipeline is walked from the object that is asked: a pull stream up to its sources, a push object down to its sinks, and a
bridge both ways. Nothing is asked of a link but what it tells of itself in its `repr`, and what it pulls from or pushes
into. The walk is a loop over a stack of its own, since a line may have 10,000 links.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

import headrace._core as _core
from headrace._internal.reprs import describe_value, short_repr
from headrace.bridge import PushPullObj

if TYPE_CHECKING:
    from collections.abc import Iterator

Format: TypeAlias = Literal["text", "mermaid"]
"""How a pipeline is written."""

# How far branches are indented at most; what is deeper is told below, by its number. Without a limit, a text of branches
# in branches would grow with the square of their number.
_DEEPEST = 16

# What has a meaning in Mermaid, also inside quotes; `#` first, since it begins what stands for the others.
_ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"}


class _Edge(NamedTuple):
    """From one link to the next, away from where the walk began."""

    label: str
    """The label of a source or sink, or nothing."""
    link: Any
    is_up: bool
    """Whether items come from there."""


class _Node:
    """A link, as it was when the walk came by."""

    __slots__ = ("edges", "line", "name", "seen")

    def __init__(self, link: object) -> None:
        self.line = _line(link)
        self.name = type(link).__name__
        self.edges = list(_edges(link)) if _is_ours(link) else []
        self.seen = 0
        """How often it was met."""


def describe(link: object, form: Format) -> str:
    """A pipeline, from one of its objects on.

    Raises:
        ValueError: `form` is neither of the two.
    """
    _check(form)
    nodes = _walk(link)
    return _text(link, nodes) if form == "text" else _mermaid(nodes)


def recipe(names: list[str], form: Format) -> str:
    """A line that is not made yet, by the names of its classes from its top.

    Raises:
        ValueError: `form` is neither of the two.
    """
    _check(form)
    if form == "text":
        return "\n".join(names) or "nothing yet"
    return draw(names, [(number, number + 1, "") for number in range(len(names) - 1)])


def draw(lines: list[str], arrows: list[tuple[int, int, str]]) -> str:
    """A flowchart of boxes, and of arrows between them by number, each with its label."""
    written = ["flowchart LR"]
    written += [f'    n{number}["{_escaped(line)}"]' for number, line in enumerate(lines)]
    for start, end, label in arrows:
        text = f'|"{_escaped(label)}"|' if label else ""
        written.append(f"    n{start} -->{text} n{end}")
    return "\n".join(written)


def _check(form: str) -> None:
    if form not in ("text", "mermaid"):
        raise ValueError(f'format must be "text" or "mermaid", got {describe_value(form)}')


def _walk(first: object) -> dict[int, _Node]:
    """Every link once, by its identity; the edges keep the links alive, so that no identity is used again."""
    nodes: dict[int, _Node] = {}
    stack = [first]
    while stack:
        link = stack.pop()
        node = nodes.get(id(link))
        if node is None:
            nodes[id(link)] = node = _Node(link)
            stack += [edge.link for edge in reversed(node.edges)]
        node.seen += 1
    return nodes


def _edges(link: Any) -> Iterator[_Edge]:
    """What a link pulls from and pushes into. What is no link of ours is where a pipeline ends."""
    is_pull = _is_pull(link)
    if is_pull or _is_pair(link):
        found = list(_named(link, "sources", "source"))
        if is_pull and not found:
            above = _core.upstream(link)
            found = [] if above is None else [("", above)]
        yield from (_Edge(label, source, True) for label, source in found)
    # A source may have a `sink` where its own items go in; a bridge has `sinks`, where those go that come out.
    found = list(_named(link, "sinks", "sinks" if is_pull else "sink"))
    yield from (_Edge(label, sink, False) for label, sink in found)


def _named(link: object, several: str, one: str) -> Iterator[tuple[str, Any]]:
    """The neighbours that a link shows under one of two names, with their labels."""
    try:
        found: Any = getattr(link, several, None)
        if isinstance(found, Mapping):
            labelled = cast("Mapping[object, Any]", found)
            yield from [(short_repr(label), each) for label, each in labelled.items()]
        elif isinstance(found, Sequence) and not isinstance(found, (str, bytes)):
            yield from [("", each) for each in cast("Sequence[object]", found)]
        elif (single := getattr(link, one, None)) is not None:
            yield "", single
    except Exception:
        # One that is not wholly made, or somebody else's: it is told of all the same.
        return


def _is_pull(link: object) -> bool:
    return isinstance(link, _core.PullLink)


def _is_pair(link: object) -> bool:
    return isinstance(link, PushPullObj)


def _is_ours(link: object) -> bool:
    return _is_pull(link) or isinstance(link, _core.PushLink) or _is_pair(link)


def _line(link: object) -> str:
    """What a link tells of itself; of what is none of ours its class."""
    if not _is_ours(link):
        return type(link).__name__
    try:
        text = " ".join(repr(link).split())
    except Exception:
        return type(link).__name__
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


def _text(first: object, nodes: dict[int, _Node]) -> str:
    """A line a link; what has one neighbour stands right above it, what has several is indented."""
    numbers: dict[int, int] = {}
    lines: list[str] = []
    told: set[int] = set()
    below: deque[object] = deque([first])
    while below:
        # A link, what its line begins with, and what the lines of those beyond it do.
        start = below.popleft()
        # Another link that it is a neighbour of may have told of it meanwhile.
        stack: list[tuple[object, str, str]] = [] if id(start) in told else [(start, "", "")]
        while stack:
            link, lead, indent = stack.pop()
            key = id(link)
            node = nodes[key]
            if key in told:
                lines.append(f"{lead}#{numbers[key]} again: {node.name}")
                continue
            is_deep = len(indent) > 4 * _DEEPEST and bool(node.edges)
            if node.seen > 1 or is_deep or key in numbers:
                number = numbers.setdefault(key, len(numbers) + 1)
                lead = f"{lead}#{number} "
            if is_deep:
                lines.append(f"{lead}below: {node.name}")
                below.append(link)
                continue
            told.add(key)
            lines.append(lead + node.line)
            stack += reversed(_beyond(node, indent, is_bridge=_is_pull(link)))
    return "\n".join(lines)


def _beyond(node: _Node, indent: str, *, is_bridge: bool) -> list[tuple[object, str, str]]:
    """The neighbours of a link, with the beginnings of their lines."""
    if len(node.edges) == 1 and not node.edges[0].label:
        return [(node.edges[0].link, indent, indent)]
    found: list[tuple[object, str, str]] = []
    for label, link, is_up in node.edges:
        into = "into " if is_bridge and not is_up else ""
        name = f"{label}: " if label else ""
        found.append((link, f"{indent}  - {into}{name}", f"{indent}    "))
    return found


def _mermaid(nodes: dict[int, _Node]) -> str:
    """Every link is a box, and items go along the arrows."""
    numbers = {key: number for number, key in enumerate(nodes)}
    arrows: list[tuple[int, int, str]] = []
    for key, node in nodes.items():
        for label, link, is_up in node.edges:
            here, there = numbers[key], numbers[id(link)]
            arrows.append((there, here, label) if is_up else (here, there, label))
    return draw([node.line for node in nodes.values()], arrows)


def _escaped(text: str) -> str:
    return "".join(_ENTITIES.get(character, character) for character in text)
