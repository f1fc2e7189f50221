"""Numbers that a user gave, checked where they are given."""

from __future__ import annotations

import math

__all__ = ["finite", "positive", "seconds", "whole"]


def whole(parameter: str, least: int, value: object) -> int:
    """A whole number of at least `least`.

    Raises:
        TypeError: It is no integer.
        ValueError: It is less.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{parameter} must be an integer, got {_shown(value)}")
    if value < least:
        raise ValueError(f"{parameter} must be at least {least}, got {_shown(value)}")
    return value


def positive(parameter: str, value: object) -> float:
    """A finite number above 0.

    Raises:
        TypeError: It is no number.
        ValueError: It is 0, negative, infinite or not a number at all.
    """
    number = finite(parameter, value)
    if number <= 0:
        raise ValueError(f"{parameter} must be positive, got {_shown(value)}")
    return number


def seconds(parameter: str, value: object) -> float:
    """A finite number from 0.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, infinite or not a number at all.
    """
    number = finite(parameter, value)
    if number < 0:
        raise ValueError(f"{parameter} must not be negative, got {_shown(value)}")
    return number


def finite(parameter: str, value: object) -> float:
    """A finite number.

    Raises:
        TypeError: It is no number.
        ValueError: It is infinite or not a number at all.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{parameter} must be a number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{parameter} must be a finite number, got {_shown(value)}")
    return number


def _shown(value: object) -> str:
    """A value and its type. A text is cut, and so is a number: what `repr` refuses for its length is not shown."""
    try:
        text = repr(value)
    except ValueError:
        text = "a huge number"
    return f"{text if len(text) <= 80 else text[:80] + '…'} ({type(value).__name__})"
