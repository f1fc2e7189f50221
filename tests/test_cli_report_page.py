"""The page of `headrace map --report`: its content, its isolation, and its rendering in a browser."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from headrace.cli.record_error import RecordError
from headrace.cli.report.page import render
from headrace.cli.report.report import Report
from headrace.cli.report.series import RateSeries, Series, SeriesFamily
from headrace.cli.report.summary import Summary
from tests.browser import browser
from tests.command import Files, interrupt, listing, run, running, wait_for_line

if TYPE_CHECKING:
    from pathlib import Path

EVIL = '</code></td><script>document.title = "hacked"</script><img src=x onerror=alert(1)>"\'&amp;\x00\u202e'

VOID = {"meta"}


class Page(HTMLParser):
    """A parsed page: elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} is closed, but is not the innermost open element"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def summary(**changes: object) -> Summary:
    given = {
        "job": "work:fetch",
        "options": [("input", "in.jsonl"), ("limit", "20")],
        "outcome": "Finished",
        "whole": True,
        "began": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "seconds": 60.0,
        "unit": "line",
        "read": 0,
        "done": 0,
        "failed": 0,
        "retried": 0,
        "throttled": 0,
    } | changes
    return Summary(**given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def level(name: str, limit: float | None = None) -> Series:
    return Series(name, name.title(), f"number of {name}", limit, lambda: 0)


def family(limit: float | None = 4) -> SeriesFamily:
    return SeriesFamily("Groups", "running calls of each", limit, dict)


def busy(
    records: int, seed: int = 1, text: str = EVIL
) -> tuple[Report, Summary, list[Series], list[SeriesFamily], list[RateSeries]]:
    """Make the report of a run of `records` records in forty groups, a tenth of which fail."""
    print(f"seed {seed}")
    chance, report, failed = random.Random(seed), Report(families=1), 0
    groups = [f"{number} {text}"[: 10 + number] for number in range(40)]
    for number in range(records):
        now, took = number / 50, chance.lognormvariate(-2, 1)
        report.time_line.sample(now, {"calls": chance.randint(0, 20), "queue": number % 7})
        report.families[0].sample(now, {chance.choice(groups): chance.randint(1, 4)})
        error = RecordError("ValueError", text, "work.py:3") if chance.random() < 0.1 else None
        failed += error is not None
        waited = chance.random() / 100
        report.add_record(now, number + 1, text, waited=waited, took=took, error=error)
    for line in (report.time_line, *report.families):
        line.sample(records / 50, {})
    done = records - failed
    totals = summary(seconds=records / 50, read=records, done=done, failed=failed)
    series, flow = (
        [level("calls", 20), level("queue")],
        RateSeries("started", "Calls per second", "made", 60),
    )
    return report, totals, series, [family()], [flow]


# Content


def test_page_of_an_empty_run(tmp_path: Path) -> None:
    report = Report()
    report.time_line.sample(0.0, {})
    page = Page(render(report, summary(seconds=0.0), [level("calls", 20), level("queue")]))
    assert "work:fetch" in page.text
    assert "svg" not in page.elements


@pytest.mark.parametrize("unit", ["line", "record"])
def test_page_names_the_positions_of_records(unit: str) -> None:
    report, totals, series, families, rates = busy(100)
    page = render(report, replace(totals, unit=unit), series, families, rates)
    assert page.count(f"<tr><th>{unit}</th>") == 2


def test_page_shows_the_outcome() -> None:
    report = Report()
    report.time_line.sample(0.0, {"calls": 2})
    report.time_line.sample(30.0, {"calls": 0})
    error = RecordError("ValueError", "no <such> thing", "work.py:12")
    for number in range(1, 100):
        report.add_record(1.0, number, f"record {number}", waited=0.5, took=0.01, error=None)
    report.add_record(2.0, 100, "the <last>", waited=0.5, took=3.0, error=error)
    report.time_line.sample(60.0, {})
    totals = summary(read=100, done=99, failed=1, outcome="Finished; 1 failed")
    page = Page(render(report, totals, [level("calls", 4)]))
    for text in (
        "Finished; 1 failed",
        "done 99 1.67 per second",
        "failed 1 1.0% of 100",
        "took 60.0 s 100 records read",
        "limit used 25% 1.00 of 4 on average",
        "fastest 10.0 ms 500 ms",
        "slowest 3.00 s 500 ms",
        "number of calls: 1.00 on average, 2 at most",
        "ValueError : no <such> thing work.py:12 the <last>",
        "ValueError 1",
        "100 3.00 s the <last>",
        "began 2026-01-02 03:04:05 UTC",
    ):
        assert text in page.text, (text, page.text)


def test_page_has_no_scripts_or_external_resources() -> None:
    page = Page(render(*busy(2_000)))
    assert "script" not in page.elements
    assert {"svg", "table", "figure"} <= set(page.elements)
    for tag, name, value in page.attributes:
        assert name not in {"src", "href", "srcset", "action", "data", "poster"}, (tag, name)
        assert not name.startswith("on"), (tag, name)
        assert "url(" not in value, (tag, name, value)
    policies = [
        value for _, name, value in page.attributes if name == "content" and "default-src" in value
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=50)
def test_page_escapes_all_text(text: str, message: str) -> None:
    report = Report()
    error = RecordError(message, message, message)
    report.add_record(0.0, 1, text, waited=0.0, took=1.0, error=error)
    report.time_line.sample(1.0, {text: 1.0})
    report.time_line.sample(2.0, {})
    totals = summary(job=text, outcome=message, options=[(text, message)])
    shown = Series(text, text, message, 3, lambda: 0)
    page = Page(render(report, totals, [shown]))
    plain = Page(render(report, summary(job="", outcome="", options=[("", "")]), [shown]))
    assert page.elements == plain.elements
    # The page can be encoded as UTF-8.
    render(report, totals, [shown]).encode()


def test_page_shows_events_with_their_rate() -> None:
    report = Report()
    for number in range(120):
        report.add_record(number / 2, number, "", waited=0, took=0, error=None, calls=2, tokens=50)
    report.time_line.sample(60.0, {})
    flows = [
        RateSeries("started", "Calls per second", "calls started", 10),
        RateSeries("tokens", "Tokens per second", "tokens used", 150.5),
    ]
    page = Page(render(report, summary(), [], [], flows))
    assert "Calls per second calls started: 4.00 on average, 240 in total" in page.text
    assert "rate 10" in page.text
    assert "Tokens per second tokens used: 200 on average, 12,000 in total" in page.text
    assert "rate 150" in page.text


def test_groups_are_ordered_by_usage() -> None:
    report = Report(families=1)
    (line,) = report.families
    levels = {f"group {number:02}": 1.0 + number for number in range(40)}
    line.sample(0.0, levels)
    line.sample(30.0, dict.fromkeys(levels, 0.0) | {"group 00": 4.0})
    line.sample(60.0, {})
    rendered = render(report, summary(), [], [family(limit=100)])
    assert "running calls of each" in rendered
    titles = [title.split("</h3>")[0] for title in rendered.split("<h3>")[1:]]
    # The first groups have their own chart, ordered by usage.
    ordered = [f"group {number:02}" for number in (23, 22, 21, 20)]
    assert titles[:4] == ordered
    assert titles[-1] == "all others"
    assert len(titles) == 25
    others = sum(1.0 + number for number in range(24, 40)) / 2
    assert f"{others:.0f} on average" in rendered.split("all others")[1]


def test_page_size_is_bounded() -> None:
    small, big = (len(render(*busy(records, text="x" * 10_000))) for records in (4_000, 16_000))
    assert big < 1.1 * small
    assert big < 700_000


# The command


def test_run_writes_its_report(tmp_path: Path, files: Files) -> None:
    files(*[1] * 300, 0)
    done = run(tmp_path, "work:inverse", "--report", "report.html", limit=3)
    assert done.returncode == 1
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for text in (
        "work:inverse",
        "Finished; 1 failed",
        "input in.jsonl output out.jsonl limit 3 order of the input window 1,024",
        "done 300",
        "failed 1 0.3% of 301",
        "301 records read",
        "ZeroDivisionError : division by zero work.py:",
    ):
        assert text in page.text, (text, page.text)
    for chart in ("Calls running calls: ", "Queue ", "Window ", "Records per second "):
        assert chart in page.text
    assert listing(tmp_path) == {"work.py", "in.jsonl", "out.jsonl", "report.html"}


def test_unordered_report_has_no_window(tmp_path: Path, files: Files) -> None:
    files(*range(20))
    assert run(tmp_path, "work:double", "--unordered", "--report", "report.html").returncode == 0
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "order as they finish" in page.text
    assert "Window" not in page.text


def test_interruption_still_writes_report(tmp_path: Path, files: Files) -> None:
    files(*range(1, 1001))
    with running(tmp_path, "work:stuck_after_three", "--report", "report.html") as process:
        wait_for_line(process, "stuck on 5")
        interrupt(process)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Interrupted; not done: records 4, 5" in page.text
    assert "done 3" in page.text


def test_second_interruption_still_writes_report(tmp_path: Path, files: Files) -> None:
    files(*range(1, 1001))
    with running(tmp_path, "work:stuck_thread", "--report", "report.html") as process:
        wait_for_line(process, "stuck on 5")
        process.send_signal(signal.SIGINT)
        wait_for_line(process, "stopping: 2 calls still running")
        interrupt(process)
    assert "Interrupted" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_bad_input_still_writes_report(tmp_path: Path, files: Files) -> None:
    files(text="1\n2\noops\n")
    assert run(tmp_path, "work:double", "--report", "report.html").returncode == 2
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Stopped: in.jsonl, line 3: not JSON: " in page.text
    assert "done 2" in page.text


def test_unwritable_report_is_an_error(tmp_path: Path, files: Files) -> None:
    files(1, 2)
    (tmp_path / "report.html").symlink_to("/dev/full")
    done = run(tmp_path, "work:double", "--report", "report.html")
    assert done.returncode == 2
    assert "cannot write report.html: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    # The results are written.
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "2\n4\n"


# Rendering

# The smallest contrast of text against its background, and the element with it.
CONTRAST = """
(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || element.closest("svg")) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${element.tagName}.${element.className}`];
  }
  return worst;
})()
"""
# Labels of an axis that overlap.
OVERLAPS = """
[...document.querySelectorAll(".across, .marks, .up")].flatMap((axis) => {
  const boxes = [...axis.children].map((label) => [label.getBoundingClientRect(), label.textContent]);
  return boxes.flatMap(([a, one], i) => boxes.slice(i + 1)
    .filter(([b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
    .map(([_, other]) => `${one} | ${other}`));
})
"""
# Elements that are partly outside of the page.
STICKING_OUT = """
[...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.width && (box.left < -1 || box.right > innerWidth + 1);
}).map((element) => `${element.tagName}.${element.className.baseVal ?? element.className}`)
"""


@pytest.mark.timeout(180)
def test_browser_shows_the_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(*busy(3_000, text=EVIL + "x" * 80)), encoding="utf-8")
    with browser(tmp_path / "browser") as page:
        page.open(path)
        title, charts = page.evaluate("[document.title, document.querySelectorAll('svg').length]")
        assert title == "work:fetch: 3,000 records"
        assert charts == 5 + 24 + 1
        requested = [
            event["params"]["request"]["url"]
            for event in page.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        assert requested == [path.as_uri()]
        log_entries = [event for event in page.events if event["method"] == "Log.entryAdded"]
        assert not log_entries, json.dumps(log_entries)
        # The policy is enforced: an inline script does not run.
        page.evaluate(
            "document.body.appendChild(document.createElement('script')).text = 'document.title = 1'"
        )
        assert page.evaluate("document.title") == title
        backgrounds: set[str] = set()
        for width in (1280, 390, 320):
            for dark in (False, True):
                page.look(width=width, dark=dark)
                page.screenshot(tmp_path / f"{width}-{'dark' if dark else 'light'}.png")
                variant = f"{width} wide, {'dark' if dark else 'light'}"
                assert page.evaluate(STICKING_OUT) == [], variant
                assert page.evaluate(OVERLAPS) == [], variant
                ratio, element = page.evaluate(CONTRAST)
                assert ratio >= 4.5, f"{variant}: the contrast of {element} is {ratio:.2f}"
                backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2
