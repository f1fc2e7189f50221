"""What the values of options may look like.

Each of these is a `type=` of an argument: it says what a value must be, and argparse says of which option.
"""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """A whole number of at least 1."""
    if text.isascii() and text.isdigit() and (number := int(text)) >= 1:
        return number
    msg = f"must be a whole number of at least 1, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if text.isascii() and text.isdigit():
        return int(text)
    msg = f"must be a whole number of at least 0, got {text!r}"
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
