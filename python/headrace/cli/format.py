"""Durations, numbers and text formatted for humans, in messages, the progress display and the report."""

from __future__ import annotations

import math

MAX_SHOWN = 60
"""The characters of a record in a message."""

MAX_LISTED = 20
"""The most records that a message lists."""

# Characters that change the text direction: they would misrepresent a record.
_BIDI_CONTROLS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def format_duration(seconds: float) -> str:
    """Format as `1.23 ms` or `45.6 s`; from two minutes on as `2 min 3 s`, from two hours on as `2 h 3 min`."""
    whole = round(seconds)
    if whole >= 7200:
        return f"{round(whole / 60) // 60:,} h {round(whole / 60) % 60} min"
    if whole >= 120:
        return f"{whole // 60} min {whole % 60} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        # A value that rounds up to the unit uses it: 999.9 ms is 1.00 s.
        if seconds * factor >= 0.9995:
            return f"{format_number(seconds * factor)} {unit}"
    return f"{format_number(seconds * 1e6)} µs" if seconds else "0 s"


def format_number(value: float) -> str:
    """Format with at least three significant digits: `0.123`, `1.23`, `12.3`, `123`, `1,234`."""
    if not value:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    # Rounding may add a digit: 9.999 is 10.0.
    decimals = 2 - math.floor(math.log10(abs(round(value, decimals))))
    return f"{value:,.{max(0, min(decimals, 6))}f}"


def shorten(text: str, most: int) -> str:
    """Return one line of at most `most` characters, with unprintable characters replaced."""
    # Only a prefix is examined, because a record may be large. Runs of white space become one space.
    line = " ".join(text[: 4 * most].split())
    whole = len(text) <= 4 * most and len(line) <= most
    line = line if whole else line[: most - 1] + "…"
    return "".join(_printable(character) for character in line)


def format_records(numbers: list[int]) -> str:
    """Format record numbers as `records 3, 5, 7`, shortened to the first ones."""
    more = f" and {len(numbers) - MAX_LISTED:,} more" if len(numbers) > MAX_LISTED else ""
    return f"records {', '.join(map(str, numbers[:MAX_LISTED]))}{more}" if numbers else ""


def _printable(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of a control character
    if 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or character in _BIDI_CONTROLS:
        return "\N{REPLACEMENT CHARACTER}"
    return character
