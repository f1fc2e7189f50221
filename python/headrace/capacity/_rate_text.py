"""The text form of a `Rate`, such as `500/m`. `Rate.parse` reads it, for `headrace.amap` and for the command.

Only plain decimal notation is accepted, so that a typing error is refused and not read as another number.
"""

from __future__ import annotations

import math

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Units of a rate and their length in seconds."""

MAX_NUMBER = 1_000_000_000
"""The largest number of a rate. It is below the limit of a capacity tree."""

MAX_INTERVAL = 365 * 86400.0
"""The longest interval between two calls at a rate, in seconds: one year."""


def parse_rate_text(text: str) -> tuple[float, float]:
    """Return the amount of a rate and its period in seconds. `0.5/s` becomes one in two seconds.

    Raises:
        ValueError: The text is not a rate, or the rate is out of range.
    """
    amount, slash, unit = text.partition("/")
    number = parse_positive(amount)
    if slash and number is not None and number <= MAX_NUMBER and unit in UNITS:
        if number >= 1:
            return number, UNITS[unit]
        # A rate whose amount is below 1 could never grant a call.
        if (per := UNITS[unit] / number) <= MAX_INTERVAL:
            return 1, per
        raise ValueError(f"rate must be at least one per year, got {text!r}")
    raise ValueError(
        f"rate must be a number above 0 per s(econd), m(inute), h(our) or d(ay), such as 500/m, got {text!r}"
    )


def parse_positive(text: str) -> float | None:
    """Parse a finite number above 0 in plain decimal notation; return None for anything else."""
    # float() also accepts "1_000", " 5 ", "nan" and digits of other scripts.
    if not text.isascii() or not (text[:1].isdigit() or text[:1] == ".") or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if text == text.strip() and 0 < number < math.inf else None
