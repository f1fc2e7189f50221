"""Durations and numbers as people read them."""

from __future__ import annotations

import math

# What turns the direction of everything behind it would show a record as something that it is not.
_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def seconds_in_words(seconds: float) -> str:
    """Three figures and a unit, `1.23 ms` or `45.6 s`; from two minutes on `2 min 3 s`, from two hours on `2 h 3 min`."""
    whole = round(seconds)
    if whole >= 7200:
        return f"{round(whole / 60) // 60:,} h {round(whole / 60) % 60} min"
    if whole >= 120:
        return f"{whole // 60} min {whole % 60} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        # What rounds up to the unit belongs to it: 999.9 ms are 1.00 s.
        if seconds * factor >= 0.9995:
            return f"{figures(seconds * factor)} {unit}"
    return f"{figures(seconds * 1e6)} µs" if seconds else "0 s"


def figures(value: float) -> str:
    """A number of at least three figures: `0.123`, `1.23`, `12.3`, `123`, `1,234`."""
    if not value:
        return "0"
    behind = 2 - math.floor(math.log10(abs(value)))
    # Once rounded it may have gained a figure: 9.999 is 10.0.
    behind = 2 - math.floor(math.log10(abs(round(value, behind))))
    return f"{value:,.{max(0, min(behind, 6))}f}"


def shortened(text: str, most: int) -> str:
    """The text in one line of at most `most` characters, with marks where characters are that cannot be shown."""
    # Only so much of it is looked at: a record may be of any size, and white space is joined.
    line = " ".join(text[: 4 * most].split())
    whole = len(text) <= 4 * most and len(line) <= most
    line = line if whole else line[: most - 1] + "…"
    # Control characters have pictures of their own in Unicode; half a surrogate pair has none.
    return "".join(_shown(character) for character in line)


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or character in _TURNS:
        return "\N{REPLACEMENT CHARACTER}"
    return character
