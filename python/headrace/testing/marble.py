r"""Marble diagrams of streams: one character per time frame. `ScriptedSource` reads its script with `frames`.

    a-b--c|

Frame 0 has the item `a`, frame 1 nothing, frame 2 `b`, frame 5 `c`, and frame 6 the end. The same notation is the script
of a source and the result of a run, which makes tests of timing readable.

| | in this frame |
|---|---|
| `-` | nothing happens |
| `a` | any other character: that item |
| `#` | an error; the stream continues after it |
| `\|` | the end. A diagram without it stays open |
| `(a b \|)` | all of these, in this order; words of several letters are items too |
| `('a b' '\|')` | the same; a word in quotes is always an item, even with spaces, a mark or no characters |

Spaces between frames are ignored: use them to align diagrams. Quotes have a meaning only around a whole word in
parentheses; the text in them is a Python string literal.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from headrace._internal.reprs import describe_value
from headrace._internal.validate import check_positive, check_size

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mark(Enum):
    """The content of a frame that is not an item."""

    NOTHING = "-"
    ERROR = "#"
    END = "|"


END: Final = Mark.END
ERROR: Final = Mark.ERROR
_MARKS: Final = {mark.value: mark for mark in Mark}
_QUOTED: Final = r"""(?<![^\s(])(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")(?=[\s)]|$)"""
_FRAME: Final = re.compile(rf"\((?P<group>(?>(?:{_QUOTED}|[^()])*))\)|(?P<one>[^()\s])")
# A word that matches must be quoted to be read back as the same word.
_UNCLEAR: Final = re.compile(r"[\s()]|^[\"']|^$")
_QUOTES: Final = ("'", '"')
_WORD: Final = re.compile(rf"(?P<quoted>{_QUOTED})|\S+")


class MarbleError(Exception):
    """Raised by a source for a `#` in its marble diagram."""


def frames(line: str) -> Iterator[tuple[int, str | Literal[Mark.END, Mark.ERROR]]]:
    """Yield the events of a marble diagram: the frame number with the item, `END` or `ERROR`.

    Raises:
        ValueError: A parenthesis is unbalanced, a group is empty, the end is not last, or a word in quotes is not a
            Python string literal.
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
                raise ValueError(f"something follows the end in the marbles {line!r}")
            if marble is END:
                ended = True
            if marble is not Mark.NOTHING:
                yield number, marble


def _read(frame: re.Match[str]) -> Iterator[str | Mark]:
    """Yield the marbles of a frame."""
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
                    f"{word[0]} in marbles is not a Python string literal: {error.msg}"
                ) from None


async def marbles(stream: AsyncIterable[Any], *, unit: float = 1.0, most: int = 1_000) -> str:
    """Run a stream to its end, close it, and return its marble diagram.

        async def test_a_window_waits_for_its_seconds() -> None:
            stream = ScriptedSource("ab---c|")
            assert await marbles(PullWindowTimeoutObj(stream, 2, 2.0).map("".join)) == "-(ab)----(c |)"

    Use it with a virtual clock; with a real clock the diagram shows wall-clock times. Items are formatted by `str()`, and
    quoted if the text would otherwise be ambiguous. Each item is pulled as soon as the previous one has arrived.

    Args:
        stream: The stream to pull from.
        unit: The length of a frame in seconds, on the clock of the event loop.
        most: The maximum number of frames, and of marbles. A run that exceeds it is stopped, and its diagram has no end.

    Raises:
        TypeError: `stream` is not an async iterable, `unit` not a number, or `most` not an integer.
        ValueError: `unit` or `most` is not positive.
    """
    check_positive("marbles: unit", unit)
    check_size("marbles: most", most)
    if not isinstance(cast("object", stream), AsyncIterable):
        raise TypeError(
            f"marbles: stream must be an async iterable, got {describe_value(stream)}; SourceIterObj makes a stream of an iterable"
        )
    loop = asyncio.get_running_loop()
    began = loop.time()
    seen: list[list[str | Mark]] = []

    def note(marble: str | Mark) -> None:
        # Sums of floats may be slightly below the start of their frame.
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
                # Any error of the stream is recorded as a marble.
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
    """Return a marble of a group, quoted if it would be ambiguous."""
    if isinstance(marble, Mark):
        return marble.value
    is_plain = marble.isprintable() and marble not in _MARKS and not _UNCLEAR.search(marble)
    return marble if is_plain else repr(marble)
