"""Law 17 when a pipeline is freed: its stages are deallocated iteratively, not recursively."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from headrace import PullConcatObj, PushMapObj, SinkCollectObj, SourceIterObj
from tests.drop import INTERRUPTIONS


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_law_17_thousands_drop_on_a_small_stack(interruption: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.drop", interruption],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[-2:] == ["through", ""], done.stderr
    assert done.returncode == 0


class Dropper:
    """A callable that drops the objects that it holds when it is deallocated."""

    def __init__(self, log: list[str], name: str, *held: Any) -> None:
        self.log = log
        self.name = name
        self.held = list(held)

    def __call__(self, item: Any) -> Any:
        return item

    def __del__(self) -> None:
        while self.held:
            dropped = weakref.ref(self.held[-1])
            self.held.pop()
            assert dropped() is None
        self.log.append(self.name)


def test_law_17_short_pipeline_is_dropped_in_order() -> None:
    log: list[str] = []
    stream: Any = SourceIterObj([1])
    for number in range(20):
        stream = stream.map(Dropper(log, str(number)))
    pipeline: Any = SinkCollectObj()
    for number in range(20):
        pipeline = PushMapObj(pipeline, Dropper(log, str(number)))
    del stream
    assert log == [str(number) for number in reversed(range(20))], "the last stage is dropped first"
    log.clear()
    del pipeline
    assert log == [str(number) for number in reversed(range(20))]


@pytest.mark.parametrize("depth", [10, 300])
def test_law_17_dropped_stage_may_hold_pipelines(depth: int) -> None:
    log: list[str] = []

    def pipeline(name: str, *held: Any) -> Any:
        stream: Any = SourceIterObj([1])
        for number in range(depth):
            step = PullConcatObj(stream, [7]) if number % 2 else stream
            stream = step.map(Dropper(log, name, *held) if number == depth // 2 else abs)
        return stream

    outer = pipeline("outer", pipeline("first"), pipeline("second", pipeline("inner")))
    dropped = weakref.ref(outer)
    del outer
    assert dropped() is None
    assert sorted(log) == ["first", "inner", "outer", "second"]
