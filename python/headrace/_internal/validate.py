"""Numbers that a user gave, and flags, checked where they are given."""

from __future__ import annotations

import math

from headrace._internal.reprs import shown

__all__ = ["check_partial", "finite", "flag", "positive", "seconds", "time_limit", "whole"]


def whole(parameter: str, least: int, value: object) -> int:
    """A whole number of at least `least`.

    Raises:
        TypeError: It is no integer.
        ValueError: It is less.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{parameter} must be an integer, got {shown(value)}")
    if value < least:
        raise ValueError(f"{parameter} must be at least {least}, got {shown(value)}")
    return value


def positive(parameter: str, value: object) -> float:
    """A finite number above 0.

    Raises:
        TypeError: It is no number.
        ValueError: It is 0, negative, infinite or not a number at all.
    """
    number = finite(parameter, value)
    if number <= 0:
        raise ValueError(f"{parameter} must be positive, got {shown(value)}")
    return number


def seconds(parameter: str, value: object) -> float:
    """A finite number from 0.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, infinite or not a number at all.
    """
    number = finite(parameter, value)
    if number < 0:
        raise ValueError(f"{parameter} must not be negative, got {shown(value)}")
    return number


def finite(parameter: str, value: object) -> float:
    """A finite number.

    Raises:
        TypeError: It is no number.
        ValueError: It is infinite or not a number at all.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{parameter} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{parameter} must be a finite number, got {shown(value)}")
    return number


def time_limit(parameter: str, value: object) -> float | None:
    """A positive number of seconds, `math.inf` among them, or None.

    Raises:
        TypeError: It is neither a number nor None.
        ValueError: It is not positive, or too large to be counted.
    """
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{parameter} must be a number of seconds or None, got {shown(value)}")
    # Not a number at all, it is not above 0 either.
    if not value > 0:
        raise ValueError(f"{parameter} must be positive, got {shown(value)}")
    try:
        float(value)
    except OverflowError:
        raise ValueError(
            f"{parameter} must be a finite number of seconds, or math.inf for any time, got {shown(value)}"
        ) from None
    return value


def flag(parameter: str, value: object) -> bool:
    """True or False.

    Raises:
        TypeError: It is neither, though it may be true or false.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{parameter} must be True or False, got {shown(value)}")
    return value


def check_partial(timeout: float, partial: str) -> None:
    """Check `partial` of a batch that has a timeout: such a batch is never dropped.

    Raises:
        ValueError: It is anything but `"keep"`.
    """
    if partial == "drop":
        raise ValueError(f'partial="drop" has no meaning with a timeout, got timeout={timeout!r}')
    if partial != "keep":
        raise ValueError(f'partial must be "keep" or "drop", got {partial!r}')
