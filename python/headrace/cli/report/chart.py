"""Pictures in a page: SVG for what is drawn, HTML around it for what is read.

The drawing is stretched to whatever room there is; text in it would be stretched too, and would be too small on a
telephone. So labels are HTML, placed by per cent. What a pointer finds are `<title>`s: no script is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from headrace.cli.format import figures, seconds_in_words
from headrace.cli.progress import as_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headrace.cli.report.ddsketch import Bar
    from headrace.cli.report.timeline import Count, Point

# The picture's own units: a thousand across, a hundred down.
WIDE, HIGH = 1000, 100

# Steps of an axis of time that is labelled as a clock is, in seconds, up to half a day.
_CLOCK = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200)


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis, at a part of its length."""

    at: float
    text: str
    side: str = ""
    """On which side of its place the label stands; empty for the middle."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a colour of the picture means."""

    colour: str
    """A class of the style sheet."""
    text: str


def level_chart(
    title: str,
    note: str,
    points: Sequence[Point],
    *,
    limit: float | None,
    seconds: float,
    legend: bool = True,
) -> str:
    """A level over time: its mean as an area, its peak as a line, its limit, if there is one, dashed."""
    highest = max((point.peak for point in points), default=0.0)
    # The limit is the top, unless what there is would then lie flat on the ground.
    bounded = limit is not None and highest <= limit < 5 * highest
    top = limit if bounded and limit is not None else _round_up(highest or 1.0)
    mean = " ".join(f"V{_y(p.mean, top)}H{_x(p.end, seconds)}" for p in points)
    peak = " ".join(f"V{_y(p.peak, top)}H{_x(p.end, seconds)}" for p in points)
    shapes: list[str] = []
    if points:
        shapes += [
            f'<path class="area" d="M0,{HIGH}{mean}V{HIGH}Z"/>',
            f'<path class="line" d="M0,{_y(points[0].peak, top)}{peak}"/>',
        ]
    keys = [Key("use", "on average"), Key("peak", "highest")]
    if limit is not None:
        if bounded:
            shapes.append(f'<path class="limit" d="M0,{_y(limit, top)}H{WIDE}"/>')
        where = "" if bounded else ", far above"
        keys.append(Key("limit", f"limit {figures_or_whole(limit)}{where}"))
    shapes += _hover(
        (
            point.begin / seconds,
            point.end / seconds,
            _when(point.begin, point.end)
            + f": {figures(point.mean)} on average, {figures_or_whole(point.peak)} at most",
        )
        for point in points
    )
    area = sum(point.mean * (point.end - point.begin) for point in points)
    average = area / seconds if seconds else 0.0
    said = f"{figures(average)} on average, {figures_or_whole(highest)} at most"
    note = f"{note}: {said}" if note else said
    return _figure(title, note, keys if legend else [], shapes, _up(top), _times(seconds))


def count_chart(
    title: str, note: str, done: Sequence[Count], failed: Sequence[Count], *, seconds: float
) -> str:
    """What ended in each second, the failed on top of the done."""
    spans = done or failed
    rows = [
        (
            span.begin,
            span.end,
            (done[place].count if done else 0) / (span.end - span.begin),
            (failed[place].count if failed else 0) / (span.end - span.begin),
        )
        for place, span in enumerate(spans)
    ]
    top = _round_up(max((good + bad for _, _, good, bad in rows), default=0.0) or 1.0)
    whole = " ".join(f"V{_y(good + bad, top)}H{_x(end, seconds)}" for _, end, good, bad in rows)
    below = " ".join(f"V{_y(good, top)}H{_x(end, seconds)}" for _, end, good, _ in rows)
    shapes: list[str] = []
    keys = [Key("done", "done")]
    if failed:
        shapes.append(f'<path class="failed" d="M0,{HIGH}{whole}V{HIGH}Z"/>')
        keys.append(Key("failed", "failed"))
    if rows:
        shapes.append(f'<path class="done" d="M0,{HIGH}{below}V{HIGH}Z"/>')
    shapes += _hover(
        (
            begin / seconds,
            end / seconds,
            f"{_when(begin, end)}: {figures(good)} done a second"
            + (f", {figures(bad)} failed" if bad else ""),
        )
        for begin, end, good, bad in rows
    )
    return _figure(title, note, keys, shapes, _up(top), _times(seconds))


def flow_chart(
    title: str, note: str, counts: Sequence[Count], *, limit: float, seconds: float
) -> str:
    """What there was of something in each second, and the rate that it was to keep, dashed."""
    # Of four slots each: in short ones, what happens now and then would look like more than the rate.
    fours = [counts[place : place + 4] for place in range(0, len(counts), 4)]
    rows = [
        (four[0].begin, four[-1].end, sum(count.count for count in four)) for four in fours if four
    ]
    flows = [(begin, end, amount / (end - begin)) for begin, end, amount in rows]
    top = _round_up(max([limit, *(flow for _, _, flow in flows)]))
    path = " ".join(f"V{_y(flow, top)}H{_x(end, seconds)}" for _, end, flow in flows)
    shapes = [f'<path class="done" d="M0,{HIGH}{path}V{HIGH}Z"/>'] if flows else []
    shapes.append(f'<path class="limit" d="M0,{_y(limit, top)}H{WIDE}"/>')
    shapes += _hover(
        (begin / seconds, end / seconds, f"{_when(begin, end)}: {figures(flow)} a second")
        for begin, end, flow in flows
    )
    keys = [Key("done", "a second"), Key("limit", f"rate {figures_or_whole(limit)}")]
    whole = sum(amount for _, _, amount in rows)
    average = whole / seconds if seconds else 0.0
    said = f"{note}: {figures(average)} on average, {figures_or_whole(whole)} in all"
    return _figure(title, said, keys, shapes, _up(top), _times(seconds))


def histogram(
    title: str, note: str, bars: Sequence[Bar], marks: Sequence[tuple[str, float]]
) -> str:
    """How durations are spread, on a logarithmic axis, with some of them marked."""
    if not bars:
        return ""
    low, high = math.log(bars[0].low), math.log(bars[-1].high)

    def place(duration: float) -> float:
        # A mark at the very least or most may lie a rounding beyond the bars.
        return min(max((math.log(max(duration, bars[0].low)) - low) / (high - low), 0.0), 1.0)

    top = _round_up(max(bar.count for bar in bars))
    shapes: list[str] = []
    for bar in bars:
        if bar.count:
            left, right = place(bar.low) * WIDE, place(bar.high) * WIDE
            # A bar that is there is seen.
            height = max(bar.count / top * HIGH, 1.0)
            shapes.append(
                f'<rect class="bar" x="{left:.1f}" y="{HIGH - height:.1f}" '
                f'width="{right - left:.1f}" height="{height:.1f}"/>'
            )
    shapes += [f'<path class="mark" d="M{place(at) * WIDE:.1f},0V{HIGH}"/>' for _, at in marks]
    shapes += _hover(
        (
            place(bar.low),
            place(bar.high),
            f"{seconds_in_words(bar.low)} to {seconds_in_words(bar.high)}: {bar.count:,}",
        )
        for bar in bars
    )
    ticks = _decades(bars[0].low, bars[-1].high, place)
    above = _apart([Tick(place(at), text) for text, at in marks])
    return _figure(title, note, [], shapes, _up(top), ticks, above)


def figures_or_whole(value: float) -> str:
    """A whole number as it is, any other with its figures."""
    return f"{value:,.0f}" if value == int(value) else figures(value)


def _figure(
    title: str,
    note: str,
    keys: Sequence[Key],
    shapes: Sequence[str],
    up: Sequence[Tick],
    across: Sequence[Tick],
    above: Sequence[Tick] = (),
) -> str:
    legend = "".join(f'<span class="key {key.colour}">{escape(key.text)}</span>' for key in keys)
    legend = legend and f'<div class="legend">{legend}</div>'
    grid = "".join(f'<path class="grid" d="M0,{tick.at * HIGH:.1f}H{WIDE}"/>' for tick in up)
    rows = "".join(f'<span style="top:{tick.at:.2%}">{escape(tick.text)}</span>' for tick in up)
    return (
        f"<figure><figcaption><h3>{escape(title)}</h3><p>{escape(note)}</p>{legend}"
        f'</figcaption><div class="plot">{_row("marks", above) if above else ""}<div class="up">{rows}</div>'
        f'<svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}. {escape(note)}">{grid}{"".join(shapes)}</svg>'
        f"{_row('across', across)}</div></figure>"
    )


def _row(name: str, ticks: Sequence[Tick]) -> str:
    """Labels beside each other. What would leave the picture on a side is drawn in from there."""
    spans: list[str] = []
    for tick in ticks:
        side = tick.side or ("right" if tick.at < 0.04 else "left" if tick.at > 0.96 else "middle")
        spans.append(f'<span class="{side}" style="left:{tick.at:.2%}">{escape(tick.text)}</span>')
    return f'<div class="{name}">{"".join(spans)}</div>'


def _hover(columns: Iterable[tuple[float, float, str]]) -> list[str]:
    """Columns that tell what they show to whoever points at them."""
    return [
        f'<rect class="hover" x="{left * WIDE:.1f}" y="0" width="{(right - left) * WIDE:.2f}" '
        f'height="{HIGH}"><title>{escape(text)}</title></rect>'
        for left, right, text in columns
    ]


def _x(at: float, seconds: float) -> str:
    return f"{at / seconds * WIDE:.1f}"


def _y(value: float, top: float) -> str:
    return f"{HIGH - value / top * HIGH:.1f}"


def _up(top: float) -> list[Tick]:
    return [Tick(1 - part, f"{top * part:,.12g}") for part in (0, 0.5, 1)]


def _round_up(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8 and 10 times a power of ten: a round number, and half of it as well."""
    unit = 10.0 ** math.floor(math.log10(value))
    for step in (1, 2, 3, 4, 5, 6, 8):
        if value <= step * unit:
            return step * unit
    return 10 * unit


def _times(seconds: float, most: int = 5) -> list[Tick]:
    """Round times from 0 to the end, `most` steps at most."""
    if not seconds:
        return []
    step = next(step for step in _steps(seconds) if seconds / step <= most)
    label = as_clock if seconds > 120 else _label
    count = int(seconds / step)
    return [
        Tick(place * step / seconds, label(place * step) if place else "0")
        for place in range(count + 1)
    ]


def _steps(seconds: float) -> list[float]:
    """Steps of an axis of so many seconds, ascending; the last is no shorter than a fifth of it."""
    if seconds <= 120:
        unit = 10.0 ** (math.floor(math.log10(seconds)) - 1)
        return [unit * step for step in (1, 2, 5, 10, 20, 50)]
    day = 86400 * 10.0 ** max(0, math.floor(math.log10(seconds / 86400)))
    return [*_CLOCK, *(day * step for step in (1, 2, 5))]


def _label(seconds: float) -> str:
    """A round duration, without the noughts behind the point."""
    if seconds > 120:
        return seconds_in_words(seconds)
    # Rounded, since three steps of 0.1 are a little more than 0.3.
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 0.0999:
            return f"{round(seconds * factor, 6):g} {unit}"
    return f"{round(seconds * 1e6, 6):g} µs"


def _when(begin: float, end: float) -> str:
    return f"{seconds_in_words(begin)} to {seconds_in_words(end)}"


def _decades(low: float, high: float, place: Callable[[float], float]) -> list[Tick]:
    """Round durations on a logarithmic axis, with room for their labels between them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        round_ones = (step * 10.0**power for power in powers[::every] for step in steps)
        chosen = [duration for duration in round_ones if low <= duration <= high]
        places = [place(duration) for duration in chosen]
        if len(chosen) > 1 and all(b - a >= 0.18 for a, b in pairwise(places)):
            return [Tick(place(duration), _label(duration)) for duration in chosen]
    return [Tick(0, seconds_in_words(low)), Tick(1, seconds_in_words(high))]


def _apart(ticks: Sequence[Tick], room: float = 0.13) -> list[Tick]:
    """Labels that do not lie over one another: of some that are close, the outer two, each on its own side."""
    close: list[list[Tick]] = []
    for tick in ticks:
        if close and tick.at - close[-1][-1].at < room:
            close[-1].append(tick)
        else:
            close.append([tick])
    placed: list[Tick] = []
    for first, *more in close:
        if more and more[-1].at <= 1 - room:
            placed += [replace(first, side="left"), replace(more[-1], side="right")]
        else:
            placed.append(more[-1] if more else first)
    return placed
