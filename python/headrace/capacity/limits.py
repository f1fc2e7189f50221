"""What a capacity may be limited to: a number held at once, an amount per time, or an amount for good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from headrace._internal.reprs import shown

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingOf

__all__ = ["SLOTS", "Amounts", "Budget", "Limit", "Limits", "Number", "Rate"]

# Of `Rate.per`, in seconds.
LEAST, MOST = 1e-6, 366 * 86400

# Amounts are held as whole numbers of millionths, up to so many units.
MICROS, LARGEST = 10**6, 10**12

SLOTS = "slots"
"""The resource that a bare number is a number of."""

Number: TypeAlias = int | float
"""An amount. It is held as a whole number of millionths, so 0.1 + 0.2 is 0.3."""

Amounts: TypeAlias = Any
"""A number where slots are all there is; otherwise a read-only mapping of resource to number."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So much in so many seconds: requests a minute, tokens a minute.

    In any stretch of `t` seconds at most `burst + amount / per * t` is let through, and what is asked for is let through at
    the first moment at which that allows it (the generic cell rate algorithm). Releasing gives nothing back; time does.

    Order: strict. While a request waits for its quota, no smaller one passes it, in its node or in another; only a higher
    priority in its own node goes first. Nothing of the rate is lost by that.

    The moment is that of a timer, and a busy loop comes late. What is granted up to 50 ms after it was ready counts as of when it
    was ready: the flow keeps its pace, and a stretch may have what the rate brings in 50 ms more. What a loop is late by
    beyond that is lost, but for what `burst` takes up: a loop that stalls for longer than `burst / (amount / per)` seconds
    lets through less than the rate.

    Args:
        amount: How much, from 0; 0 lets nothing through until it is raised. Of one that would be less than a millionth, take more,
            and a longer `per`.
        per: In how many seconds, from a microsecond to a year; a minute by default.
        burst: How much may go at once after a pause, above 0; a larger cost can never be had. By default the flow is
            even: what one has taken must have come back before the next may go, so that the burst is the largest cost; only
            a cost above `amount` can never be had.

    Raises:
        TypeError: One of them is no number.
        ValueError: One of them is negative, not finite or above 10**12, `per` is out of range, `burst` is 0, or an amount is above
            0 and less than a millionth.
    """

    amount: Number
    per: float = 60.0
    burst: Number | None = None

    def __post_init__(self) -> None:
        checked_amount("amount", self.amount)
        checked("per", self.per, above=0, most=math.inf)
        if not LEAST <= self.per <= MOST:
            raise ValueError(f"per must be from a microsecond to a year, got {shown(self.per)}")
        if self.burst is not None:
            checked_amount("burst", self.burst, above=0)


@dataclass(frozen=True, slots=True)
class Budget:
    """So much for good: dollars, the tokens of a run. What is spent does not come back.

    Order: a smaller cost may go past one that what is left does not cover, eight times; what it spends may leave that one too
    little, which then raises `BudgetExhausted`.

    Args:
        amount: How much, from 0.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, not finite, above 10**12, or above 0 and less than a millionth.
    """

    amount: Number

    def __post_init__(self) -> None:
        checked_amount("amount", self.amount)


Limit: TypeAlias = Number | Rate | Budget
"""The limit of one resource; a number is held, and comes back when it is released."""

Limits: TypeAlias = "Limit | MappingOf[str, Limit]"
"""The limits of a capacity: one for slots, or a mapping of resource to limit."""


def checked(
    parameter: str, value: object, *, above: int | None = None, most: float = LARGEST
) -> Number:
    """A finite number from 0, or above another; at most 10**12, unless another check follows.

    Raises:
        TypeError: It is no number.
        ValueError: It is less, not finite, or more.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{parameter} must be a number, got {shown(value)}")
    # An integer may be too large for a float.
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{parameter} must be finite, got {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{parameter} must be above {above}, got {shown(value)}")
    if value < 0:
        raise ValueError(f"{parameter} must not be negative, got {shown(value)}")
    if value > most:
        raise ValueError(f"{parameter} must be at most 10**12, got {shown(value)}")
    return value


def checked_amount(parameter: str, value: object, *, above: int | None = None) -> Number:
    """An amount that can be held as it is, but for less than a millionth.

    Raises:
        TypeError: It is no number.
        ValueError: As `checked`; or it is above 0 and less than a millionth.
    """
    amount = checked(parameter, value, above=above)
    if 0 < amount < 1 / MICROS:
        raise ValueError(
            f"{parameter} must be at least a millionth, which is what amounts are counted in{'' if above == 0 else ', or 0'},"
            f" got {value!r}"
        )
    return amount


def micros(amount: Number) -> int:
    """An amount in whole millionths, as the core holds it."""
    return amount * MICROS if isinstance(amount, int) else round(amount * MICROS)


def held(amount: Number) -> Number:
    """An amount to the millionth, as it is held; of the type that it was given in."""
    return amount if isinstance(amount, int) else micros(amount) / MICROS


def units(micros: int) -> Number:
    """So many millionths as an amount; a whole number if it is one."""
    return micros / MICROS if micros % MICROS else micros // MICROS


def checked_limits(parameter: str, limits: object) -> dict[str, Limit]:
    """The limits by resource, as they are held.

    Raises:
        TypeError: They are neither a limit nor a mapping of names to limits.
        ValueError: One of them cannot be held, or there is none.
    """
    if not isinstance(limits, Mapping):
        return {
            SLOTS: _checked_limit(parameter, limits, ", or a mapping of resource to one of them")
        }
    found: dict[str, Limit] = {}
    for resource, limit in cast("MappingOf[object, object]", limits).items():
        if not isinstance(resource, str):
            raise TypeError(f"the resources of {parameter} must be strings, got {shown(resource)}")
        found[resource] = _checked_limit(f"{parameter}[{resource!r}]", limit)
    if not found:
        raise ValueError(f"{parameter} must limit at least one resource, got {limits!r}")
    return found


def _checked_limit(parameter: str, limit: object, besides: str = "") -> Limit:
    if isinstance(limit, Rate):
        burst = None if limit.burst is None else held(limit.burst)
        return replace(limit, amount=held(limit.amount), burst=burst)
    if isinstance(limit, Budget):
        return replace(limit, amount=held(limit.amount))
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        raise TypeError(
            f"{parameter} must be a number, a Rate or a Budget{besides}, got {shown(limit)}"
        )
    return held(checked_amount(parameter, limit))


Lowered: TypeAlias = "list[tuple[str, str, float, float, float | None]]"
"""Limits as the core takes them: resource, kind, amount, `per`, burst."""


def lowered(limits: MappingOf[str, Limit]) -> Lowered:
    """Limits for the core."""
    lower: Lowered = []
    for resource, limit in limits.items():
        if isinstance(limit, Rate):
            lower.append((resource, "rate", limit.amount, limit.per, limit.burst))
        elif isinstance(limit, Budget):
            lower.append((resource, "budget", limit.amount, 0.0, None))
        else:
            lower.append((resource, "number", limit, 0.0, None))
    return lower


def raised(kind: str, amount: float, per: float, burst: float | None) -> Limit:
    """A limit of the core's."""
    if kind == "rate":
        return Rate(amount, per, burst)
    return Budget(amount) if kind == "budget" else amount
