"""Law 17, at the end of a line's life: what is let go of is taken apart in a loop, not one inside the other."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from headrace import PullConcatObj, PushMapObj, SinkCollectObj, SourceIterObj
from tests.drop import INTERRUPTIONS


@pytest.mark.parametrize("way", INTERRUPTIONS)
def test_law_17_thousands_of_each_are_dropped_in_a_thread_with_little_stack(way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.drop", way],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[-2:] == ["through", ""], done.stderr
    assert done.returncode == 0


class Dropper:
    """A callable that is given something to let go of when it goes itself."""

    def __init__(self, log: list[str], name: str, *held: Any) -> None:
        self.log = log
        self.name = name
        self.held = list(held)

    def __call__(self, item: Any) -> Any:
        return item

    def __del__(self) -> None:
        while self.held:
            gone = weakref.ref(self.held[-1])
            self.held.pop()
            assert gone() is None
        self.log.append(self.name)


def test_law_17_a_short_line_is_dropped_in_order() -> None:
    log: list[str] = []
    stream: Any = SourceIterObj([1])
    for number in range(20):
        stream = stream.map(Dropper(log, str(number)))
    line: Any = SinkCollectObj()
    for number in range(20):
        line = PushMapObj(line, Dropper(log, str(number)))
    del stream
    assert log == [str(number) for number in reversed(range(20))], "the last one first"
    log.clear()
    del line
    assert log == [str(number) for number in reversed(range(20))]


@pytest.mark.parametrize("depth", [10, 300])
def test_law_17_what_goes_with_a_line_may_have_lines_of_its_own(depth: int) -> None:
    log: list[str] = []

    def line(name: str, *held: Any) -> Any:
        stream: Any = SourceIterObj([1])
        for number in range(depth):
            step = PullConcatObj(stream, [7]) if number % 2 else stream
            stream = step.map(Dropper(log, name, *held) if number == depth // 2 else abs)
        return stream

    whole = line("outer", line("first"), line("second", line("inner")))
    gone = weakref.ref(whole)
    del whole
    assert gone() is None
    assert sorted(log) == ["first", "inner", "outer", "second"]
