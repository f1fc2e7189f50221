"""Render a run as SVG."""

from __future__ import annotations

import math
import textwrap
from html import escape
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from marbles.track import Kind, Mark, Track

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marbles.scene import Played

__all__ = ["draw"]

# Pixels. The letters are monospaced, so that the width of a text is known without measuring it.
LETTER = 7.9
LINE = 18
TRACK = 40
RADIUS = 13
GAP = 6
MARGIN = 8
NARROWEST = 34

# A colour for each source, and one for the output of the operator. White on each of them, and each of them on a white and on a dark page,
# is legible; what stands on the page itself follows the scheme of the reader.
COLOURS = ("#2563c9", "#b4541a", "#15803d", "#a3337f")
MADE = "#64598f"
STYLE = """\
:root{color-scheme:light dark}
text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#3b434e}
.m{fill:#fff;text-anchor:middle}
.l{text-anchor:end}
.s{font-size:11px;fill:#68717d}
.t{stroke:#77808c;stroke-width:1.5}
.g{stroke:#77808c;stroke-opacity:.28;stroke-dasharray:2 4}
.a{fill:#77808c}
.e{stroke:#3b434e;stroke-width:2.5}
.x{stroke:#d0342c;stroke-width:3;stroke-linecap:round}
.b{fill:#77808c;fill-opacity:.13;stroke:#77808c}
.u{fill:none;stroke:#77808c;stroke-dasharray:3 3}
.h{fill:#77808c;fill-opacity:.35}
@media(prefers-color-scheme:dark){text{fill:#d6dbe2}.m{fill:#fff}.s{fill:#a3acb8}.e{stroke:#d6dbe2}.x{stroke:#ff6b63}}
"""


def draw(played: Played) -> str:
    """Render the picture of a run."""
    return _Drawing(played).svg()


class _Drawing:
    def __init__(self, played: Played) -> None:
        self._played = played
        self._tracks = [*played.above, *played.below]
        self._colours = _colours(played)
        self._out: list[str] = []
        names = max((len(track.name) for track in self._tracks), default=0)
        self._left = round(MARGIN + names * LETTER + 12)
        # The start of each frame, which is as wide as its marks.
        widths = [NARROWEST] * (
            1 + max((m.frame for track in self._tracks for m in track.marks), default=0)
        )
        for track in self._tracks:
            for frame, marks in _by_frame(track):
                taken = sum(_width(mark) + GAP for mark in marks)
                widths[frame] = max(widths[frame], round(taken))
            if track.held:
                widths += [NARROWEST] * (track.held[1] + 1 - len(widths))
        self._starts = [self._left + 8 + start for start in accumulate(widths, initial=0)]
        code = played.scene.code.split("\n")
        self._said = textwrap.wrap(played.scene.says, 56)
        texts = [*code, *self._said, played.result]
        self._width = max(
            self._starts[-1] + 26, round(max(map(len, texts)) * LETTER) + 2 * MARGIN + 24
        )

    def svg(self) -> str:
        scene = self._played.scene
        y = MARGIN
        for track in self._played.above:
            self._track(track, y + TRACK / 2)
            y += TRACK
        code = scene.code.split("\n")
        tall = len(code) * LINE + 16 if len(code) > 1 else LINE + 14
        box = y + 4
        self._add(
            f'<rect class="b" x="{MARGIN}" y="{box}" width="{self._width - 2 * MARGIN}" height="{tall}" rx="6"/>'
        )
        for number, line in enumerate(code):
            self._text(MARGIN + 12, box + LINE + 2 + number * LINE, line)
        y = box + tall + 4
        for track in self._played.below:
            self._track(track, y + TRACK / 2)
            y += TRACK
        if self._tracks:
            self._grid(y)
            y += LINE
        if self._played.result:
            self._text(MARGIN + 12, y + 14, self._played.result)
            y += LINE + 2
        for line in self._said:
            self._text(MARGIN + 12, y + 12, line, "s")
            y += LINE - 2
        y += MARGIN
        said = escape(f"{scene.code.replace(chr(10), ' ')}: {self._played.lines()}")
        size = f'width="{self._width}" height="{y}" viewBox="0 0 {self._width} {y}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
                f"<title>{escape(scene.operator)}</title>",
                f"<desc>{said}</desc>",
                f"<style>\n{STYLE}</style>",
                *self._out,
                "</svg>\n",
            ]
        )

    def _add(self, element: str) -> None:
        self._out.append(element)

    def _text(self, x: float, y: float, text: str, kind: str = "") -> None:
        kind = f' class="{kind}"' if kind else ""
        self._add(f'<text{kind} x="{x:g}" y="{y:g}" xml:space="preserve">{escape(text)}</text>')

    def _grid(self, y: float) -> None:
        """Draw the grid of seconds, behind everything."""
        lines = [f'<path class="g" d="M{start} {MARGIN}V{y:g}"/>' for start in self._starts[:-1]]
        self._out[:0] = lines
        for second, start in enumerate(self._starts[:-1]):
            self._text(start - 3, y + 12, str(second), "s")
        self._text(self._starts[-1] - 3, y + 12, "s", "s")

    def _track(self, track: Track, y: float) -> None:
        self._text(self._left - 4, y + 4.5, track.name, "l")
        if track.held is not None:
            start, end = (self._starts[frame] for frame in track.held)
            self._add(
                f'<rect class="h" x="{start}" y="{y - 8}" width="{end - start}" height="16" rx="3"/>'
            )
            return
        places = list(self._placed(track))
        # The line ends with the stream, or before the first item that was never pulled; otherwise it continues.
        stops = [x for x, mark in places if mark.kind is Kind.END]
        stops += [x - _width(mark) / 2 - GAP for x, mark in places if mark.kind is Kind.LEFT]
        tip = stops[0] if stops else self._starts[-1] + 10
        self._add(f'<path class="t" d="M{self._left} {y}H{max(tip, self._left):g}"/>')
        if not stops:
            self._add(f'<path class="a" d="M{tip + 8:g} {y}l-9 -4.5v9z"/>')
        for x, mark in places:
            self._mark(x, y, mark)

    def _placed(self, track: Track) -> Iterator[tuple[float, Mark]]:
        """Yield each mark with the centre of its position: marks of one frame are side by side."""
        for frame, marks in _by_frame(track):
            x = float(self._starts[frame])
            for mark in marks:
                width = _width(mark)
                yield x + width / 2, mark
                x += width + GAP

    def _mark(self, x: float, y: float, mark: Mark) -> None:
        if mark.kind is Kind.END:
            self._add(f'<path class="e" d="M{x:g} {y - 12}v24"/>')
        elif mark.kind is Kind.ERROR:
            self._add(f'<path class="x" d="M{x - 7:g} {y - 7}l14 14m0 -14l-14 14"/>')
        else:
            width = _width(mark)
            look = (
                'class="u"'
                if mark.kind is Kind.LEFT
                else f'fill="{self._colours.get(mark.text, MADE)}"'
            )
            self._add(
                f'<rect {look} x="{x - width / 2:g}" y="{y - RADIUS}" width="{width:g}" height="{2 * RADIUS}" rx="{RADIUS}"/>'
            )
            kind = "m" if mark.kind is Kind.ITEM else "s"
            anchor = "" if kind == "m" else ' text-anchor="middle"'
            self._add(
                f'<text class="{kind}" x="{x:g}" y="{y + 4.5:g}"{anchor}>{escape(mark.text)}</text>'
            )


def _by_frame(track: Track) -> Iterator[tuple[int, list[Mark]]]:
    for frame, marks in groupby(track.marks, key=lambda mark: mark.frame):
        yield frame, list(marks)


def _width(mark: Mark) -> float:
    if mark.kind is Kind.END:
        return 6
    if mark.kind is Kind.ERROR:
        return 18
    return max(2 * RADIUS, math.ceil(len(mark.text) * LETTER) + 14)


def _colours(played: Played) -> dict[str, str]:
    """Map each item to the colour of the upper track that had it first."""
    found: dict[str, str] = {}
    for track, colour in zip(
        (track for track in played.above if track.held is None), COLOURS, strict=False
    ):
        for mark in track.marks:
            found.setdefault(mark.text, colour)
    return found
