"""The display of streams, capacities and runs in notebooks, as HTML without scripts and without files from elsewhere.

`NotebookMixin` calls it. Colors are those of the text around it, so that it is readable in light and dark themes.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import short_repr
from headrace.capacity.limits import AdaptiveLimit, Budget, Rate
from headrace.capacity.node import CapacitySource
from headrace.describe import describe, draw, graph
from headrace.pool.map_pool import PullMapPoolObj
from headrace.pool.progress import TaskRun
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.pool.snapshot import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.capacity.snapshot import CapacitySnapshot
    from headrace.pool.snapshot import PoolSnapshot

MOST_BOXES = 60
"""The maximum number of links that are drawn. A longer pipeline is shown as text."""

MOST_NODES = 200
"""The maximum number of nodes of a tree that are shown."""

# The size of boxes in pixels, for a font whose characters are 7.3 wide.
_CHARACTER, _HEIGHT, _GAP, _ARROW = 7.3, 44, 24, 36


def to_html(shown: Any) -> str:
    """Return the display of an object. One that cannot be read, such as a partly constructed one, is shown by its `repr`."""
    try:
        return "".join(_parts(shown))
    except Exception:
        return _pre(repr(shown))


def _parts(shown: Any) -> Iterator[str]:
    if isinstance(shown, CapacitySource):
        yield _table(_capacity_rows(shown.snapshot()))
    elif isinstance(shown, HierarchicalTaskPoolRunner):
        yield _run(shown.name, shown.snapshot())
    elif isinstance(shown, TaskRun):
        config = shown._run.config  # pyright: ignore[reportPrivateUsage]
        yield _run(config.name, snapshot_of(config))
    else:
        lines, arrows = graph(shown)
        is_small = len(lines) <= MOST_BOXES
        yield flowchart(lines, arrows) if is_small else _pre(describe(shown, "text"))
        if is_small:
            yield f"<details><summary>Mermaid</summary>{_pre(draw(lines, arrows))}</details>"
        if isinstance(shown, PullMapPoolObj):
            yield _run(shown.runner.name, shown.runner.snapshot())


def _pre(text: str) -> str:
    return f'<pre style="max-height:30em;overflow:auto">{escape(text)}</pre>'


# Streams.


def flowchart(lines: list[str], arrows: list[tuple[int, int, str]]) -> str:
    """Draw boxes, and labelled arrows between them, from top to bottom, as an SVG image.

    Each box is in the layer above the first of its targets. In a tree, all arrows thus lead to the next layer.
    """
    texts = [line.partition(": ") for line in lines]
    labels = [(_cut(name), _cut(state)) for name, _, state in texts]
    widths = [max(map(len, label)) * _CHARACTER + 24 for label in labels]
    layers: dict[int, list[int]] = {}
    for number, layer in enumerate(_layers(len(lines), arrows)):
        layers.setdefault(layer, []).append(number)
    rows = [layers[layer] for layer in sorted(layers)]
    spans = [sum(widths[number] + _GAP for number in row) - _GAP for row in rows]
    width, height = max(spans) + 4, len(rows) * (_HEIGHT + _ARROW) - _ARROW + 4
    # The middle of the upper edge of each box.
    places: dict[int, tuple[float, float]] = {}
    for depth, (row, span) in enumerate(zip(rows, spans, strict=True)):
        left = (width - span) / 2
        for number in row:
            places[number] = (left + widths[number] / 2, 2 + depth * (_HEIGHT + _ARROW))
            left += widths[number] + _GAP
    drawn = [_arrow(places[start], places[end], label) for start, end, label in arrows]
    drawn += [
        _box(places[number], widths[number], labels[number], line)
        for number, line in enumerate(lines)
    ]
    return (
        f'<div style="overflow-x:auto"><svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12" text-anchor="middle" '
        f'fill="currentColor" stroke="none">{"".join(drawn)}</svg></div>'
    )


def _layers(count: int, arrows: list[tuple[int, int, str]]) -> list[int]:
    """Return the layer of each box; those of a cycle stay in the first."""
    targets: list[list[int]] = [[] for _ in range(count)]
    sources = [0] * count
    for start, end, _ in arrows:
        targets[start].append(end)
        sources[end] += 1
    order = [number for number in range(count) if not sources[number]]
    layers = [0] * count
    for number in order:
        for end in targets[number]:
            layers[end] = max(layers[end], layers[number] + 1)
            sources[end] -= 1
            if not sources[end]:
                order.append(end)  # the loop goes on with it
    for number in reversed(order):
        if targets[number]:
            layers[number] = min(layers[end] for end in targets[number]) - 1
    return layers


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _box(place: tuple[float, float], width: float, label: tuple[str, str], line: str) -> str:
    (x, y), (name, state) = place, label
    return (
        f'<g><title>{escape(line)}</title><rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{_HEIGHT}" rx="5" fill-opacity="0.07" stroke="currentColor" stroke-opacity="0.5"/>'
        f'<text x="{x:.1f}" y="{y + 18:.1f}" font-weight="bold">{escape(name)}</text>'
        f'<text x="{x:.1f}" y="{y + 35:.1f}" fill-opacity="0.8">{escape(state)}</text></g>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], label: str) -> str:
    (x1, y1), (x2, y2) = start, end
    y1 += _HEIGHT
    middle = (y1 + y2) / 2
    text = ""
    if label:
        # On the side of the curve on which it is further down.
        anchor, shift = ("end", -6) if x2 < x1 else ("start", 6)
        x, y = (x1 + x2) / 2 + shift, middle - (3 if x1 != x2 else -4)
        text = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(_cut(label))}</text>'
    return (
        f'<path d="M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2 - 6:.1f}" '
        f'fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
        f'<path d="M{x2 - 4:.1f} {y2 - 8:.1f}h8l-4 8z" fill-opacity="0.7"/>{text}'
    )


# Capacities and runs.


def _table(rows: Iterable[str]) -> str:
    head = "".join(
        f'<th style="text-align:left">{name}</th>'
        for name in ("capacity", "", "held", "waiting", "state")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _capacity_rows(snapshot: CapacitySnapshot) -> Iterator[str]:
    shown = 0
    left = [(snapshot, 0)]
    while left:
        node, depth = left.pop()
        if shown == MOST_NODES:
            more = 1 + len(left)
            yield f'<tr><td colspan="5">and {more} or more others, in snapshot()</td></tr>'
            return
        shown += 1
        yield from _rows(node.name, node.limit, node.held, node.waiting, _states(node), depth)
        left += [(child, depth + 1) for child in reversed(node.children)]


def _states(node: CapacitySnapshot) -> Iterator[str]:
    if node.closed or node.paused:
        yield "closed" if node.closed else "paused"
    if node.floor:
        yield f"floor {node.floor:g}"
    if (cooldown := node.cooldown) is not None and (cooldown.left or cooldown.window is not None):
        name = "" if cooldown.resource is None else f"{short_repr(cooldown.resource)[1:-1]}: "
        left = f"cooldown, {cooldown.left:.3g} s left" if cooldown.left else "ramps up"
        yield f"{name}{left}"
    if node.breaker is not None:
        yield str(node.breaker)


def _rows(
    name: str | None,
    limits: Mapping[str, Any],
    held: Mapping[str, float],
    waiting: int,
    states: Iterable[str],
    depth: int,
) -> Iterator[str]:
    """Yield a row for each resource of a node."""
    first = [
        f'<td style="text-align:left;padding-left:{0.5 + 1.5 * depth}em">{escape(name or "unnamed")}</td>',
        f"<td>{waiting}</td>",
        f'<td style="text-align:left">{escape(", ".join(states))}</td>',
    ]
    for resource, limit in limits.items():
        whole = limit.start if isinstance(limit, AdaptiveLimit) else getattr(limit, "amount", limit)
        kind = ""
        if isinstance(limit, Rate):
            kind = f" per {limit.per:g} s"
        elif isinstance(limit, Budget):
            kind = " in all"
        amount = held[resource]
        # A bar of a limit of 0 is full if anything is held.
        share = amount / whole if whole else float(amount > 0)
        bar = f'<progress value="{min(share, 1):.3f}" max="1" style="width:8em"></progress>'
        use = escape(f"{_number(amount)} of {_number(whole)} {resource}{kind}")
        yield (
            f'<tr>{first[0]}<td>{bar}</td><td style="text-align:left">{use}</td>{first[1]}{first[2]}</tr>'
        )
        first = ["<td></td>"] * 3


def _number(amount: float) -> str:
    return f"{amount:,.2f}".rstrip("0").rstrip(".")


def _run(name: str, snapshot: PoolSnapshot) -> str:
    counts = {
        "running": snapshot.running,
        "queued": snapshot.queued,
        "backing off": snapshot.backing_off,
        "done": snapshot.done,
        "failed": snapshot.failed,
        "unread": snapshot.unread,
        "per second": f"{snapshot.rate:.3g}",
    }
    head = "".join(f"<th>{count}</th>" for count in counts)
    body = "".join(f"<td>{count}</td>" for count in counts.values())
    paused = ", paused" if snapshot.paused else ""
    rows: list[str] = []
    for use in snapshot.capacity:
        is_plain = not isinstance(use.limit, Mapping)
        limits, held = (
            ({"slots": use.limit}, {"slots": use.held}) if is_plain else (use.limit, use.held)
        )
        rows += _rows(use.name, cast("Any", limits), cast("Any", held), use.waiting, (), 0)
    return (
        f"<div><b>{escape(name)}</b>{paused}</div><table><thead><tr>{head}</tr></thead>"
        f"<tbody><tr>{body}</tr></tbody></table>{_table(rows)}"
    )
