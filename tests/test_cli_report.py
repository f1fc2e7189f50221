"""The data of a report: correct, and bounded in size."""

from __future__ import annotations

import asyncio
import math
import random
import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings, strategies as st

from headrace.cli.format import (
    format_duration,
    format_number,
    shorten,
)
from headrace.cli.output import Output
from headrace.cli.record import Json, Record
from headrace.cli.record_error import RecordError
from headrace.cli.record_task import RecordTask
from headrace.cli.report.collector import Collector
from headrace.cli.report.ddsketch import (
    BUCKETS,
    MAX_DURATION,
    MIN_DURATION,
    RELATIVE_ERROR,
    DDSketch,
)
from headrace.cli.report.report import Report
from headrace.cli.report.samples import (
    MAX_KINDS,
    MAX_MESSAGE_CHARS,
    MAX_RECORD_CHARS,
    Failed,
    Slowest,
)
from headrace.cli.report.series import Series
from headrace.cli.report.summary import Summary
from headrace.cli.report.timeline import OTHERS, TimeLine

if TYPE_CHECKING:
    from pathlib import Path

# The sketch

# Durations of all magnitudes.
durations = st.one_of(
    st.floats(0, MAX_DURATION),
    st.floats(-12, math.log10(MAX_DURATION)).map(lambda power: 10**power),
    st.sampled_from([0.0, MIN_DURATION, MAX_DURATION, 1.0]),
)


def filled(values: list[float]) -> DDSketch:
    sketch = DDSketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(st.lists(durations, min_size=1, max_size=200), st.lists(st.floats(0, 1), max_size=8))
@example([0.0], [0.5])
@example([1.0] * 100, [0.07, 0.29, 0.57])
@settings(max_examples=300)
def test_quantile_is_within_the_stated_error(values: list[float], parts: list[float]) -> None:
    parts = [0, 0.5, 0.9, 0.99, 1, *parts]
    ranked = sorted(values)
    for part, estimate in zip(parts, filled(values).quantiles(parts), strict=True):
        true = ranked[max(1, math.ceil(round(part * len(ranked), 6))) - 1]
        # A margin for rounding at the bound of a bucket.
        allowed = max(RELATIVE_ERROR * true * (1 + 1e-9), MIN_DURATION)
        assert abs(estimate - true) <= allowed, (part, estimate, true)
        assert ranked[0] <= estimate <= ranked[-1]


@given(st.lists(durations, min_size=1, max_size=200))
@settings(max_examples=100)
def test_exact_statistics_of_a_sketch(values: list[float]) -> None:
    sketch = filled(values)
    assert sketch.count == len(values)
    assert sketch.minimum == min(values)
    assert sketch.maximum == max(values)
    assert sketch.mean == pytest.approx(sum(values) / len(values))
    assert sketch.quantiles([0.3, 0.8]) == filled(values[::-1]).quantiles([0.3, 0.8])


@given(st.lists(durations, max_size=200), st.integers(1, 70))
@settings(max_examples=100)
def test_histogram_counts_each_duration_once(values: list[float], most: int) -> None:
    bars = filled(values).histogram(most)
    assert len(bars) <= most
    assert sum(bar.count for bar in bars) == len(values)
    for bar, following in pairwise(bars):
        assert bar.high == following.low
    for bar in bars:
        # A value near a bound may be counted on either side.
        lowest, highest = bar.low * (1 - 1e-9), bar.high * (1 + 1e-9)
        inside = [
            value
            for value in values
            if lowest < min(max(value, MIN_DURATION), MAX_DURATION) <= highest
        ]
        assert bar.count <= len(inside)


def test_sketch_size_is_bounded() -> None:
    sketch = DDSketch()
    for step in range(100_000):
        sketch.add(10 ** (-9 + 19 * step / 100_000))
    assert len(sketch.histogram(10**6)) <= BUCKETS < 1_500
    # Values beyond the buckets are counted in the outer ones; the extremes stay exact.
    assert sketch.maximum == pytest.approx(1e10, rel=1e-3)
    assert sketch.quantiles([0.99])[0] == pytest.approx(MAX_DURATION, rel=RELATIVE_ERROR)


@pytest.mark.parametrize("wrong", [-1e-9, math.nan, math.inf, -math.inf])
def test_sketch_refuses_invalid_durations(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"finite number of seconds of at least 0, got {wrong}"):
        DDSketch().add(wrong)


def test_empty_sketch() -> None:
    sketch = DDSketch()
    assert sketch.histogram(10) == []
    assert sketch.mean == 0
    with pytest.raises(ValueError, match="at least one duration"):
        sketch.quantiles([0.5])
    sketch.add(1)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        sketch.quantiles([1.5])


# The time line

# Times and values are sums of powers of two, so arithmetic is exact.
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.125, 0.25, 1.0, 5.5, 100.0]),
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 8).map(float), max_size=4),
        st.integers(0, 3),
    ),
    max_size=40,
)


@given(steps, st.sampled_from([2, 4, 6, 16]))
@settings(max_examples=300)
def test_points_match_the_sampled_levels(
    given_steps: list[tuple[float, dict[str, float], int]], slots: int
) -> None:
    line, now = TimeLine(slots=slots, width=0.25, most=2), 0.0
    spans: list[tuple[float, float, dict[str | None, float]]] = []
    happened: list[float] = []
    levels: dict[str | None, float] = {}
    kept: list[str] = []
    for step, values, events in given_steps:
        spans.append((now, now + step, levels))
        now += step
        levels = {}
        for name, value in values.items():
            if name not in kept and len(kept) < 2:
                kept.append(name)
            label: str | None = name if name in kept else OTHERS
            levels[label] = levels.get(label, 0.0) + value
        line.sample(now, values)
        for _ in range(events):
            line.count(now, "done")
            happened.append(now)
    spans.append((now, now + 1, levels))
    line.sample(now + 1, {})
    assert line.end == now + 1
    names: list[str | None] = [*kept, OTHERS]
    for shown in names:
        points = line.points(shown)
        assert len(points) <= slots
        for point in points:
            inside = [
                (min(end, point.end) - max(begin, point.begin), values.get(shown, 0.0))
                for begin, end, values in spans
                if min(end, point.end) > max(begin, point.begin)
            ]
            assert point.mean * (point.end - point.begin) == pytest.approx(
                sum(length * value for length, value in inside)
            )
            assert point.peak == max(value for _, value in inside)
        if points:
            assert points[0].begin == 0
            assert points[-1].end == line.end
            assert [point.end for point in points[:-1]] == [point.begin for point in points[1:]]
    assert line.area("a") == sum(
        (end - begin) * levels.get("a", 0.0) for begin, end, levels in spans if "a" in kept
    )
    counts = line.counts("done")
    assert sum(count.count for count in counts) == len(happened)
    for count in counts:
        last = count.end == line.end
        assert count.count == sum(
            count.begin <= at < count.end or (last and at == count.end) for at in happened
        )


def test_time_line_equals_one_of_final_width() -> None:
    short, long = TimeLine(slots=8, width=0.25), TimeLine(slots=8, width=16)
    chance = random.Random(3)
    print("seed 3")
    for step in range(400):
        now, levels = step / 4, {"a": float(chance.randint(0, 9))}
        for line in (short, long):
            line.sample(now, levels)
            line.count(now, "done")
    assert short.width == long.width
    assert short.points("a") == long.points("a")
    assert short.counts("done") == long.counts("done")


def test_unknown_name_has_no_points() -> None:
    line = TimeLine()
    assert line.points("a") == []
    assert line.counts("a") == []
    assert line.area("a") == 0
    line.count(0.0, "a")
    assert line.counts("a") == []  # no time has passed
    line.sample(1.0, {"b": 1})
    assert [point.mean for point in line.points("b")] == [0.0] * 200
    assert sum(count.count for count in line.counts("a")) == 1


def test_earlier_sample_times_count_as_end() -> None:
    line = TimeLine(slots=4, width=1)
    line.sample(2.0, {"a": 1})
    line.sample(1.0, {"a": 3})  # read earlier by another thread
    line.count(-0.5, "done")
    line.sample(3.0, {})
    assert [point.mean for point in line.points("a")] == [0, 0, 3]
    assert [count.count for count in line.counts("done")] == [1, 0, 0]


@pytest.mark.parametrize(
    ("parameter", "value"), [("slots", 0), ("slots", 7), ("width", 0.0), ("width", math.nan)]
)
def test_invalid_time_line_size_is_refused(parameter: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{parameter} must be .*, got {value}"):
        TimeLine(**{parameter: value})


# Samples of records


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), max_size=60), st.integers(1, 20))
def test_slowest_records_are_kept(took: list[float], most: int) -> None:
    slowest = Slowest(most)
    for number, seconds in enumerate(took, 1):
        slowest.add(number, seconds, f"record {number}", failed=number % 2 == 0)
    ranked = sorted(enumerate(took, 1), key=lambda record: (-record[1], record[0]))[:most]
    listed = slowest.records()
    assert [(one.number, one.seconds) for one in listed] == ranked
    assert all(one.text == f"record {one.number}" for one in listed)
    assert all(one.failed == (one.number % 2 == 0) for one in listed)


def test_first_failures_are_kept_and_all_counted() -> None:
    failed = Failed(most=3)
    kinds: Counter[str] = Counter()
    for number in range(500):
        kind = f"Kind{min(number % 100, number // 2)}Error"
        kinds[kind] += 1
        failed.add(number, 1.0, "x" * 1000, RecordError(kind, "y" * 1000, "w.py:1"))
    assert failed.count == 500
    assert [one.number for one in failed.records()] == [0, 1, 2]
    assert {len(one.text) for one in failed.records()} == {MAX_RECORD_CHARS}
    assert {len(one.message) for one in failed.records()} == {MAX_MESSAGE_CHARS}
    *listed, others = failed.kinds()
    assert len(listed) == MAX_KINDS
    assert all(kinds[kind] == count for kind, count in listed)
    assert [count for _, count in listed] == sorted((c for _, c in listed), reverse=True)
    assert others == ("others", 500 - sum(count for _, count in listed))


def test_report_memory_is_bounded() -> None:
    chance, error = random.Random(5), RecordError("ValueError", "y" * 1000, "w.py:1")
    print("seed 5")
    report = Report()

    def add_records(begin: int, end: int) -> None:
        for number in range(begin, end):
            levels = {f"level {number % 1000}": 1.0, "calls": 3.0}
            report.time_line.sample(number / 10, levels)
            bad = error if number % 3 == 0 else None
            took = chance.lognormvariate(0, 2)
            report.add_record(number / 10, number, "x" * 1000, waited=0.0, took=took, error=bad)

    tracemalloc.start()
    add_records(0, 10_000)
    before, _ = tracemalloc.get_traced_memory()
    add_records(10_000, 60_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 100_000, f"{before:,} bytes, then {after:,}"


# The collector


@pytest.mark.virtual
async def test_collector_samples_changing_levels(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    level = 1.0
    with Output(str(tmp_path / "report.html")) as output:
        series = Series("calls", "Calls", "calls", 4, lambda: level)
        collector = Collector(output, [series], [], clock=loop.time)
        began = loop.time()
        collecting = asyncio.create_task(collector.run())
        await asyncio.sleep(100)
        level = 3.0
        now = loop.time()
        record_task = RecordTask(
            Record(7, 1, "the text", 2, Json()), 0, now, first=now, started=now, calls=1
        )
        await asyncio.sleep(100)
        record_task.ended = loop.time()
        collector.add_record(record_task, None)
        collecting.cancel()
        await asyncio.wait({collecting})
        totals = Summary(
            job="work:fetch",
            options=[],
            outcome="Finished",
            whole=True,
            began=datetime(2026, 1, 2, tzinfo=UTC),
            seconds=loop.time() - began,
            unit="line",
            read=1,
            done=1,
            failed=0,
            retried=0,
            throttled=0,
        )
        collector.write(totals)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "calls: 2.00 on average, 3 at most" in page
    assert "the text" in page
    assert "1 min 40 s" not in page
    assert "100 s" in page  # the duration of the call


# Formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2.5e-9, "0.00250 µs"),
        (1.234e-6, "1.23 µs"),
        (0.000999, "999 µs"),
        (0.0009999, "1.00 ms"),
        (0.01, "10.0 ms"),
        (0.9996, "1.00 s"),
        (9.999, "10.0 s"),
        (119.4, "119 s"),
        (119.5, "2 min 0 s"),
        (754, "12 min 34 s"),
        (7199.4, "119 min 59 s"),
        (7199.6, "2 h 0 min"),
        (3_700_000, "1,027 h 47 min"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00012, "0.000120"),
        (0.5, "0.500"),
        (12, "12.0"),
        (999.6, "1,000"),
        (54321, "54,321"),
    ],
)
def test_format_number(value: float, text: str) -> None:
    assert format_number(value) == text


@given(st.text(max_size=80), st.integers(1, 30))
def test_shorten_gives_one_bounded_line(text: str, most: int) -> None:
    shown = shorten(text, most)
    assert len(shown) <= most
    assert len(shown.splitlines()) <= 1
    shown.encode()
    if len(text) <= most and text.isascii() and text.isprintable():
        assert shown == " ".join(text.split())


def test_shorten_replaces_unprintable_characters() -> None:
    assert shorten("a\n b\x00\x1b[31m\x7f\ud800\u202ec", 40) == "a b␀␛[31m���c"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"
