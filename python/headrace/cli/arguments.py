"""Parsers for the values of options, each used as `type=` of an argument. `cli.main` builds the parser with them.

Their error messages describe a valid value; argparse adds the name of the option.
"""

from __future__ import annotations

import argparse

from headrace.capacity._rate_text import MAX_NUMBER, parse_positive
from headrace.capacity.limits import AdaptiveLimit, Rate
from headrace.cli.format import shorten

SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""Suffixes of a size and their factor in bytes."""

MAX_SIZE = 1 << 40
"""The largest size that an option accepts: one terabyte."""

AUTO_LIMIT = AdaptiveLimit(10, 1, 1000)
"""The limit of `--limit auto`."""


def parse_count(text: str) -> int:
    """Parse a whole number of at least 1."""
    if text.isascii() and text.isdigit() and (number := int(text[:20])) >= 1:
        if number <= MAX_NUMBER:
            return number
        raise argparse.ArgumentTypeError(f"must be at most {MAX_NUMBER}, got {shorten(text, 40)!r}")
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")


def parse_limit(text: str) -> int | AdaptiveLimit:
    """Parse a whole number of at least 1, or `auto` for a limit that follows the server."""
    if text == "auto":
        return AUTO_LIMIT
    try:
        return parse_count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or `auto`") from None


def most_calls(limit: int | AdaptiveLimit) -> int:
    """Return the greatest number of calls that a limit may allow at once."""
    return limit if isinstance(limit, int) else int(limit.maximum)


def parse_rate(text: str) -> Rate:
    """Parse a rate per second, minute, hour or day, or `auto`; see `Rate.parse`."""
    try:
        return Rate.parse(text)
    except ValueError as error:
        # argparse adds the name of the option.
        raise argparse.ArgumentTypeError(str(error).removeprefix("rate ")) from None


def parse_token_rate(text: str) -> Rate:
    """Parse a rate of tokens, which cannot be `auto`: the command sees no headers from which to learn it."""
    if text == "auto":
        raise argparse.ArgumentTypeError(
            "must be a number per s, m, h or d, such as 90000/m: `auto` is for --rate alone"
        )
    return parse_rate(text)


def parse_weight(text: str) -> tuple[str, float]:
    """Parse a value and its weight: `acme=3`."""
    value, equals, amount = text.rpartition("=")
    number = parse_positive(amount)
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


def parse_failures(text: str) -> float:
    """Parse a number of failures, an int of at least 0, or a share of them in percent, a float: `10`, `5%`."""
    if text.isascii() and text.isdigit() and int(text[:20]) <= MAX_NUMBER:
        return int(text)
    share = _parse_percent(text)
    if share is None or share == 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 0, or a share above 0% and below 100%, got {text!r}"
        )
    return share


def parse_share(text: str) -> float:
    """Parse a share in percent, above 0 and at most 100: `20%`."""
    share = _parse_percent(text)
    if share is None:
        raise argparse.ArgumentTypeError(
            f"must be a share above 0% and at most 100%, such as 20%, got {text!r}"
        )
    return share


def _parse_percent(text: str) -> float | None:
    number = parse_positive(text.removesuffix("%")) if text.endswith("%") else None
    return number / 100 if number is not None and number <= 100 else None


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
    if number := parse_positive(text):
        return number
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
