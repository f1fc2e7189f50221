"""The page of a report: one HTML file without external resources. `Collector` calls `render`.

It has no script, and its content security policy forbids scripts and external resources. Text from records is escaped
as well.
"""

from __future__ import annotations

import platform
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from headrace._core import __version__
from headrace.cli.format import format_duration, format_number, shorten
from headrace.cli.report.chart import count_chart, format_value, histogram, level_chart, rate_chart
from headrace.cli.report.ddsketch import RELATIVE_ERROR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.cli.report.report import Report
    from headrace.cli.report.series import RateSeries, Series, SeriesFamily
    from headrace.cli.report.summary import Summary
    from headrace.cli.report.timeline import TimeLine

QUANTILES = (
    ("fastest", 0.0),
    ("50%", 0.5),
    ("75%", 0.75),
    ("90%", 0.9),
    ("95%", 0.95),
    ("99%", 0.99),
    ("99.9%", 0.999),
    ("slowest", 1.0),
)
MARKED_QUANTILES = (("50%", 0.5), ("95%", 0.95), ("99%", 0.99))

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(
    report: Report,
    summary: Summary,
    series: Sequence[Series],
    families: Sequence[SeriesFamily] = (),
    rate_series: Sequence[RateSeries] = (),
) -> str:
    """Render the page.

    Args:
        report: the collected data, sampled up to the end of the run.
        summary: the content of the top of the page.
        series: the levels to show, in this order. Those unknown to the time line are left out. The top of the page
            shows the utilisation of the first one's limit.
        families: the series families of the report.
        rate_series: the events to show with their rates.
    """
    style = files("headrace.cli.report").joinpath("style.css").read_text(encoding="utf-8")
    sections = [
        _head(summary),
        _cards(report, summary, series),
        _durations(report),
        _time_line(report, series, rate_series),
        *(_family(family, line) for family, line in zip(families, report.families, strict=True)),
        _errors(report),
        _slowest(report, summary.unit),
        _failed(report, summary.unit),
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(CONTENT_SECURITY_POLICY)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">'
        f"<title>{escape(summary.job)}: {summary.read:,} records</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{''.join(sections)}"
        f"<footer><p>headrace {escape(__version__)} on {platform.python_implementation()} "
        f"{platform.python_version()}. Quantiles are within {RELATIVE_ERROR:.0%}; levels are sampled every half second "
        f"or more often, and less often if that would take 1% of the time; counts are exact. "
        f"The number of points in a chart does not depend on the length of the run.</p></footer>\n"
        f"</main></body></html>\n"
    )
    # Lone surrogates in the command line or an error become escapes.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _head(summary: Summary) -> str:
    state = "stopped" if not summary.whole else "failures" if summary.failed else "good"
    options = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in summary.options
    )
    began = summary.began
    return (
        f'<header><p class="command">headrace map</p><h1>{escape(summary.job)}</h1>'
        f'<p class="outcome {state}">{escape(summary.outcome)}</p>'
        f'<dl class="options"><div><dt>began</dt><dd><time datetime="{escape(began.isoformat())}">'
        f"{escape(f'{began:%Y-%m-%d %H:%M:%S %Z}'.rstrip())}</time></dd></div>{options}</dl></header>\n"
    )


def _cards(report: Report, summary: Summary, series: Sequence[Series]) -> str:
    seconds = summary.seconds
    settled = summary.done + summary.failed
    rate = f"{format_number(settled / seconds)} per second" if seconds else ""
    share = f"{summary.failed / settled:.1%} of {settled:,}" if settled else ""
    cards = [
        ("done", f"{summary.done:,}", rate, ""),
        ("failed", f"{summary.failed:,}", share, "bad" if summary.failed else ""),
        ("took", format_duration(seconds), f"{summary.read:,} records read", ""),
    ]
    if summary.retried:
        cards.append(("retries", f"{summary.retried:,}", "calls repeated after an error", ""))
    if summary.throttled:
        note = "calls that the server rejected for now, repeated after a cooldown"
        cards.append(("throttled", f"{summary.throttled:,}", note, ""))
    if report.calls.count:
        median, late = report.calls.quantiles([0.5, 0.99])
        cards.append(
            ("median call", format_duration(median), f"99% within {format_duration(late)}", "")
        )
    for one in series[:1]:
        if one.limit and report.time_line.end:
            used = report.time_line.area(one.name) / report.time_line.end
            text = f"{format_number(used)} of {format_value(one.limit)} on average"
            cards.append(("limit used", f"{used / one.limit:.0%}", text, ""))
    return '<section class="cards">{}</section>\n'.format(
        "".join(
            f'<div class="card {kind}"><h2>{escape(name)}</h2><p class="value">{escape(value)}</p>'
            f"<p>{escape(note)}</p></div>"
            for name, value, note, kind in cards
        )
    )


def _durations(report: Report) -> str:
    calls, waits = report.calls, report.waits
    if not calls.count:
        return ""
    parts = [part for _, part in QUANTILES]
    rows = "".join(
        f"<tr><th>{name}</th><td>{format_duration(call)}</td><td>{format_duration(wait)}</td></tr>"
        for (name, _), call, wait in zip(
            QUANTILES, calls.quantiles(parts), waits.quantiles(parts), strict=True
        )
    )
    rows += (
        f"<tr><th>mean</th><td>{format_duration(calls.mean)}</td>"
        f"<td>{format_duration(waits.mean)}</td></tr>"
    )
    marks = list(
        zip(
            [name for name, _ in MARKED_QUANTILES],
            calls.quantiles([q for _, q in MARKED_QUANTILES]),
            strict=True,
        )
    )
    picture = histogram(
        "Durations of calls",
        "number of calls by duration, on a logarithmic axis",
        calls.histogram(60),
        marks,
    )
    return (
        '<section class="durations"><h2>Durations</h2><div class="beside">'
        "<table><thead><tr><th></th><th>call</th><th>wait before</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{picture}</div></section>\n"
    )


def _time_line(report: Report, series: Sequence[Series], rate_series: Sequence[RateSeries]) -> str:
    line = report.time_line
    done, failed = line.counts("done"), line.counts("failed")
    charts = [
        level_chart(one.title, one.note, line.points(one.name), limit=one.limit, seconds=line.end)
        for one in series
        if one.name in line.names
    ]
    if done or failed:
        charts.append(
            count_chart(
                "Records per second", "records done or failed", done, failed, seconds=line.end
            )
        )
    charts += [
        rate_chart(one.title, one.note, line.counts(one.name), limit=one.limit, seconds=line.end)
        for one in rate_series
    ]
    if not charts or not line.end:
        return ""
    return f'<section><h2>Time line</h2><div class="charts">{"".join(charts)}</div></section>\n'


def _family(family: SeriesFamily, line: TimeLine) -> str:
    """Render the levels of a family, the largest integral first."""
    names = sorted(
        line.names,
        key=lambda name: (name is None, -line.area(name), "" if name is None else name),
    )
    charts = "".join(
        level_chart(
            "all others" if name is None else shorten(name, 60) or "(empty)",
            "",
            line.points(name),
            limit=None if name is None else family.limit,
            seconds=line.end,
            legend=False,
        )
        for name in names
    )
    if not charts or not line.end:
        return ""
    return (
        f"<section><h2>{escape(family.title)} <small>{escape(family.note)}</small></h2>"
        f'<div class="charts small">{charts}</div></section>\n'
    )


def _errors(report: Report) -> str:
    """Render the failed calls over time, a chart for each type of error."""
    line = report.errors.time_line
    charts = "".join(
        count_chart(
            shorten(kind, 60),
            f"{count:,} in all",
            [],
            line.counts(kind),
            seconds=line.end,
        )
        for kind, count in report.errors.totals()
    )
    if not charts or not line.end:
        return ""
    note = "failed calls per second by type, also those that were repeated"
    return (
        f"<section><h2>Errors <small>{note}</small></h2>"
        f'<div class="charts small">{charts}</div></section>\n'
    )


def _failed(report: Report, unit: str) -> str:
    failed = report.failed
    if not failed.count:
        return ""
    rows = "".join(
        f'<tr><td class="number">{one.number:,}</td><td class="number">{format_duration(one.seconds)}</td>'
        f"<td><b>{escape(one.kind)}</b>{': ' if one.message else ''}{escape(one.message)}"
        f"{f' <i>{escape(one.where)}</i>' if one.where else ''}</td>"
        f"<td><code>{escape(one.text)}</code></td></tr>"
        for one in failed.records()
    )
    kinds = "".join(f"<li><b>{escape(kind)}</b> {count:,}</li>" for kind, count in failed.kinds())
    shown = len(failed.records())
    note = f"the first {shown:,} of {failed.count:,}" if failed.count > shown else f"{shown:,}"
    return (
        f"<section><h2>Failed records <small>{note}</small></h2>"
        f'<ul class="kinds">{kinds}</ul><div class="scroll"><table class="records"><thead><tr><th>{unit}</th>'
        f"<th>after</th><th>error</th><th>record</th></tr></thead><tbody>{rows}</tbody></table></div></section>\n"
    )


def _slowest(report: Report, unit: str) -> str:
    slowest = report.slowest.records()
    if not slowest:
        return ""
    most = slowest[0].seconds or 1.0
    rows = "".join(
        f'<tr><td class="number">{one.number:,}</td><td class="number">{format_duration(one.seconds)}</td>'
        f'<td class="share"><span class="{"failed" if one.failed else "done"}" '
        f'style="width:{one.seconds / most:.1%}"></span></td>'
        f"<td><code>{escape(one.text)}</code></td></tr>"
        for one in slowest
    )
    return (
        "<section><h2>Slowest calls</h2>"
        f'<div class="scroll"><table class="records slow"><thead><tr><th>{unit}</th><th>took</th><th></th><th>record</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div></section>\n"
    )
