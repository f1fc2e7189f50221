r"""Streams as lines of marbles: one character for one frame of time.

    a-b--c|

At frame 0 comes `a`, at frame 1 nothing, at frame 2 `b`, at frame 5 `c`, and at frame 6 the end. The same line says what
a source does and what came out of a run, so that a test of time reads as a picture.

| | in this frame |
|---|---|
| `-` | nothing happens |
| `a` | any other character: that item |
| `#` | an error; the stream goes on behind it |
| `\|` | the end. A line without one stays open |
| `(a b \|)` | all of these, in this order; words of several letters are items too |
| `('a b' '\|')` | the same; what stands in quotes is an item, whatever it has: blanks, a mark, nothing |

Spaces between frames mean nothing: they are there to set one line under the other. In quotes, which have a meaning only
around a whole word in parentheses, a text is written as Python writes it.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from headrace._internal.reprs import describe_value
from headrace._internal.validate import check_finite

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mark(Enum):
    """What happens in a frame and is no item."""

    NOTHING = "-"
    ERROR = "#"
    END = "|"


END: Final = Mark.END
ERROR: Final = Mark.ERROR
_MARKS: Final = {mark.value: mark for mark in Mark}
_QUOTED: Final = r"""(?<![^\s(])(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")(?=[\s)]|$)"""
_FRAME: Final = re.compile(rf"\((?P<group>(?>(?:{_QUOTED}|[^()])*))\)|(?P<one>[^()\s])")
# What a word may not have without quotes, to be read as this word.
_UNCLEAR: Final = re.compile(r"[\s()]|^[\"']|^$")
_QUOTES: Final = ("'", '"')
_WORD: Final = re.compile(rf"(?P<quoted>{_QUOTED})|\S+")


class MarbleError(Exception):
    """What a `#` in a line of marbles raises."""


def frames(line: str) -> Iterator[tuple[int, str | Literal[Mark.END, Mark.ERROR]]]:
    """What happens in a line of marbles: the number of the frame, and the item, or `END` or `ERROR`.

    Raises:
        ValueError: A parenthesis has no partner, a group is empty, something stands behind the end, or what stands in
            quotes is no text as Python writes it.
    """
    rest = _FRAME.sub("", line)
    if rest.strip():
        raise ValueError(f"a parenthesis without its partner in the marbles {line!r}")
    ended = False
    for number, frame in enumerate(_FRAME.finditer(line)):
        marbles = list(_read(frame))
        if not marbles:
            raise ValueError(f"an empty group in the marbles {line!r}: write - for nothing")
        for marble in marbles:
            if ended:
                raise ValueError(f"something stands behind the end in the marbles {line!r}")
            if marble is END:
                ended = True
            if marble is not Mark.NOTHING:
                yield number, marble


def _read(frame: re.Match[str]) -> Iterator[str | Mark]:
    """The marbles of a frame."""
    group = frame["group"]
    if group is None:
        yield _MARKS.get(frame["one"], frame["one"])
        return
    for word in _WORD.finditer(group):
        if word["quoted"] is None:
            yield _MARKS.get(word[0], word[0])
        else:
            try:
                yield ast.literal_eval(word[0])
            except SyntaxError as error:
                raise ValueError(
                    f"{word[0]} in marbles is no text as Python writes it: {error.msg}"
                ) from None


def checked_unit(where: str, unit: object) -> float:
    """The seconds of a frame, checked.

    Raises:
        TypeError: They are no number.
        ValueError: They are not positive, or not finite.
    """
    if (number := check_finite(f"{where}: unit", unit)) <= 0:
        raise ValueError(f"{where}: unit must be a positive number of seconds, got {unit!r}")
    return number


async def marbles(stream: AsyncIterable[Any], *, unit: float = 1.0, most: int = 1_000) -> str:
    """Runs a stream to its end, closes it, and gives the line of marbles that it was.

        async def test_a_window_waits_for_its_seconds() -> None:
            stream = ScriptedSource("ab---c|")
            assert await marbles(PullWindowTimeoutObj(stream, 2, 2.0).map("".join)) == "-(ab)----(c |)"

    For a virtual clock: on a real one the line says when things happened by the wall. Items are written as `str()` has
    them, in quotes where a reader of the line would take them for something else, and are pulled as soon as the one before
    was there.

    Args:
        stream: What to pull from.
        unit: How many seconds of the loop's clock a frame has.
        most: The run is broken off after that many frames, or that many marbles. Its line then has no end.

    Raises:
        TypeError: `stream` is no async iterable, `unit` no number, or `most` no integer.
        ValueError: `unit` or `most` is not positive.
    """
    checked_unit("marbles", unit)
    if not isinstance(cast("object", most), int) or isinstance(most, bool):
        raise TypeError(
            f"marbles: most must be a positive number of frames, got {describe_value(most)}"
        )
    if most < 1:
        raise ValueError(f"marbles: most must be a positive number of frames, got {most!r}")
    if not isinstance(cast("object", stream), AsyncIterable):
        raise TypeError(
            f"marbles: stream must be an async iterable, got {describe_value(stream)}; SourceIterObj makes a stream of an iterable"
        )
    loop = asyncio.get_running_loop()
    began = loop.time()
    seen: list[list[str | Mark]] = []

    def note(marble: str | Mark) -> None:
        # Sums of floats fall a hair short of the frame that they mean.
        frame = int((loop.time() - began) / unit + 1e-6)
        seen.extend([] for _ in range(frame + 1 - len(seen)))
        seen[frame].append(marble)

    iterator = aiter(stream)
    try:
        async with asyncio.timeout(most * unit):
            for _ in range(most):
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    note(END)
                    break
                # Whatever it is, it is a marble.
                except Exception:
                    note(ERROR)
                else:
                    note(str(item))
    except TimeoutError:
        pass
    finally:
        if (aclose := getattr(iterator, "aclose", None)) is not None:
            await aclose()
    return "".join(_written(frame) for frame in seen)


def _written(frame: list[str | Mark]) -> str:
    if not frame:
        return Mark.NOTHING.value
    if len(frame) == 1:
        only = frame[0]
        if isinstance(only, Mark):
            return only.value
        if len(only) == 1 and (only in _QUOTES or _word(only) == only):
            return only
    return f"({' '.join(map(_word, frame))})"


def _word(marble: str | Mark) -> str:
    """A marble among others, so that it is read as what it is."""
    if isinstance(marble, Mark):
        return marble.value
    is_plain = marble.isprintable() and marble not in _MARKS and not _UNCLEAR.search(marble)
    return marble if is_plain else repr(marble)
