"""Checks of arguments, called by constructors and setters.

Each function returns the value if it is valid. It raises a `TypeError` if the value is of the wrong type, and a `ValueError` if it is
out of range. The message names the parameter, the valid values and the given value.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headrace._internal.reprs import describe_value

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    """The path of a file."""

F = TypeVar("F", bound="Callable[..., Any]")


def check_integer(parameter: str, value: object) -> int:
    """Return an integer of any size."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{parameter} must be an integer, got {describe_value(value)}")
    return value


def check_int(parameter: str, least: int, value: object) -> int:
    """Return an integer of at least `least`."""
    number = check_integer(parameter, value)
    if number < least:
        raise ValueError(f"{parameter} must be at least {least}, got {describe_value(value)}")
    return number


def check_size(parameter: str, value: object) -> int:
    """Return a positive integer."""
    return check_int(parameter, 1, value)


def check_positive(parameter: str, value: object) -> float:
    """Return a finite number above 0."""
    number = check_finite(parameter, value)
    if number <= 0:
        raise ValueError(f"{parameter} must be positive, got {describe_value(value)}")
    return number


def check_seconds(parameter: str, value: object) -> float:
    """Return a finite number of at least 0."""
    number = check_finite(parameter, value)
    if number < 0:
        raise ValueError(f"{parameter} must not be negative, got {describe_value(value)}")
    return number


def check_finite(parameter: str, value: object) -> float:
    """Return a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{parameter} must be a number, got {describe_value(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{parameter} must be a finite number, got {describe_value(value)}")
    return number


def check_time_limit(parameter: str, value: object) -> float | None:
    """Return a positive number of seconds, which may be `math.inf`, or None."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(
            f"{parameter} must be a number of seconds or None, got {describe_value(value)}"
        )
    # Negated, so that NaN is refused too.
    if not value > 0:
        raise ValueError(f"{parameter} must be positive, got {describe_value(value)}")
    try:
        float(value)
    except OverflowError:
        raise ValueError(
            f"{parameter} must be a finite number of seconds, or math.inf for any time, got {describe_value(value)}"
        ) from None
    return value


def check_path(parameter: str, value: object) -> str:
    """Return the path of a file as a str."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(
            f"{parameter} must be a str, bytes or os.PathLike, got {describe_value(value)}"
        )
    return os.fsdecode(cast("str", value))


def check_flag(parameter: str, value: object) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{parameter} must be True or False, got {describe_value(value)}")
    return value


def check_callable(parameter: str, value: F) -> F:
    """Return a callable."""
    if not callable(cast("object", value)):
        raise TypeError(f"{parameter} must be callable, got {describe_value(value)}")
    return value


def check_callable_or_none(parameter: str, value: F | None) -> F | None:
    """Return a callable or None."""
    if value is not None and not callable(cast("object", value)):
        raise TypeError(f"{parameter} must be callable or None, got {describe_value(value)}")
    return value


def check_partial_with_timeout(timeout: float, partial: str) -> None:
    """Check `partial` of a batch that has a timeout: such a batch is never dropped."""
    if partial == "drop":
        raise ValueError(f'partial="drop" has no meaning with a timeout, got timeout={timeout!r}')
    check_partial(partial)


def check_partial(partial: object) -> bool:
    """Return whether an incomplete batch at the end is kept."""
    if partial not in ("keep", "drop"):
        raise ValueError(f'partial must be "keep" or "drop", got {partial!r}')
    return partial == "keep"
