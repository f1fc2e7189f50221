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

Spaces between frames mean nothing: they are there to set one line under the other.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator

__all__ = ["END", "ERROR", "MarbleError", "frames", "marbles"]

END: Final = "|"
ERROR: Final = "#"
_NOTHING: Final = "-"
_FRAME: Final = re.compile(r"\((?P<group>[^()]*)\)|(?P<one>[^()\s])")


class MarbleError(Exception):
    """What a `#` in a line of marbles raises."""


def frames(line: str) -> Iterator[tuple[int, str]]:
    """What happens in a line of marbles: the number of the frame and the marble, `END` and `ERROR` among them.

    Raises:
        ValueError: A parenthesis has no partner, a group is empty, or something stands behind the end.
    """
    rest = _FRAME.sub("", line)
    if rest.strip():
        raise ValueError(f"a parenthesis without its partner in the marbles {line!r}")
    ended = False
    for number, frame in enumerate(_FRAME.finditer(line)):
        group = frame["group"]
        marbles = [frame["one"]] if group is None else group.split()
        if not marbles:
            raise ValueError(f"an empty group in the marbles {line!r}: write - for nothing")
        for marble in marbles:
            if ended:
                raise ValueError(f"something stands behind the end in the marbles {line!r}")
            if marble == END:
                ended = True
            if marble != _NOTHING:
                yield number, marble


async def marbles(stream: AsyncIterable[Any], *, unit: float = 1.0, most: int = 1_000) -> str:
    """Runs a stream to its end, closes it, and gives the line of marbles that it was.

        async def test_a_window_waits_for_its_seconds() -> None:
            stream = ScriptedSource("ab---c|")
            assert await marbles(PullWindowTimeoutObj(stream, 2, 2.0).map("".join)) == "-(ab)---(c |)"

    For a virtual clock: on a real one the line says when things happened by the wall. Items are written as `str()` has
    them, and are pulled as soon as the one before was there.

    Args:
        stream: What to pull from.
        unit: How many seconds of the loop's clock a frame has.
        most: The run is broken off after that many frames, or that many marbles. Its line then has no end.

    Raises:
        ValueError: `unit` or `most` is not positive.
    """
    if not unit > 0:
        raise ValueError(f"marbles: unit must be a positive number of seconds, got {unit!r}")
    if most < 1:
        raise ValueError(f"marbles: most must be a positive number of frames, got {most!r}")
    loop = asyncio.get_running_loop()
    began = loop.time()
    seen: list[list[str]] = []

    def note(marble: str) -> None:
        # Sums of floats fall a hair short of the frame that they mean.
        frame = int((loop.time() - began) / unit + 1e-6)
        seen.extend([] for _ in range(frame + 1 - len(seen)))
        seen[frame].append(marble)

    iterator = aiter(stream)
    try:
        async with asyncio.timeout(most * unit):
            for _ in range(most):
                try:
                    note(str(await anext(iterator)))
                except StopAsyncIteration:
                    note(END)
                    break
                # Whatever it is, it is a marble.
                except Exception:
                    note(ERROR)
    except TimeoutError:
        pass
    finally:
        if (aclose := getattr(iterator, "aclose", None)) is not None:
            await aclose()
    return "".join(_written(frame) for frame in seen)


def _written(frame: list[str]) -> str:
    if not frame:
        return _NOTHING
    if len(frame) == 1 and len(frame[0]) == 1:
        return frame[0]
    return f"({' '.join(frame)})"
