"""The page: one HTML file that asks for nothing beside it.

It holds no script, and its content security policy forbids any, and every address with it. What came from the
records is escaped all the same.
"""

from __future__ import annotations

import platform
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from headrace._core import __version__
from headrace.cli.format import figures, seconds_in_words, shortened
from headrace.cli.report.chart import (
    count_chart,
    figures_or_whole,
    flow_chart,
    histogram,
    level_chart,
)
from headrace.cli.report.ddsketch import ERROR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.cli.report.report import Report
    from headrace.cli.report.series import Family, Flow, Gauge
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
MARKED = (("50%", 0.5), ("95%", 0.95), ("99%", 0.99))

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(
    report: Report,
    summary: Summary,
    gauges: Sequence[Gauge],
    families: Sequence[Family] = (),
    flows: Sequence[Flow] = (),
) -> str:
    """The whole page.

    Args:
        report: what was collected; its time line is looked at up to its end.
        summary: what stands at the top.
        gauges: the levels to show, in this order. One that the time line does not know is left out. How much
            of its limit the first has used stands at the top.
        families: the kinds of levels that come and go, as many as the report has.
        flows: the events to show beside their rates.
    """
    style = files("headrace.cli.report").joinpath("style.css").read_text(encoding="utf-8")
    sections = [
        _head(summary),
        _cards(report, summary, gauges),
        _durations(report),
        _line(report, gauges, flows),
        *(_family(family, line) for family, line in zip(families, report.families, strict=True)),
        _slowest(report),
        _failed(report),
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">'
        f"<title>{escape(summary.job)}: {summary.read:,} records</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{''.join(sections)}"
        f"<footer><p>headrace {escape(__version__)} on {platform.python_implementation()} "
        f"{platform.python_version()}. Quantiles are within {ERROR:.0%}; levels are those of looks at most "
        f"half a second apart; counts are exact. A picture has the same number of points, however long the run.</p></footer>\n"
        f"</main></body></html>\n"
    )
    # Whatever a command line or an error may hold, the page is UTF-8.
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


def _cards(report: Report, summary: Summary, gauges: Sequence[Gauge]) -> str:
    seconds = summary.seconds
    settled = summary.done + summary.failed
    rate = f"{figures(settled / seconds)} a second" if seconds else ""
    share = f"{summary.failed / settled:.1%} of {settled:,}" if settled else ""
    cards = [
        ("done", f"{summary.done:,}", rate, ""),
        ("failed", f"{summary.failed:,}", share, "bad" if summary.failed else ""),
        ("took", seconds_in_words(seconds), f"{summary.read:,} records read", ""),
    ]
    if summary.retried:
        cards.append(("called again", f"{summary.retried:,}", "times, after an error", ""))
    if report.calls.count:
        median, late = report.calls.quantiles([0.5, 0.99])
        cards.append(
            ("median call", seconds_in_words(median), f"99% within {seconds_in_words(late)}", "")
        )
    for gauge in gauges[:1]:
        if gauge.limit and report.line.end:
            used = report.line.area(gauge.name) / report.line.end
            said = f"{figures(used)} of {figures_or_whole(gauge.limit)} on average"
            cards.append(("limit used", f"{used / gauge.limit:.0%}", said, ""))
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
        f"<tr><th>{name}</th><td>{seconds_in_words(call)}</td><td>{seconds_in_words(wait)}</td></tr>"
        for (name, _), call, wait in zip(
            QUANTILES, calls.quantiles(parts), waits.quantiles(parts), strict=True
        )
    )
    rows += (
        f"<tr><th>mean</th><td>{seconds_in_words(calls.mean)}</td>"
        f"<td>{seconds_in_words(waits.mean)}</td></tr>"
    )
    marks = list(
        zip([name for name, _ in MARKED], calls.quantiles([q for _, q in MARKED]), strict=True)
    )
    picture = histogram(
        "How long calls took",
        "calls by their duration, on a logarithmic axis",
        calls.histogram(60),
        marks,
    )
    return (
        '<section class="durations"><h2>Durations</h2><div class="beside">'
        "<table><thead><tr><th></th><th>a call</th><th>wait before it</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{picture}</div></section>\n"
    )


def _line(report: Report, gauges: Sequence[Gauge], flows: Sequence[Flow]) -> str:
    line = report.line
    done, failed = line.counts("done"), line.counts("failed")
    charts = [
        level_chart(
            gauge.title, gauge.note, line.points(gauge.name), limit=gauge.limit, seconds=line.end
        )
        for gauge in gauges
        if gauge.name in line.names
    ]
    if done or failed:
        charts.append(
            count_chart("Records a second", "records that ended", done, failed, seconds=line.end)
        )
    charts += [
        flow_chart(
            flow.title, flow.note, line.counts(flow.name), limit=flow.limit, seconds=line.end
        )
        for flow in flows
    ]
    if not charts or not line.end:
        return ""
    return f'<section><h2>Time line</h2><div class="charts">{"".join(charts)}</div></section>\n'


def _family(family: Family, line: TimeLine) -> str:
    """The levels of a kind, those that had most first."""
    names = sorted(
        line.names,
        key=lambda name: (name is None, -line.area(name), "" if name is None else name),
    )
    charts = "".join(
        level_chart(
            "all others" if name is None else shortened(name, 60) or "(empty)",
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


def _failed(report: Report) -> str:
    failed = report.failed
    if not failed.count:
        return ""
    rows = "".join(
        f'<tr><td class="number">{one.number:,}</td><td class="number">{seconds_in_words(one.seconds)}</td>'
        f"<td><b>{escape(one.kind)}</b>{': ' if one.message else ''}{escape(one.message)}"
        f"{f' <i>{escape(one.where)}</i>' if one.where else ''}</td>"
        f"<td><code>{escape(one.text)}</code></td></tr>"
        for one in failed.listed()
    )
    kinds = "".join(f"<li><b>{escape(kind)}</b> {count:,}</li>" for kind, count in failed.kinds())
    shown = len(failed.listed())
    note = f"the first {shown:,} of {failed.count:,}" if failed.count > shown else f"{shown:,}"
    return (
        f"<section><h2>Failed records <small>{note}</small></h2>"
        f'<ul class="kinds">{kinds}</ul><div class="scroll"><table class="records"><thead><tr><th>line</th>'
        f"<th>after</th><th>error</th><th>record</th></tr></thead><tbody>{rows}</tbody></table></div></section>\n"
    )


def _slowest(report: Report) -> str:
    slowest = report.slowest.listed()
    if not slowest:
        return ""
    most = slowest[0].seconds or 1.0
    rows = "".join(
        f'<tr><td class="number">{one.number:,}</td><td class="number">{seconds_in_words(one.seconds)}</td>'
        f'<td class="share"><span class="{"failed" if one.failed else "done"}" '
        f'style="width:{one.seconds / most:.1%}"></span></td>'
        f"<td><code>{escape(one.text)}</code></td></tr>"
        for one in slowest
    )
    return (
        "<section><h2>Slowest records</h2>"
        '<div class="scroll"><table class="records slow"><thead><tr><th>line</th><th>took</th><th></th><th>record</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div></section>\n"
    )
