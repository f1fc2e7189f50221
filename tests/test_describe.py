"""`describe()`: a pipeline as text and as a flowchart, with the state of each stage while it runs."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from headrace import (
    AsyncIteratorCombiner,
    CapacitySource,
    HierarchicalTaskPoolRunner,
    IteratorResult,
    PrioritySourceObj,
    PullLabeledZipObj,
    PullObj,
    PullObj1To1Link,
    PullPushBridgeObj,
    PullRaceObj,
    PushChain,
    PushForkObj,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    PushPullObj,
    SinkCollectObj,
    SinkNullObj,
    SourceIterObj,
    Task,
)
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def source() -> PullObj[Any]:
    return SourceIterObj([1, 2, 3, 4, 5])


def shared() -> PullObj[Any]:
    left, right = source().map(str).tee(2)
    return PullRaceObj(left, right.take(2))


def bridge() -> PullObj[Any]:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(3)
    chain = PushChain.start().map(str).fork(sink, buffer.sink)
    return PullPushBridgeObj(source().filter(str), sink, chain)


class Foreign:
    """A sink that is no class of headrace."""

    sink = "a tap"

    async def next(self, item: object) -> IteratorResult[Any]:
        return IteratorResult(None, False)

    async def return_(self, value: object = None) -> IteratorResult[Any]:
        return IteratorResult(value, True)

    async def throw(self, error: BaseException) -> IteratorResult[Any]:
        return IteratorResult(None, True)


class Doubled(PullObj1To1Link[int, int]):
    async def pull_impl(self) -> AsyncIterator[int]:
        async for item in self.source:
            yield 2 * item


PIPELINES: list[tuple[str, Callable[[], Any], str]] = [
    ("a source", source, "SourceIterObj: of list, open"),
    (
        "a pipeline",
        lambda: Doubled(source().map(len, concurrency=3).dedupe()).batch(2),
        """\
PullWindowObj: 0 of 2 gathered, open
Doubled: open
PullDedupeObj: 0 remembered, open
PullMapObj: 0 of 3 calls run, calls len, open
SourceIterObj: of list, open""",
    ),
    (
        "many to one, with labels",
        lambda: PullLabeledZipObj[Any, Any](
            {"a": source().map(len), 'b"': [1], "c": source()}
        ).prefetch(2),
        """\
PullEagerObj: 0 of 2 ahead, open
PullLabeledZipObj: 3 sources, open
  - 'a': PullMapObj: calls len, open
    SourceIterObj: of list, open
  - 'b"': list
  - 'c': SourceIterObj: of list, open""",
    ),
    (
        "a shared source is described once",
        shared,
        """\
PullRaceObj: 2 sources, open
  - PullBranchObj: 0 of 1024 behind, open
    #1 PullMapObj: calls str, open
    SourceIterObj: of list, open
  - PullTakeObj: size 2, open
    PullBranchObj: 0 of 1024 behind, open
    #1 again: PullMapObj""",
    ),
    (
        "a bridge pulls and pushes",
        bridge,
        """\
PullPushBridgeObj: 2 sinks, open
  - PullFilterObj: calls str, open
    SourceIterObj: of list, open
  - into #1 SinkCollectObj: 0 items, open
  - into PushMapObj: calls str, open
    PushForkObj: 2 sinks, open
      - #1 again: SinkCollectObj
      - the sink of a buffer: 0 of 3 items, open""",
    ),
    (
        "a pair has two ends",
        lambda: PushMapObj(PushPullObj(SinkNullObj(), source()), str),
        """\
PushMapObj: calls str, open
PushPullObj: into SinkNullObj, out of SourceIterObj
  - SourceIterObj: of list, open
  - SinkNullObj: open""",
    ),
    (
        "a foreign sink",
        lambda: PushMapObj(Foreign(), str),
        "PushMapObj: calls str, open\nForeign",
    ),
    (
        "a combiner's stream",
        lambda: AsyncIteratorCombiner(source(), [1]).race_generator(),
        """\
Combined: 2 sources, open
  - SourceIterObj: of list, open
  - list""",
    ),
    (
        "a pool",
        lambda: source().map_pool(str, CapacitySource(1)),
        "PullMapPoolObj: 0 running, 0 unread, open\nSourceIterObj: of list, open",
    ),
    (
        "the run of a pool",
        lambda: HierarchicalTaskPoolRunner([Task(str)], CapacitySource(1), name="p").run_tasks(),
        "TaskRun: of 'p', not started\nSourceIterObj: of list, open",
    ),
    (
        "a source with a sink of its own",
        lambda: PrioritySourceObj().map(str),
        "PullMapObj: calls str, open\nPrioritySourceObj: 0 of 1024 items, open",
    ),
    (
        "a recipe",
        lambda: PushChain.start().map(str).take(2),
        "PushMapObj\nPushTakeObj",
    ),
    ("nothing", PushChain.start, "nothing yet"),
]
pipelines = pytest.mark.parametrize(
    ("make", "text"), [pytest.param(make, text, id=name) for name, make, text in PIPELINES]
)


class Chart(NamedTuple):
    """A parsed flowchart."""

    boxes: list[str]
    arrows: list[tuple[int, int, str]]


def read(chart: str) -> Chart:
    """Parse a flowchart. Each line must be a box, or an arrow between boxes that exist."""
    first, *lines = chart.split("\n")
    assert first == "flowchart LR"
    boxes: list[str] = []
    arrows: list[tuple[int, int, str]] = []
    for line in lines:
        if box := re.fullmatch(r' {4}n(\d+)\["([^"<>&`\n]+)"\]', line):
            assert int(box[1]) == len(boxes)
            assert not arrows
            boxes.append(unescape(box[2]))
        else:
            arrow = re.fullmatch(r' {4}n(\d+) -->(?:\|"([^"<>&`\n]+)"\|)? n(\d+)', line)
            assert arrow, line
            arrows.append((int(arrow[1]), int(arrow[3]), unescape(arrow[2] or "")))
    assert all(0 <= end < len(boxes) for start, end, _ in arrows for end in (start, end))
    return Chart(boxes, arrows)


def unescape(text: str) -> str:
    """Return a text as Mermaid shows it. Refuse a `#` that starts no known entity."""
    names = {"#35;": "#", "#quot;": '"', "#lt;": "<", "#gt;": ">", "#amp;": "&", "#96;": "`"}
    assert not re.sub("|".join(names), "", text).count("#")
    return re.sub("|".join(names), lambda found: names[found[0]], text)


@pipelines
def test_pipeline_as_text(make: Callable[[], Any], text: str) -> None:
    assert make().describe() == text


@pipelines
def test_flowchart_boxes_match_the_text(make: Callable[[], Any], text: str) -> None:
    chart = read(make().describe(format="mermaid"))
    described = [
        line for line in text.split("\n") if " again: " not in line and line != "nothing yet"
    ]
    assert len(chart.boxes) == len(described)
    for box, line in zip(chart.boxes, described, strict=True):
        assert line.endswith(box)


def test_arrows_point_in_the_direction_of_items() -> None:
    boxes, arrows = read(bridge().describe(format="mermaid"))
    named = {(boxes[start].split(":")[0], boxes[end].split(":")[0]) for start, end, _ in arrows}
    assert named == {
        ("SourceIterObj", "PullFilterObj"),
        ("PullFilterObj", "PullPushBridgeObj"),
        ("PullPushBridgeObj", "SinkCollectObj"),
        ("PullPushBridgeObj", "PushMapObj"),
        ("PushMapObj", "PushForkObj"),
        ("PushForkObj", "SinkCollectObj"),
        ("PushForkObj", "the sink of a buffer"),
    }
    labels = {'"', "a`b", "<b>", "#quot;", "&amp;", "two\nlines"}
    zipped = PullLabeledZipObj({label: [1] for label in labels})
    assert {label for *_, label in read(zipped.describe(format="mermaid")).arrows} == {
        repr(label) for label in labels
    }


def test_describe_10_000_stages() -> None:
    stream = source()
    top: PushObj[Any] = SinkNullObj()
    for _ in range(10_000):
        stream = stream.filter(str)
        top = PushMapObj(top, str)
    for pipeline, last in ((stream, "SourceIterObj: of list, open"), (top, "SinkNullObj: open")):
        described = pipeline.describe().split("\n")
        assert len(described) == 10_001
        assert described[-1] == last
        chart = read(pipeline.describe(format="mermaid"))
        assert (len(chart.boxes), len(chart.arrows)) == (10_001, 10_000)


def test_nested_branches_keep_a_small_indent() -> None:
    top: PushObj[Any] = SinkNullObj()
    for _ in range(2_000):
        top = PushForkObj([SinkNullObj(), top])
    text = top.describe()
    lines = text.split("\n")
    assert max(map(len, lines)) < 150
    assert sum("PushForkObj: 2 sinks" in line for line in lines) == 2_000
    assert sum("SinkNullObj: open" in line for line in lines) == 2_001
    # A reference to a later line must name an existing one.
    for number in re.findall(r"#(\d+) below: PushForkObj", text):
        assert f"\n#{number} PushForkObj: 2 sinks, open" in text


def test_stream_that_pulls_from_itself_is_listed_once() -> None:
    class Ring(PullObj[int]):
        @property
        def source(self) -> PullObj[int]:
            return self

    assert Ring().describe() == "#1 Ring: open\n#1 again: Ring"


def test_unknown_format_is_refused() -> None:
    objects: list[Any] = [source(), SinkNullObj(), PushChain.start()]
    for object_ in objects:
        wrong: Any = "svg"
        with pytest.raises(ValueError, match=r"format must be \"text\" or \"mermaid\", got 'svg'"):
            object_.describe(format=wrong)


async def test_describe_from_another_thread_at_any_time() -> None:
    async def slow(number: int) -> int:
        await asyncio.sleep(0)
        return number

    left, right = SourceIterObj(range(3_000)).map(slow, concurrency=8, window=64).tee(2)
    stream = PullRaceObj(left.dedupe(), right.prefetch(9)).batch(7)
    is_over, descriptions = threading.Event(), list[str]()

    def describe_repeatedly() -> None:
        while not is_over.is_set():
            descriptions.append(stream.describe())
            descriptions.append(stream.describe(format="mermaid"))

    describing = asyncio.create_task(asyncio.to_thread(describe_repeatedly))
    count = 0
    async for items in stream:
        count += len(items)
    await eventually(lambda: descriptions)
    is_over.set()
    await describing
    await stream.aclose()
    assert count == 6_000
    assert descriptions
    assert not [
        text for text in descriptions if "not fully initialised" in text or "cannot be read" in text
    ]


@pytest.mark.virtual
async def test_description_shows_state_while_running() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(10)
    for number in range(8):
        await buffer.sink.next(number)

    async def slow(number: int) -> int:
        await asyncio.sleep(1)
        return number

    stream = buffer.source.map(slow, concurrency=2, window=2).dedupe().batch(5)
    before = stream.describe()
    pull = asyncio.ensure_future(stream.next())
    while_running: list[str] = []
    for _ in range(2):
        await asyncio.sleep(0.9)
        while_running.append(stream.describe())
        await asyncio.sleep(0.1)
    assert (
        before
        == """\
PullWindowObj: 0 of 5 gathered, open
PullDedupeObj: 0 remembered, open
PullMapObj: 0 of 2 calls run, calls slow, open
the source of a buffer: 8 of 10 items, open"""
    )
    assert while_running == [
        """\
PullWindowObj: 0 of 5 gathered, being pulled
PullDedupeObj: 0 remembered, open
PullMapObj: 2 of 2 calls run, calls slow, open
the source of a buffer: 6 of 10 items, open""",
        """\
PullWindowObj: 2 of 5 gathered, being pulled
PullDedupeObj: 2 remembered, open
PullMapObj: 2 of 2 calls run, calls slow, open
the source of a buffer: 4 of 10 items, open""",
    ]
    assert (await pull).value == [0, 1, 2, 3, 4]
    await stream.aclose()
    assert stream.describe().split("\n")[:3] == [
        "PullWindowObj: 0 of 5 gathered, closed",
        "PullDedupeObj: 5 remembered, closed",
        "PullMapObj: 0 of 2 calls run, calls slow, closed",
    ]
