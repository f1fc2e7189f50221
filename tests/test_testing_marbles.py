"""Marble strings: a source plays one, and a run is recorded as one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, strategies as st

from headrace import PullRaceObj, PullWindowTimeoutObj, SourceIterObj
from headrace.testing import (
    AtTime,
    Delay,
    MarbleError,
    RecordingSink,
    ScriptedSource,
    VirtualClock,
    assert_closed,
    marbles,
)
from headrace.testing.marble import frames
from tests.support import collect, wrong

pytestmark = pytest.mark.virtual


async def test_recording_equals_played_marbles() -> None:
    for text in (
        "|",
        "a|",
        "a-b--c|",
        "(a b)-|",
        "-a#b(c #)--(d |)",
        "(one two)-(three |)",
        "('a b')-('-' '#' '|' # |)",
        "('' ' ' '(' ')' don't |)",
        "'-\"|",
        """("it's so" '\\n' |)""",
    ):
        source = ScriptedSource(text)
        assert await marbles(source) == text
        assert_closed(source)


@given(
    st.lists(
        st.lists(st.sampled_from("abc#"), max_size=3),
        max_size=12,
    )
)
def test_any_recording_equals_played_marbles(moments: list[list[str]]) -> None:
    text = "".join(
        "-" if not moment else moment[0] if len(moment) == 1 else f"({' '.join(moment)})"
        for moment in moments
    )
    with asyncio.Runner(loop_factory=VirtualClock()) as runner:
        assert runner.run(marbles(ScriptedSource(f"{text}|", unit=0.1), unit=0.1)) == f"{text}|"


@given(st.lists(st.lists(st.text(max_size=3), max_size=3), max_size=8))
def test_any_item_survives_the_round_trip(moments: list[list[str]]) -> None:
    script: list[Any] = []
    for number, moment in enumerate(moments):
        script += [AtTime(number), *moment]
    with asyncio.Runner(loop_factory=VirtualClock()) as runner:
        text = runner.run(marbles(ScriptedSource(script)))
        assert runner.run(marbles(ScriptedSource(text))) == text
        items = runner.run(collect(ScriptedSource(text)))
    assert items == [item for moment in moments for item in moment]


async def test_items_that_look_like_marks_are_quoted() -> None:
    items = [
        "a b",
        "|",
        "-",
        "#",
        "(",
        ")",
        "",
        " ",
        "\n",
        "'a",
        "a'",
        "\x00",
        "word",
        7,
        None,
        ("a", 1),
    ]
    assert await marbles(SourceIterObj(items)) == (
        "('a b' '|' '-' '#' '(' ')' '' ' ' '\\n' \"'a\" a' '\\x00' word 7 None \"('a', 1)\" |)"
    )
    for alone in ("-", "#", "|", "(", " ", "\x00"):
        assert await marbles(ScriptedSource([alone, Delay(1)])) == f"({alone!r})|"


async def test_failing_str_of_an_item_is_raised() -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError("mute")

    with pytest.raises(ValueError, match="mute"):
        await marbles(SourceIterObj([Mute()]))


async def test_late_pull_gets_its_item_at_once() -> None:
    stream = aiter(ScriptedSource("abc--d|"))
    loop = asyncio.get_running_loop()
    assert await anext(stream) == "a"
    await asyncio.sleep(3)
    assert [await anext(stream), await anext(stream), loop.time()] == ["b", "c", 3]
    assert [await anext(stream), loop.time()] == ["d", 5]


async def test_spaces_are_ignored() -> None:
    left = ScriptedSource("a---b---|")
    right = ScriptedSource(" -c - - - d |")
    assert await marbles(PullRaceObj(left, right)) == "ac--bd--|"


async def test_batch_waits_for_its_timeout() -> None:
    stream = ScriptedSource("ab---c|")
    assert await marbles(PullWindowTimeoutObj(stream, 2, 2.0).map("".join)) == "-(ab)----(c |)"


async def test_marbles_without_end_stay_open() -> None:
    assert await marbles(ScriptedSource("a-b"), most=10) == "a-b"


async def test_endless_stream_is_cut_off() -> None:
    def broken(_: int) -> int:
        raise ValueError

    assert await marbles(SourceIterObj(iter(int, 1)), most=3) == "(0 0 0)"
    assert await marbles(SourceIterObj(iter(int, 1)).map(broken), most=3) == "(# # #)"


async def test_marble_error_names_its_frame() -> None:
    stream = aiter(ScriptedSource("-#|"))
    with pytest.raises(MarbleError, match=r"frame 1 of '-#\|'"):
        await anext(stream)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a(b", "partner"),
        ("a)b", "partner"),
        ("a()b", "empty group"),
        ("a|b", "follows the end"),
        ("(| a)", "follows the end"),
        ("(('')|", "partner"),
        (r"('\x')|", "not a Python string literal"),
    ],
)
async def test_invalid_marbles_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(frames(text))
    with pytest.raises(ValueError, match=message):
        ScriptedSource(text)


async def test_unit_and_most_must_be_positive() -> None:
    with pytest.raises(TypeError, match=r"ScriptedSource: unit must be a number, got 'x' \(str\)"):
        ScriptedSource("a|", unit=wrong("x"))
    with pytest.raises(TypeError, match=r"marbles: unit must be a number, got None"):
        await marbles(ScriptedSource("a|"), unit=wrong(None))
    with pytest.raises(TypeError, match=r"most must be an integer, got 1.5"):
        await marbles(ScriptedSource("a|"), most=wrong(1.5))
    with pytest.raises(
        TypeError, match=r"stream must be an async iterable, got \[1\] .*SourceIterObj"
    ):
        await marbles(wrong([1]))
    with pytest.raises(ValueError, match="unit must be positive, got 0"):
        ScriptedSource("a|", unit=0)
    with pytest.raises(ValueError, match="unit must be positive, got -1"):
        await marbles(ScriptedSource("a|"), unit=-1)
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        await marbles(ScriptedSource("a|"), most=0)


async def test_assert_closed_names_what_is_open() -> None:
    source, sink = ScriptedSource("ab|"), RecordingSink[str]()
    assert_closed(source)  # It was never opened.
    stream = aiter(source)
    await anext(stream)
    with pytest.raises(AssertionError, match=r"left open: <ScriptedSource.*<RecordingSink"):
        assert_closed(source, sink)
    await stream.aclose()
    await sink.return_()
    assert_closed(source, sink)
    slow = ScriptedSource("ab|", closing=2)
    stream = aiter(slow)
    await anext(stream)
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    with pytest.raises(
        AssertionError,
        match=r"^its closing was interrupted: <ScriptedSource.*closed 0 of 1 begun>$",
    ):
        assert_closed(source, slow)
    with pytest.raises(TypeError, match="name the sources and sinks"):
        assert_closed()
    with pytest.raises(TypeError, match="got 7"):
        assert_closed(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
