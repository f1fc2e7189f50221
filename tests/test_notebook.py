"""Objects in a notebook: their HTML, and a real notebook that a kernel runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from headrace import (
    AdaptiveLimit,
    Breaker,
    Budget,
    CapacitySource,
    HierarchicalTaskPoolRunner,
    PullObj,
    PullRaceObj,
    PushChain,
    PushPullBufferObj,
    Rate,
    SinkCollectObj,
    SourceIterObj,
    Task,
    amap,
)
from tests.support import Gate, quiet

if TYPE_CHECKING:
    from pathlib import Path

EVIL = '</td><script>alert("x")</script>&'


class Texts(HTMLParser):
    """The texts of HTML, by the tag around them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == [], "each tag is closed"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag not in {"script", "link", "img", "iframe"}
        assert not any("http" in str(value) and name != "xmlns" for name, value in attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.found.append((self.open[-1] if self.open else "", data))


def texts(shown: Any, *tags: str) -> list[str]:
    return [text for tag, text in Texts(shown._repr_html_()).found if tag in tags]


def drawing(shown: Any) -> ET.Element:
    svg = re.search(r"<svg.*?</svg>", shown._repr_html_(), re.DOTALL)
    assert svg is not None
    return ET.fromstring(svg[0])  # noqa: S314 - made here


def test_streams_are_drawn() -> None:
    words, numbers = SourceIterObj(["a"]), SourceIterObj([1])
    merged = PullRaceObj(words.map(str.upper), numbers).batch(2)
    assert texts(merged, "text") == [
        *("PullWindowObj", "0 of 2 gathered, open"),
        *("PullRaceObj", "2 sources, open"),
        *("PullMapObj", "calls upper, open"),
        *("SourceIterObj", "of list, open"),
        *("SourceIterObj", "of list, open"),
    ]
    assert texts(merged, "pre") == [merged.describe(format="mermaid")]
    assert merged._repr_mimebundle_(include=None, exclude=None) == {
        "text/html": merged._repr_html_(),
        "text/vnd.mermaid": merged.describe(format="mermaid"),
    }
    # Both sources of the merge are in the layer above it.
    boxes = [box for box in drawing(merged).iter() if box.tag.endswith("rect")]
    rows = [float(box.attrib["y"]) for box in boxes]
    batch, race, upper, first, second = rows
    assert batch > race > upper == second > first
    for box in boxes:
        assert float(box.attrib["x"]) >= 0


def test_push_objects_are_drawn() -> None:
    top = PushChain.start(int).distribute_labeled(
        bool, {EVIL: SinkCollectObj(), 2: SinkCollectObj()}
    )
    assert texts(top, "text")[:2] == [repr(EVIL), "2"]


async def test_bridge_is_drawn() -> None:
    buffer = PushPullBufferObj[int](3)
    assert "1 of 3" not in buffer.source.map(str)._repr_html_()
    await buffer.sink.next(1)
    assert "1 of 3 items, open" in buffer.source.map(str)._repr_html_()
    assert buffer.sink._repr_html_()


def test_long_pipeline_is_shown_as_text() -> None:
    stream: PullObj[int] = SourceIterObj([1])
    for _ in range(2_000):
        stream = stream.map(abs)
    assert texts(stream, "pre") == [stream.describe()]


def test_partly_constructed_objects_are_shown() -> None:
    kinds: list[Any] = [SourceIterObj, HierarchicalTaskPoolRunner]
    for kind in kinds:
        assert kind.__new__(kind)._repr_html_()


async def test_capacities_are_shown_as_a_tree() -> None:
    api = CapacitySource({"slots": 8, "tokens": Rate(500, 60), "usd": Budget(1_000_000)}, name=EVIL)
    tenant = CapacitySource(5, api, name="tenant", floor=2, cooldown=True)
    other = CapacitySource(AdaptiveLimit(3, 1, 9), api, breaker=Breaker())
    none = CapacitySource(0, api, name="none")
    lease = await tenant.acquire({"slots": 2, "usd": 1234.5})
    waiting = asyncio.ensure_future(none.acquire())
    await quiet()
    tenant.cool_down(30)
    other.pause()
    names = [text for text in texts(api, "td") if text in {EVIL, "tenant", "unnamed", "none"}]
    assert names == [EVIL, "tenant", "unnamed", "none"]
    html = api._repr_html_()
    found = " | ".join(texts(api, "td"))
    assert "2 of 8 slots" in found
    assert "of 500 tokens per 60 s" in found
    assert "1,234.5 of 1,000,000 usd in all" in found
    assert re.search(r"floor 2, cooldown, (30|29\.\d+) s left", found)
    assert "0 of 3 slots | 0 | paused, breaker closed" in found
    assert "0 of 0 slots | 1" in found
    assert re.findall(r'value="([\d.]+)"', html)[0] == "0.250"
    assert re.findall(r'value="([\d.]+)"', html)[3] == "0.400"
    waiting.cancel()
    await asyncio.wait([waiting])
    lease.release()


def test_wide_tree_is_cut() -> None:
    root = CapacitySource(5)
    children = [CapacitySource(1, root) for _ in range(300)]
    shown = texts(root, "td")
    assert shown[-1] == "and 101 or more others, in snapshot()"
    assert len(children) == 300


async def test_runs_are_shown() -> None:
    gate = Gate()
    stream = amap(gate, range(9), limit=CapacitySource(4, name=EVIL), errors="skip")
    async with stream:
        pull = asyncio.ensure_future(anext(stream))
        await quiet()
        assert texts(stream, "th")[:4] == ["running", "queued", "backing off", "done"]
        assert texts(stream, "td")[:4] == ["4", "1", "0", "0"]
        assert EVIL in texts(stream, "td")
        assert "4 of 4 slots" in texts(stream, "td")
        gate.open.set()
        await pull
    runner = HierarchicalTaskPoolRunner([Task(gate, 1)], 2, name=EVIL)
    async with runner.run_tasks() as run:
        for shown in (runner, run):
            assert texts(shown, "b") == [EVIL]
            assert len(texts(shown, "td")) == 7 + 3


# A real notebook.

CELLS = {
    "import": """
        import headrace
        from headrace import CapacitySource, HierarchicalTaskPoolRunner, SourceIterObj, Task

        async def double(number):
            if number == 7:
                raise ValueError(number)
            return number * 2
    """,
    "map": "headrace.map(double, range(3), limit=2)",
    "bar": "(await headrace.amap(double, range(30), limit=5, progress=True, errors='skip').collect())[-1]",
    "unknown": "len(await headrace.amap(double, iter(range(5)), limit=5, progress=True).collect())",
    "stream": "SourceIterObj(range(3)).map(str)",
    "capacity": "CapacitySource(4, name='machine')",
    "runner": "runner = HierarchicalTaskPoolRunner([Task(double, 1)], 2, name='pool'); runner",
    "run": "run = runner.run_tasks(); run",
    "mistake": "await SourceIterObj(range(3)).map(str)",
    "end": "[event.value async for event in run]",
}

PROGRAM = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
client = nbclient.NotebookClient(
    notebook, timeout=150, startup_timeout=150, kernel_name="python3", allow_errors=True
)
# It ends the kernel, also after an error.
client.execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Return the outputs of the cells, by name."""
    pytest.importorskip("nbclient", reason="runs a notebook")
    pytest.importorskip("ipykernel", reason="runs a notebook")
    folder: Path = tmp_path_factory.mktemp("notebook")
    path = folder / "notebook.ipynb"
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": name,
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": "\n".join(line.removeprefix("        ") for line in source.splitlines()),
        }
        for name, source in CELLS.items()
    ]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    # A process of its own: the kernel's client warns, and has an event loop.
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = {
        **os.environ,
        **dict.fromkeys(folders, str(folder)),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert completed.returncode == 0, completed.stderr
    done = json.loads(path.read_text(encoding="utf-8"))
    return {cell["id"]: cell["outputs"] for cell in done["cells"]}


def joined(data: str | list[str]) -> str:
    return data if isinstance(data, str) else "".join(data)


@pytest.mark.timeout(300)
def test_map_in_a_notebook_names_the_remedy(outputs: dict[str, list[Any]]) -> None:
    assert outputs["import"] == []
    (error,) = outputs["map"]
    assert error["ename"] == "RuntimeError"
    assert "use `await headrace.amap(...).collect()`" in error["evalue"]


@pytest.mark.timeout(300)
def test_bar_in_a_notebook(outputs: dict[str, list[Any]]) -> None:
    bar, result = outputs["bar"]
    assert bar["output_type"] == "display_data"
    assert joined(bar["data"]["text/plain"]) == "amap(double): 30/30, 1 failed"
    html = joined(bar["data"]["text/html"])
    assert html == (
        '<div><progress value="30" max="30"></progress> amap(double): 30/30, 1 failed</div>'
    )
    assert joined(result["data"]["text/plain"]) == "58"
    bar, result = outputs["unknown"]
    assert joined(bar["data"]["text/html"]) == "<div>amap(double): 5</div>"
    assert joined(result["data"]["text/plain"]) == "5"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("cell", "text", "html"),
    [
        ("stream", "<PullMapObj: calls str, open>", "<svg"),
        ("capacity", "<CapacitySource 'machine': 0 of 4 slots, open>", "0 of 4 slots"),
        ("runner", "<HierarchicalTaskPoolRunner 'pool': idle>", "<th>running</th>"),
        ("run", "<TaskRun: of 'pool', not started>", "<th>running</th>"),
    ],
)
def test_objects_in_a_notebook(
    outputs: dict[str, list[Any]], cell: str, text: str, html: str
) -> None:
    (result,) = outputs[cell]
    assert result["output_type"] == "execute_result"
    formats = {"text/plain", "text/html"}
    assert set(result["data"]) == formats | (
        {"text/vnd.mermaid"} if cell != "capacity" and cell != "runner" else set()
    )
    assert joined(result["data"]["text/plain"]) == text
    assert html in joined(result["data"]["text/html"])


@pytest.mark.timeout(300)
def test_mistakes_in_a_notebook_leave_it_usable(outputs: dict[str, list[Any]]) -> None:
    (error,) = outputs["mistake"]
    assert error["ename"] == "TypeError"
    assert "`await stream.collect()` for a list" in error["evalue"]
    assert joined(outputs["end"][0]["data"]["text/plain"]) == "[2]"
