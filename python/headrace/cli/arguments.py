"""Parsers for the values of options, each used as `type=` of an argument. `cli.main` builds the parser with them.

Their error messages describe a valid value; argparse adds the name of the option.
"""

from __future__ import annotations

import argparse
import math

from headrace.capacity.limits import Rate
from headrace.cli.format import shorten

MAX_NUMBER = 1_000_000_000
"""The largest number that an option accepts. It is below the limit of a capacity tree."""

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Units of a rate and their length in seconds."""

SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""Suffixes of a size and their factor in bytes."""

MAX_SIZE = 1 << 40
"""The largest size that an option accepts: one terabyte."""

MAX_INTERVAL = 365 * 86400.0
"""The longest interval between two calls at a rate, in seconds: one year."""


def parse_count(text: str) -> int:
    """Parse a whole number of at least 1."""
    if text.isascii() and text.isdigit() and (number := int(text[:20])) >= 1:
        if number <= MAX_NUMBER:
            return number
        raise argparse.ArgumentTypeError(f"must be at most {MAX_NUMBER}, got {shorten(text, 40)!r}")
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")


def parse_rate(text: str) -> Rate:
    """Parse a rate per second, minute, hour or day: `500/m`. `0.5/s` becomes one in two seconds."""
    amount, slash, unit = text.partition("/")
    number = _parse_positive(amount)
    if slash and number is not None and number <= MAX_NUMBER and unit in UNITS:
        if number >= 1:
            return Rate(number, UNITS[unit])
        # A rate whose amount is below 1 could never grant a call.
        if (per := UNITS[unit] / number) <= MAX_INTERVAL:
            return Rate(1, per)
        raise argparse.ArgumentTypeError(f"must be at least one per year, got {text!r}")
    raise argparse.ArgumentTypeError(
        f"must be a number above 0 per s(econd), m(inute), h(our) or d(ay), such as 500/m, got {text!r}"
    )


def parse_weight(text: str) -> tuple[str, float]:
    """Parse a value and its weight: `acme=3`."""
    value, equals, amount = text.rpartition("=")
    number = _parse_positive(amount)
    if equals and number is not None and 0.001 <= number <= 1_000_000:
        return value, number
    raise argparse.ArgumentTypeError(
        f"must be VALUE=WEIGHT with a weight from 0.001 to 1000000, such as acme=3, got {text!r}"
    )


def parse_natural(text: str) -> int:
    """Parse a whole number of at least 0."""
    if text.isascii() and text.isdigit() and int(text[:20]) <= MAX_NUMBER:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {MAX_NUMBER}, got {text!r}")


def parse_size(text: str) -> int:
    """Parse a size of at least 1 byte: `4096`, `100K`, `64M`, `1G`."""
    suffix = text[-1:].upper() if text[-1:].isalpha() else ""
    number = text.removesuffix(text[-1:]) if suffix else text
    if number.isascii() and number.isdigit() and suffix in SIZES:
        size = int(number[:20]) * SIZES[suffix]
        if 1 <= size <= MAX_SIZE:
            return size
    raise argparse.ArgumentTypeError(
        f"must be a size from 1 to 1024G, in bytes or with K, M or G, such as 64M, got {shorten(text, 40)!r}"
    )


def parse_seconds(text: str) -> float:
    """Parse a finite number of seconds above 0."""
    if number := _parse_positive(text):
        return number
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")


def _parse_positive(text: str) -> float | None:
    """Parse a finite number above 0 in plain decimal notation; return None for anything else."""
    # float() also accepts "1_000", " 5 ", "nan" and digits of other scripts.
    if not text.isascii() or not (text[:1].isdigit() or text[:1] == ".") or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if text == text.strip() and 0 < number < math.inf else None
