"""Lines of marbles: what a source plays is what comes out of a run."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, strategies as st

from headrace import PullRaceObj, PullWindowTimeoutObj, SourceIterObj
from headrace.testing import (
    MarbleError,
    RecordingSink,
    ScriptedSource,
    VirtualClock,
    assert_closed,
    marbles,
)
from headrace.testing.marble import frames

pytestmark = pytest.mark.virtual


async def test_a_line_comes_out_as_it_went_in() -> None:
    for line in ("|", "a|", "a-b--c|", "(a b)-|", "-a#b(c #)--(d |)", "(one two)-(three |)"):
        source = ScriptedSource(line)
        assert await marbles(source) == line
        assert_closed(source)


@given(
    st.lists(
        st.lists(st.sampled_from("abc#"), max_size=3),
        max_size=12,
    )
)
def test_any_line_comes_out_as_it_went_in(moments: list[list[str]]) -> None:
    line = "".join(
        "-" if not moment else moment[0] if len(moment) == 1 else f"({' '.join(moment)})"
        for moment in moments
    )
    with asyncio.Runner(loop_factory=VirtualClock()) as runner:
        assert runner.run(marbles(ScriptedSource(f"{line}|", unit=0.1), unit=0.1)) == f"{line}|"


async def test_an_item_that_is_asked_for_late_is_there_at_once() -> None:
    stream = aiter(ScriptedSource("abc--d|"))
    loop = asyncio.get_running_loop()
    assert await anext(stream) == "a"
    await asyncio.sleep(3)
    assert [await anext(stream), await anext(stream), loop.time()] == ["b", "c", 3]
    assert [await anext(stream), loop.time()] == ["d", 5]


async def test_spaces_line_pictures_up() -> None:
    left = ScriptedSource("a---b---|")
    right = ScriptedSource(" -c - - - d |")
    assert await marbles(PullRaceObj(left, right)) == "ac--bd--|"


async def test_a_window_waits_for_its_seconds() -> None:
    stream = ScriptedSource("ab---c|")
    assert await marbles(PullWindowTimeoutObj(stream, 2, 2.0).map("".join)) == "-(ab)----(c |)"


async def test_a_line_without_an_end_stays_open() -> None:
    assert await marbles(ScriptedSource("a-b"), most=10) == "a-b"


async def test_what_gives_items_or_errors_for_ever_is_broken_off() -> None:
    def broken(_: int) -> int:
        raise ValueError

    assert await marbles(SourceIterObj(iter(int, 1)), most=3) == "(0 0 0)"
    assert await marbles(SourceIterObj(iter(int, 1)).map(broken), most=3) == "(# # #)"


async def test_an_error_says_where_it_stands() -> None:
    stream = aiter(ScriptedSource("-#|"))
    with pytest.raises(MarbleError, match=r"frame 1 of '-#\|'"):
        await anext(stream)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a(b", "partner"),
        ("a)b", "partner"),
        ("a()b", "empty group"),
        ("a|b", "behind the end"),
        ("(| a)", "behind the end"),
    ],
)
async def test_what_is_no_line_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(frames(line))
    with pytest.raises(ValueError, match=message):
        ScriptedSource(line)


async def test_units_are_positive() -> None:
    with pytest.raises(ValueError, match="unit must be a positive number of seconds, got 0"):
        ScriptedSource("a|", unit=0)
    with pytest.raises(ValueError, match="unit must be a positive number of seconds, got -1"):
        await marbles(ScriptedSource("a|"), unit=-1)
    with pytest.raises(ValueError, match="most must be a positive number of frames, got 0"):
        await marbles(ScriptedSource("a|"), most=0)


async def test_what_was_left_open_is_named() -> None:
    source, sink = ScriptedSource("ab|"), RecordingSink[str]()
    assert_closed(source)  # Nobody opened it.
    stream = aiter(source)
    await anext(stream)
    with pytest.raises(AssertionError, match=r"left open: <ScriptedSource.*<RecordingSink"):
        assert_closed(source, sink)
    await stream.aclose()
    await sink.return_()
    assert_closed(source, sink)
    with pytest.raises(TypeError, match="name the sources and sinks"):
        assert_closed()
    with pytest.raises(TypeError, match="got 7"):
        assert_closed(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
