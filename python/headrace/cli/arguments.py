"""What the values of options may look like.

Each of these is a `type=` of an argument: it says what a value must be, and argparse says of which option.
"""

from __future__ import annotations

import argparse
import math

from headrace.capacity import Rate
from headrace.cli.report.format import shortened

MOST = 1_000_000_000
"""The largest number that may be asked for; a tree of capacities takes some more."""

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""The periods of a rate, in seconds."""

SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""The suffixes of a size, in bytes."""

LARGEST = 1 << 40
"""The largest size that may be given: a terabyte."""

YEAR = 365 * 86400.0
"""The longest time from one call to the next."""


def count(text: str) -> int:
    """A whole number of at least 1."""
    if text.isascii() and text.isdigit() and (number := int(text[:20])) >= 1:
        if number <= MOST:
            return number
        msg = f"must be at most {MOST}, got {shortened(text, 40)!r}"
        raise argparse.ArgumentTypeError(msg)
    msg = f"must be a whole number of at least 1, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def rate(text: str) -> Rate:
    """So many in a second, minute, hour or day, evenly: `500/m`; `0.5/s` is one in two seconds."""
    amount, slash, unit = text.partition("/")
    number = _positive(amount)
    if slash and number is not None and number <= MOST and unit in UNITS:
        if number >= 1:
            return Rate(number, UNITS[unit])
        # One call could never be had of less than one.
        if (per := UNITS[unit] / number) <= YEAR:
            return Rate(1, per)
        msg = f"must be one in a year at least, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    msg = f"must be a number above 0 in a s(econd), m(inute), h(our) or d(ay), such as 500/m, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def weight(text: str) -> tuple[str, float]:
    """A value and its weight: `acme=3`."""
    value, equals, amount = text.rpartition("=")
    number = _positive(amount)
    if equals and number is not None and 0.001 <= number <= 1_000_000:
        return value, number
    msg = f"must be VALUE=WEIGHT with a weight from 0.001 to 1000000, such as acme=3, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def natural(text: str) -> int:
    """A whole number from 0."""
    if text.isascii() and text.isdigit() and int(text[:20]) <= MOST:
        return int(text)
    msg = f"must be a whole number from 0 to {MOST}, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def size(text: str) -> int:
    """A size of at least 1 byte: `4096`, `100K`, `64M`, `1G`."""
    suffix = text[-1:].upper() if text[-1:].isalpha() else ""
    number = text.removesuffix(text[-1:]) if suffix else text
    if number.isascii() and number.isdigit() and suffix in SIZES:
        found = int(number[:20]) * SIZES[suffix]
        if 1 <= found <= LARGEST:
            return found
    msg = f"must be a size from 1 to 1024G, in bytes or with K, M or G, such as 64M, got {shortened(text, 40)!r}"
    raise argparse.ArgumentTypeError(msg)


def seconds(text: str) -> float:
    """A finite number of seconds above 0."""
    if number := _positive(text):
        return number
    msg = f"must be a number of seconds above 0, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def _positive(text: str) -> float | None:
    """A finite number above 0, in figures as people write them; None for anything else."""
    # float() would take "1_000", " 5 ", "nan" and other alphabets' figures as well.
    if not text.isascii() or not (text[:1].isdigit() or text[:1] == ".") or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if text == text.strip() and 0 < number < math.inf else None
