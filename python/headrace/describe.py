"""Descriptions of pipelines: their links and the state of each, as text or as a Mermaid flowchart.

`PullObj.describe()`, `PushObj.describe()` and `PushChain.describe()` call it.

A pipeline is walked from the described object: a pull stream up to its sources, a push object down to its sinks, and a
bridge both ways. Only the `repr`, the sources and the sinks of a link are read. The walk is iterative, since a pipeline
may have 10,000 links.
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
"""The format of a description."""

# The maximum indentation of branches; deeper ones are described below, by number. Without a limit, the text of nested
# branches would grow with the square of their number.
_DEEPEST = 16

# The characters with a meaning in Mermaid, also inside quotes.
_ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"}


class _Edge(NamedTuple):
    """An edge from one link to the next, away from the start of the walk."""

    label: str
    """The label of a source or sink, or an empty string."""
    link: Any
    is_up: bool
    """Whether items flow from that link to this one."""


class _Node:
    """A link, as it was when the walk reached it."""

    __slots__ = ("edges", "line", "name", "seen")

    def __init__(self, link: object) -> None:
        self.line = _line(link)
        self.name = type(link).__name__
        self.edges = list(_edges(link)) if _is_ours(link) else []
        self.seen = 0
        """The number of times that the walk reached it."""


def describe(link: object, form: Format) -> str:
    """Describe a pipeline, starting from one of its objects.

    Raises:
        ValueError: `form` is neither of the two.
    """
    _check(form)
    nodes = _walk(link)
    return _text(link, nodes) if form == "text" else draw(*_graph(nodes))


def recipe(names: list[str], form: Format) -> str:
    """Describe a pipeline that is not built yet, by the names of its classes from its top.

    Raises:
        ValueError: `form` is neither of the two.
    """
    _check(form)
    if form == "text":
        return "\n".join(names) or "nothing yet"
    return draw(names, [(number, number + 1, "") for number in range(len(names) - 1)])


def draw(lines: list[str], arrows: list[tuple[int, int, str]]) -> str:
    """Draw a flowchart of boxes and of labelled arrows between them, by number."""
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
    """Return every link once, by its identity; the edges keep the links alive, so that no identity is reused."""
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
    """Iterate over the sources and sinks of a link. A pipeline ends at foreign objects."""
    is_pull = _is_pull(link)
    if is_pull or _is_pair(link):
        found = list(_named(link, "sources", "source"))
        if is_pull and not found:
            above = _core.upstream(link)
            found = [] if above is None else [("", above)]
        yield from (_Edge(label, source, True) for label, source in found)
    # The `sink` of a source receives its own input; the `sinks` of a bridge receive its output.
    found = list(_named(link, "sinks", "sinks" if is_pull else "sink"))
    yield from (_Edge(label, sink, False) for label, sink in found)


def _named(link: object, several: str, one: str) -> Iterator[tuple[str, Any]]:
    """Iterate over the neighbours that a link has under one of two attribute names, with their labels."""
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
        # A partly constructed or foreign object: it is still described.
        return


def _is_pull(link: object) -> bool:
    return isinstance(link, _core.PullLink)


def _is_pair(link: object) -> bool:
    return isinstance(link, PushPullObj)


def _is_ours(link: object) -> bool:
    return _is_pull(link) or isinstance(link, _core.PushLink) or _is_pair(link)


def _line(link: object) -> str:
    """Return the `repr` of a link on one line; of a foreign object, its class."""
    if not _is_ours(link):
        return type(link).__name__
    try:
        text = " ".join(repr(link).split())
    except Exception:
        return type(link).__name__
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


def _text(first: object, nodes: dict[int, _Node]) -> str:
    """Write one line per link; a single neighbour follows directly, several neighbours are indented."""
    numbers: dict[int, int] = {}
    lines: list[str] = []
    described: set[int] = set()
    below: deque[object] = deque([first])
    while below:
        # A link, the prefix of its line, and the prefix of the lines of its neighbours.
        start = below.popleft()
        # It may have been described meanwhile, as the neighbour of another link.
        stack: list[tuple[object, str, str]] = [] if id(start) in described else [(start, "", "")]
        while stack:
            link, lead, indent = stack.pop()
            key = id(link)
            node = nodes[key]
            if key in described:
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
            described.add(key)
            lines.append(lead + node.line)
            stack += reversed(_neighbours(node, indent, is_bridge=_is_pull(link)))
    return "\n".join(lines)


def _neighbours(node: _Node, indent: str, *, is_bridge: bool) -> list[tuple[object, str, str]]:
    """Return the neighbours of a link, with the prefixes of their lines."""
    if len(node.edges) == 1 and not node.edges[0].label:
        return [(node.edges[0].link, indent, indent)]
    found: list[tuple[object, str, str]] = []
    for label, link, is_up in node.edges:
        into = "into " if is_bridge and not is_up else ""
        name = f"{label}: " if label else ""
        found.append((link, f"{indent}  - {into}{name}", f"{indent}    "))
    return found


def graph(link: object) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Return every link as a line, and the labelled arrows between them, by number, in the direction of the items."""
    return _graph(_walk(link))


def _graph(nodes: dict[int, _Node]) -> tuple[list[str], list[tuple[int, int, str]]]:
    numbers = {key: number for number, key in enumerate(nodes)}
    arrows: list[tuple[int, int, str]] = []
    for key, node in nodes.items():
        for label, link, is_up in node.edges:
            here, there = numbers[key], numbers[id(link)]
            arrows.append((there, here, label) if is_up else (here, there, label))
    return [node.line for node in nodes.values()], arrows


def _escaped(text: str) -> str:
    return "".join(_ENTITIES.get(character, character) for character in text)
