"""Charts: SVG for shapes, HTML around it for labels. `page` places them.

The SVG is stretched to the available space, which would distort text in it. Labels are therefore HTML, positioned in
per cent. Tooltips are `<title>` elements and need no script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from headrace.cli.format import format_duration, format_number
from headrace.cli.progress import format_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headrace.cli.report.ddsketch import Bar
    from headrace.cli.report.timeline import Count, Point

# The size of a chart in its own units.
WIDTH, HEIGHT = 1000, 100

# Steps, in seconds, of a time axis with clock labels, up to half a day.
_CLOCK = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200)


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis, at a fraction of its length."""

    at: float
    text: str
    side: str = ""
    """The side of the position on which the label is; empty for the middle."""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """An entry of the legend: a colour and its meaning."""

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
    """Draw a level over time: its mean as an area, its peak as a line, and its limit, if any, dashed."""
    highest = max((point.peak for point in points), default=0.0)
    # The limit is the top of the axis, unless the level would then be too low to see.
    bounded = limit is not None and highest <= limit < 5 * highest
    top = limit if bounded and limit is not None else _round_up(highest or 1.0)
    shapes: list[str] = []
    if points:
        peak = _path(((p.end, p.peak) for p in points), top, seconds)
        shapes = [
            _area("area", ((p.end, p.mean) for p in points), top, seconds),
            f'<path class="line" d="M0,{_y(points[0].peak, top)}{peak}"/>',
        ]
    keys = [LegendEntry("use", "on average"), LegendEntry("peak", "highest")]
    if limit is not None:
        if bounded:
            shapes.append(_limit_line(limit, top))
        where = "" if bounded else ", far above"
        keys.append(LegendEntry("limit", f"limit {format_value(limit)}{where}"))
    shapes += _hover(
        (
            point.begin / seconds,
            point.end / seconds,
            _format_span(point.begin, point.end)
            + f": {format_number(point.mean)} on average, {format_value(point.peak)} at most",
        )
        for point in points
    )
    area = sum(point.mean * (point.end - point.begin) for point in points)
    average = area / seconds if seconds else 0.0
    text = f"{format_number(average)} on average, {format_value(highest)} at most"
    note = f"{note}: {text}" if note else text
    return _figure(
        title, note, keys if legend else [], shapes, _value_ticks(top), _time_ticks(seconds)
    )


def count_chart(
    title: str, note: str, done: Sequence[Count], failed: Sequence[Count], *, seconds: float
) -> str:
    """Draw done and failed records per second, stacked; failed ones alone if `done` is empty."""
    spans = done or failed
    rows = [
        (
            span.begin,
            span.end,
            (done[position].count if done else 0) / (span.end - span.begin),
            (failed[position].count if failed else 0) / (span.end - span.begin),
        )
        for position, span in enumerate(spans)
    ]
    top = _round_up(max((good + bad for _, _, good, bad in rows), default=0.0) or 1.0)
    shapes: list[str] = []
    keys = [LegendEntry("done", "done")] if done else []
    if failed:
        settled = ((end, good + bad) for _, end, good, bad in rows)
        shapes.append(_area("failed", settled, top, seconds))
        keys.append(LegendEntry("failed", "failed"))
    if rows:
        shapes.append(_area("done", ((end, good) for _, end, good, _ in rows), top, seconds))
    shapes += _hover(
        (
            begin / seconds,
            end / seconds,
            f"{_format_span(begin, end)}: "
            + (f"{format_number(good)} done per second" if done else "")
            + (", " if done and bad else "")
            + (f"{format_number(bad)} failed" if bad else "" if done else "none failed"),
        )
        for begin, end, good, bad in rows
    )
    return _figure(title, note, keys, shapes, _value_ticks(top), _time_ticks(seconds))


def rate_chart(
    title: str, note: str, counts: Sequence[Count], *, limit: float, seconds: float
) -> str:
    """Draw an amount per second, and its maximum rate as a dashed line."""
    # Four slots each: in shorter spans, rare events would seem to exceed the rate.
    fours = [counts[position : position + 4] for position in range(0, len(counts), 4)]
    rows = [
        (four[0].begin, four[-1].end, sum(count.count for count in four)) for four in fours if four
    ]
    rates = [(begin, end, amount / (end - begin)) for begin, end, amount in rows]
    top = _round_up(max([limit, *(rate for _, _, rate in rates)]))
    areas = ((end, rate) for _, end, rate in rates)
    shapes = [_area("done", areas, top, seconds)] if rates else []
    shapes.append(_limit_line(limit, top))
    shapes += _hover(
        (
            begin / seconds,
            end / seconds,
            f"{_format_span(begin, end)}: {format_number(rate)} per second",
        )
        for begin, end, rate in rates
    )
    keys = [LegendEntry("done", "per second"), LegendEntry("limit", f"rate {format_value(limit)}")]
    whole = sum(amount for _, _, amount in rows)
    average = whole / seconds if seconds else 0.0
    text = f"{note}: {format_number(average)} on average, {format_value(whole)} in total"
    return _figure(title, text, keys, shapes, _value_ticks(top), _time_ticks(seconds))


def histogram(
    title: str, note: str, bars: Sequence[Bar], marks: Sequence[tuple[str, float]]
) -> str:
    """Draw a histogram of durations on a logarithmic axis, with marks."""
    if not bars:
        return ""
    low, high = math.log(bars[0].low), math.log(bars[-1].high)

    def position(duration: float) -> float:
        # Rounding may move a mark at an extreme slightly beyond the bars.
        return min(max((math.log(max(duration, bars[0].low)) - low) / (high - low), 0.0), 1.0)

    top = _round_up(max(bar.count for bar in bars))
    shapes: list[str] = []
    for bar in bars:
        if bar.count:
            left, right = position(bar.low) * WIDTH, position(bar.high) * WIDTH
            # A bar is never too low to see.
            height = max(bar.count / top * HEIGHT, 1.0)
            shapes.append(
                f'<rect class="bar" x="{left:.1f}" y="{HEIGHT - height:.1f}" '
                f'width="{right - left:.1f}" height="{height:.1f}"/>'
            )
    shapes += [
        f'<path class="mark" d="M{position(at) * WIDTH:.1f},0V{HEIGHT}"/>' for _, at in marks
    ]
    shapes += _hover(
        (
            position(bar.low),
            position(bar.high),
            f"{format_duration(bar.low)} to {format_duration(bar.high)}: {bar.count:,}",
        )
        for bar in bars
    )
    ticks = _log_ticks(bars[0].low, bars[-1].high, position)
    above = _spread_labels([Tick(position(at), text) for text, at in marks])
    return _figure(title, note, [], shapes, _value_ticks(top), ticks, above)


def format_value(value: float) -> str:
    """Format a whole number without decimals, any other with three significant digits."""
    return f"{value:,.0f}" if value == int(value) else format_number(value)


def _figure(
    title: str,
    note: str,
    keys: Sequence[LegendEntry],
    shapes: Sequence[str],
    up: Sequence[Tick],
    across: Sequence[Tick],
    above: Sequence[Tick] = (),
) -> str:
    legend = "".join(f'<span class="key {key.colour}">{escape(key.text)}</span>' for key in keys)
    legend = legend and f'<div class="legend">{legend}</div>'
    grid = "".join(f'<path class="grid" d="M0,{tick.at * HEIGHT:.1f}H{WIDTH}"/>' for tick in up)
    rows = "".join(f'<span style="top:{tick.at:.2%}">{escape(tick.text)}</span>' for tick in up)
    return (
        f"<figure><figcaption><h3>{escape(title)}</h3><p>{escape(note)}</p>{legend}"
        f'</figcaption><div class="plot">{_labels("marks", above) if above else ""}<div class="up">{rows}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}. {escape(note)}">{grid}{"".join(shapes)}</svg>'
        f"{_labels('across', across)}</div></figure>"
    )


def _labels(name: str, ticks: Sequence[Tick]) -> str:
    """Render labels in a row. A label near an edge is aligned to stay inside."""
    spans: list[str] = []
    for tick in ticks:
        side = tick.side or ("right" if tick.at < 0.04 else "left" if tick.at > 0.96 else "middle")
        spans.append(f'<span class="{side}" style="left:{tick.at:.2%}">{escape(tick.text)}</span>')
    return f'<div class="{name}">{"".join(spans)}</div>'


def _hover(columns: Iterable[tuple[float, float, str]]) -> list[str]:
    """Render invisible columns with tooltips."""
    return [
        f'<rect class="hover" x="{left * WIDTH:.1f}" y="0" width="{(right - left) * WIDTH:.2f}" '
        f'height="{HEIGHT}"><title>{escape(text)}</title></rect>'
        for left, right, text in columns
    ]


def _path(steps: Iterable[tuple[float, float]], top: float, seconds: float) -> str:
    """Return the steps of a line, each given by its end and its value."""
    return " ".join(f"V{_y(value, top)}H{_x(end, seconds)}" for end, value in steps)


def _area(style: str, steps: Iterable[tuple[float, float]], top: float, seconds: float) -> str:
    return f'<path class="{style}" d="M0,{HEIGHT}{_path(steps, top, seconds)}V{HEIGHT}Z"/>'


def _limit_line(limit: float, top: float) -> str:
    return f'<path class="limit" d="M0,{_y(limit, top)}H{WIDTH}"/>'


def _x(at: float, seconds: float) -> str:
    return f"{at / seconds * WIDTH:.1f}"


def _y(value: float, top: float) -> str:
    return f"{HEIGHT - value / top * HEIGHT:.1f}"


def _value_ticks(top: float) -> list[Tick]:
    return [Tick(1 - part, f"{top * part:,.12g}") for part in (0, 0.5, 1)]


def _round_up(value: float) -> float:
    """Round up to 1, 2, 3, 4, 5, 6, 8 or 10 times a power of ten, so that half of the result is round too."""
    unit = 10.0 ** math.floor(math.log10(value))
    for step in (1, 2, 3, 4, 5, 6, 8):
        if value <= step * unit:
            return step * unit
    return 10 * unit


def _time_ticks(seconds: float, most: int = 5) -> list[Tick]:
    """Return round times from 0 to the end, in at most `most` steps."""
    if not seconds:
        return []
    step = next(step for step in _steps(seconds) if seconds / step <= most)
    label = format_clock if seconds > 120 else _format_tick
    count = int(seconds / step)
    return [
        Tick(position * step / seconds, label(position * step) if position else "0")
        for position in range(count + 1)
    ]


def _steps(seconds: float) -> list[float]:
    """Return candidate steps for an axis of `seconds`, ascending; the last is at least a fifth of it."""
    if seconds <= 120:
        unit = 10.0 ** (math.floor(math.log10(seconds)) - 1)
        return [unit * step for step in (1, 2, 5, 10, 20, 50)]
    day = 86400 * 10.0 ** max(0, math.floor(math.log10(seconds / 86400)))
    return [*_CLOCK, *(day * step for step in (1, 2, 5))]


def _format_tick(seconds: float) -> str:
    """Format a round duration without trailing zeros."""
    if seconds > 120:
        return format_duration(seconds)
    # Rounded: three steps of 0.1 are slightly above 0.3.
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 0.0999:
            return f"{round(seconds * factor, 6):g} {unit}"
    return f"{round(seconds * 1e6, 6):g} µs"


def _format_span(begin: float, end: float) -> str:
    return f"{format_duration(begin)} to {format_duration(end)}"


def _log_ticks(low: float, high: float, position: Callable[[float], float]) -> list[Tick]:
    """Return round durations on a logarithmic axis, with space for their labels."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        round_ones = (step * 10.0**power for power in powers[::every] for step in steps)
        chosen = [duration for duration in round_ones if low <= duration <= high]
        positions = [position(duration) for duration in chosen]
        if len(chosen) > 1 and all(b - a >= 0.18 for a, b in pairwise(positions)):
            return [Tick(position(duration), _format_tick(duration)) for duration in chosen]
    return [Tick(0, format_duration(low)), Tick(1, format_duration(high))]


def _spread_labels(ticks: Sequence[Tick], room: float = 0.13) -> list[Tick]:
    """Keep labels that do not overlap: of a close group, the outer two, each on its own side."""
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
