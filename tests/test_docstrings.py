"""The examples in docstrings run. Names that they do not define are supplied here."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import CapacitySource, PullMapObj, SourceIterObj, testing
from headrace.testing import RecordingSink, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

Names = dict[str, Any]


def examples() -> Iterator[tuple[str, str]]:
    """Yield each documented name and its example: an indented paragraph that is under no heading."""
    for file in sorted(Path(headrace.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = f"{ast.get_docstring(node) or ''}\n"
                for block in re.findall(r"\n\n((?: {4}.*\n|\n)+)", docstring):
                    yield node.name, dedent(block).strip("\n")


EXAMPLES = dict(examples())


async def fetch(url: str = "") -> str:
    await asyncio.sleep(0)
    return f"text of {url}"


def parse(text: str) -> str:
    return text.upper()


def supplied_names() -> Names:
    """Return the names that examples use without defining them."""

    async def model(prompt: str) -> Any:
        await asyncio.sleep(1)
        return SimpleNamespace(tokens=812, text=prompt.upper())

    async def main() -> None:
        await asyncio.sleep(0)

    capacity = CapacitySource({"slots": 2, "tokens": 10_000})
    fetches, parses = (CapacitySource(20, CapacitySource(40)) for _ in range(2))
    known = {name: getattr(headrace, name) for name in dir(headrace)}
    known |= {name: getattr(testing, name) for name in dir(testing)}
    own_names: Names = {
        "Mine": lambda source: PullMapObj(source, lambda item: item * 10),
        "archive": RecordingSink[str](),
        "asyncio": asyncio,
        "capacity": capacity,
        "fast": RecordingSink[str](),
        "fetch": fetch,
        "fetches": fetches,
        "index": RecordingSink[str](),
        "is_good": bool,
        "item": "item",
        "main": main,
        "model": model,
        "parse": parse,
        "parses": parses,
        "prompts": SourceIterObj(["a", "b"]),
        "slow": RecordingSink[str](),
        "text": "text",
        "url": "url",
    }
    return known | own_names


# Code that runs beside an example, or checks its effect. An example without an entry only has to run.


async def both_ends(names: Names) -> None:
    await asyncio.sleep(1)
    await names["both"].return_()


async def balanced(names: Names) -> None:
    assert names["fetches"].limit == names["parses"].limit == 20


async def node(names: Names) -> None:
    await asyncio.sleep(1)
    assert names["machine"].held == names["fetches"].held["slots"] == 0
    assert 0 < names["fetches"].held["tokens"] <= 812


async def service(names: Names) -> None:
    await asyncio.sleep(1)
    assert 0 < names["service"].held["tokens"] <= 812


async def graph(names: Names) -> None:
    await asyncio.sleep(1)
    async with names["runner"].run_tasks() as progress:
        assert [envelope.key async for envelope in progress] == ["fetch", "parse"]


async def cached(names: Names) -> None:
    await asyncio.sleep(1)
    assert names["pages"] == ["text of /a", "text of /b", "text of /a"]
    assert names["cache"].stats().flights == 2
    assert names["capacity"].held["slots"] == 0


async def current_lease(names: Names) -> None:
    await asyncio.sleep(1)
    async with names["answers"] as answers:
        assert await answers.collect() == ["A", "B"]


async def pushed(names: Names) -> None:
    await asyncio.sleep(1)
    assert names["archive"].items == names["index"].items == ["ITEM"]


async def forked(names: Names) -> None:
    await asyncio.sleep(1)
    await names["fork"].next("item")
    await names["fork"].return_()
    await asyncio.sleep(1)
    assert names["fast"].items == names["slow"].items == ["item"]


async def queued(names: Names) -> None:
    await asyncio.sleep(1)
    assert (await anext(names["source"])).priority == 2


COMPANIONS: dict[str, Callable[[Names], Coroutine[Any, Any, None]]] = {
    "PushPullObj": both_ends,
    "HierarchicalBalancer": balanced,
    "CapacitySource": node,
    "QuotaCapacitySource": service,
    "DependencyGraph": graph,
    "Cache": cached,
    "current_lease": current_lease,
    "PushChain": pushed,
    "PushForkObj": forked,
    "PrioritySourceObj": queued,
}


def test_every_companion_has_an_example() -> None:
    assert len(EXAMPLES) == len(list(examples())) > 15
    assert COMPANIONS.keys() <= EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_example_runs(name: str) -> None:
    code = compile(EXAMPLES[name], name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = supplied_names()
    if name == "run_tasks":
        names["runner"] = headrace.HierarchicalTaskPoolRunner([fetch], CapacitySource(1))

    async def run_example() -> None:
        async with asyncio.TaskGroup() as group:
            if companion := COMPANIONS.get(name):
                group.create_task(companion(names))
            if running := eval(code, names):  # noqa: S307
                await running
        for test in [it for defined, it in names.items() if defined.startswith("test_")]:
            await test()

    if "Runner(" in EXAMPLES[name].replace("TaskPoolRunner(", ""):  # makes its own loop
        exec(code, names)  # noqa: S102
    else:
        with asyncio.Runner(loop_factory=VirtualClock()) as runner:
            runner.run(run_example())
