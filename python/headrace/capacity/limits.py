"""The kinds of limits of a capacity: a number held at once, an `AdaptiveLimit` of it, an amount per time (`Rate`), a total (`Budget`).

`CapacitySource` checks its limits here and converts them to the form of the core, which counts whole millionths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from headrace._internal.reprs import describe_value

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingOf

# The range of `Rate.per`, in seconds.
LEAST, MOST = 1e-6, 366 * 86400

# Amounts are stored as whole numbers of millionths; the second is the largest amount, in units.
MICROS, LARGEST = 10**6, 10**12

SLOTS = "slots"
"""The resource that a bare number limits."""

Number: TypeAlias = int | float
"""An amount. It is stored as a whole number of millionths, so 0.1 + 0.2 is 0.3."""

Cost: TypeAlias = Number | Mapping[str, Number]
"""An amount of slots, or amounts by resource."""

Amounts: TypeAlias = Any
"""A number if a node limits only slots; otherwise a read-only mapping of resource to number."""


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount per period: requests per minute, tokens per minute.

    In any interval of `t` seconds at most `burst + amount / per * t` is granted, and each request is granted at the first
    moment that this allows (the generic cell rate algorithm). Time restores the quota; releasing a lease returns nothing.

    Order: strict. While a request waits for its quota, no smaller request overtakes it, in its node or in another. Only a
    higher priority in its own node is granted first. No quota is lost by this.

    A timer grants waiting requests, and a busy event loop runs its timers late. A grant up to 50 ms late is counted from the
    time at which it was due: the rate is kept, and an interval may contain 50 ms worth of quota more. Quota from longer
    delays is lost, except for the part that `burst` can hold: an event loop that stalls for longer than
    `burst / (amount / per)` seconds grants less than the rate.

    Args:
        amount: The amount per period, 0 or more. 0 grants nothing until it is raised. Instead of an amount below a
            millionth, use a larger amount with a longer `per`.
        per: The period in seconds, from a microsecond to a year; a minute by default.
        burst: The amount that may be granted at once after a pause, above 0. A larger cost can never be granted. By default
            the flow is even: the quota of one grant must be restored before the next grant, so the burst is the largest
            cost. Only a cost above `amount` can then never be granted.

    Raises:
        TypeError: A parameter is not a number.
        ValueError: A parameter is negative, not finite or above 10**12, `per` is out of range, `burst` is 0, or an amount is above
            0 and less than a millionth.
    """

    amount: Number
    per: float = 60.0
    burst: Number | None = None

    def __post_init__(self) -> None:
        checked_amount("amount", self.amount)
        checked("per", self.per, above=0, most=math.inf)
        if not LEAST <= self.per <= MOST:
            raise ValueError(
                f"per must be from a microsecond to a year, got {describe_value(self.per)}"
            )
        if self.burst is not None:
            checked_amount("burst", self.burst, above=0)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Return the rate of a text such as `"500/m"`: a number above 0, per `s`, `m`, `h` or `d`. `"auto"` is `Rate.auto()`.

        An amount below 1 becomes 1 in a longer period: `"0.5/s"` is one in two seconds.

        Raises:
            TypeError: `text` is not a string.
            ValueError: The text is not a rate, or the rate is out of range.
        """
        # Late: few programs need it.
        from headrace.capacity._rate_text import parse_rate_text

        if not isinstance(cast("object", text), str):
            raise TypeError(f"rate must be a string such as '500/m', got {describe_value(text)}")
        return Rate.auto() if text == "auto" else cls(*parse_rate_text(text))

    @staticmethod
    def auto(
        start: Number = 60,
        per: float = 60.0,
        *,
        minimum: Number | None = None,
        maximum: Number | None = None,
        burst: Number | None = None,
    ) -> AutoRate:
        """Return a rate that follows the server: it learns from the limits in the headers of answers, and from 429s.

            api = CapacitySource({"slots": 40, "requests": Rate.auto(), "tokens": Rate.auto(10_000)})

        A task pool reports the outcomes of its tasks, and the headers of their errors, by itself. The headers of other answers come from
        `headrace.http.observe(client)` or `lease.report(headers=...)`. A resource with "token" in its name learns from the limits of
        tokens, any other resource from those of requests. Without reports the rate stays at `start`.

        Law: any interval of `t` seconds has at most `burst` plus the rates of that time; the rate stays between `minimum` and `maximum`.
        With headers the rate spends what is left until it is restored, so a single client causes no 429 after the first answer,
        and several clients share evenly. Calls that begin before the first answer may still be refused: where calls take many
        seconds, these are up to `start` times that. Without headers it rises only while a request waits for it and for nothing
        else, and falls once for the 429s of one moment. Calls that began before a decrease cause no other one.
        A throttled answer without a delay that lowers the rate only pauses the node, as for an `AdaptiveLimit`.
        Order: as any `Rate`. A cost of any size is accepted; one above `burst` is granted when all quota is restored.
        Cost: a lock and some arithmetic for each report; nothing for other limits.

        `resize(Rate(...))` sets the maximum and keeps what was learned. `capacity.limits` has the current rate.

        Args:
            start: The amount per period before the first report, above 0; one in each second by default.
            per: The period in seconds, as in `Rate`.
            minimum: The least amount, above 0. By default a tenth of `start`, but at most 6 a minute.
            maximum: The greatest amount. By default 10**9 a minute, and at least `start`.
            burst: As in `Rate`: the amount that may be granted at once after a pause. By default the flow is even.

        Raises:
            TypeError: A parameter is not a number.
            ValueError: As `Rate`; or the parameters are not in the order minimum, start, maximum.
        """
        checked_amount("start", start, above=0)
        checked("per", per, above=0, most=math.inf)
        if minimum is None:
            minimum = min(start / 10, per / 10) or start
            minimum = max(minimum, 1 / MICROS)
        if maximum is None:
            maximum = min(max(start, 1e9 * per / 60), LARGEST)
        return AutoRate(start, per, burst, minimum, maximum)


@dataclass(frozen=True, slots=True)
class AutoRate(Rate):
    """A rate that follows the server. `Rate.auto()` creates it and explains it; `amount` is the start."""

    minimum: Number = 1
    maximum: Number = LARGEST

    def __post_init__(self) -> None:
        Rate.__post_init__(self)
        checked_amount("start", self.amount, above=0)
        checked_amount("minimum", self.minimum, above=0)
        checked_amount("maximum", self.maximum)
        if self.maximum < self.minimum:
            raise ValueError(
                f"maximum must be at least minimum, which is {self.minimum!r}, got {self.maximum!r}"
            )
        if not self.minimum <= self.amount <= self.maximum:
            raise ValueError(
                f"start must be between minimum and maximum, {self.minimum!r} and {self.maximum!r}, got {self.amount!r}"
            )

    def __repr__(self) -> str:
        burst = "" if self.burst is None else f", burst={self.burst!r}"
        return (
            f"Rate.auto(start={self.amount!r}, per={self.per!r}, minimum={self.minimum!r},"
            f" maximum={self.maximum!r}{burst})"
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """A fixed total that is never restored: dollars, the tokens of a run.

    Order: a smaller cost may overtake a waiter that the remaining budget does not cover, eight times. If it leaves too little
    for that waiter, the waiter raises `BudgetExhausted`.

    Args:
        amount: The total, 0 or more.

    Raises:
        TypeError: `amount` is not a number.
        ValueError: `amount` is negative, not finite, above 10**12, or above 0 and less than a millionth.
    """

    amount: Number

    def __post_init__(self) -> None:
        checked_amount("amount", self.amount)


@dataclass(frozen=True, slots=True)
class AdaptiveLimit:
    """A number of slots that follows the server: it rises while calls wait for it, and falls when the server is overloaded.

        api = CapacitySource(AdaptiveLimit(10, 1, 100))

    Use it where the right number is unknown or changes. A task pool reports the outcomes of its tasks by itself; elsewhere, call
    `lease.report()`. Without reports the limit stays at `start`.

    Law: the amount held never exceeds the limit. Lowering the limit revokes no lease: nothing is granted until enough is released.
    The limit rises only while a request waits for it and for nothing else, so never while the capacity is idle.
    It falls by a tenth when a call is throttled (see `classify`), or when a tenth of the calls time out. Calls that began before a
    decrease cause no other one. It also falls if the median duration of calls rises with the limit, so that a higher limit brings
    no throughput: then calls only queue in the server. Other errors do not change it.
    A throttled answer that lowers it and has no delay only pauses the node, for one mean duration of a call at most, in place of a
    cooldown (see `HierarchicalTaskPoolRunner`). At the minimum the node is cooled down.
    Bound: at most 256 durations.
    Cost: a lock and some arithmetic for each report; nothing for other limits.

    `resize(number)` sets the maximum and keeps what was learned. `capacity.limit` is the current limit. A cost up to the maximum is
    accepted; one above the current limit raises the limit, and the minimum, to itself.

    Args:
        start: The limit before the first report.
        minimum: The least limit, from 1.
        maximum: The greatest limit.

    Raises:
        TypeError: A parameter is not a number.
        ValueError: A parameter is not finite, below 1 or above 10**12, or they are not in the order minimum, start, maximum.
    """

    start: Number
    minimum: Number
    maximum: Number

    def __post_init__(self) -> None:
        for name in ("start", "minimum", "maximum"):
            if checked_amount(name, getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.maximum < self.minimum:
            raise ValueError(
                f"maximum must be at least minimum, which is {self.minimum!r}, got {self.maximum!r}"
            )
        if not self.minimum <= self.start <= self.maximum:
            raise ValueError(
                f"start must be between minimum and maximum, {self.minimum!r} and {self.maximum!r}, got {self.start!r}"
            )


Limit: TypeAlias = Number | AdaptiveLimit | Rate | Budget
"""The limit of one resource. A plain number limits the amount held at once; releasing a lease returns it."""

Limits: TypeAlias = "Limit | MappingOf[str, Limit]"
"""The limits of a capacity: one for slots, or a mapping of resource to limit."""


def checked(
    parameter: str, value: object, *, above: int | None = None, most: float = LARGEST
) -> Number:
    """Return a finite number that is at least 0, or greater than `above`, and at most `most`; see `_internal.validate`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{parameter} must be a number, got {describe_value(value)}")
    # An integer may be too large for a float.
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{parameter} must be finite, got {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{parameter} must be above {above}, got {describe_value(value)}")
    if value < 0:
        raise ValueError(f"{parameter} must not be negative, got {describe_value(value)}")
    if value > most:
        raise ValueError(f"{parameter} must be at most 10**12, got {describe_value(value)}")
    return value


def checked_amount(parameter: str, value: object, *, above: int | None = None) -> Number:
    """Return an amount that can be stored: 0, or at least a millionth; otherwise as `checked`."""
    amount = checked(parameter, value, above=above)
    if 0 < amount < 1 / MICROS:
        raise ValueError(
            f"{parameter} must be at least a millionth, which is what amounts are counted in{'' if above == 0 else ', or 0'},"
            f" got {value!r}"
        )
    return amount


def micros(amount: Number) -> int:
    """Convert an amount to whole millionths, the unit of the core."""
    return amount * MICROS if isinstance(amount, int) else round(amount * MICROS)


def held(amount: Number) -> Number:
    """Round an amount to the millionth, and keep its type."""
    return amount if isinstance(amount, int) else micros(amount) / MICROS


def units(micros: int) -> Number:
    """Convert millionths to an amount, an integer if possible."""
    return micros / MICROS if micros % MICROS else micros // MICROS


def checked_limits(parameter: str, limits: object) -> dict[str, Limit]:
    """Return the limits by resource, rounded to the millionth.

    Raises:
        TypeError: They are neither a limit nor a mapping of names to limits.
        ValueError: A limit cannot be stored, or the mapping is empty.
    """
    if not isinstance(limits, Mapping):
        return {
            SLOTS: _checked_limit(parameter, limits, ", or a mapping of resource to one of them")
        }
    found: dict[str, Limit] = {}
    for resource, limit in cast("MappingOf[object, object]", limits).items():
        if not isinstance(resource, str):
            raise TypeError(
                f"the resources of {parameter} must be strings, got {describe_value(resource)}"
            )
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
    if isinstance(limit, AdaptiveLimit):
        return AdaptiveLimit(held(limit.start), held(limit.minimum), held(limit.maximum))
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        raise TypeError(
            f"{parameter} must be a number, an AdaptiveLimit, a Rate or a Budget{besides}, got {describe_value(limit)}"
        )
    return held(checked_amount(parameter, limit))


CoreLimits: TypeAlias = (
    "list[tuple[str, str, float, float, float | tuple[float | None, float, float] | None]]"
)
"""Limits in the form of the core: resource, kind, amount, `per`, burst. An adaptive limit has its start, minimum and maximum there; an
auto rate its start, `per`, and a tuple of burst, minimum and maximum."""


def to_core(limits: MappingOf[str, Limit]) -> CoreLimits:
    """Convert limits to the form of the core."""
    converted: CoreLimits = []
    for resource, limit in limits.items():
        if isinstance(limit, AutoRate):
            bounds = (limit.burst, limit.minimum, limit.maximum)
            converted.append((resource, "auto", limit.amount, limit.per, bounds))
        elif isinstance(limit, Rate):
            converted.append((resource, "rate", limit.amount, limit.per, limit.burst))
        elif isinstance(limit, Budget):
            converted.append((resource, "budget", limit.amount, 0.0, None))
        elif isinstance(limit, AdaptiveLimit):
            converted.append((resource, "adaptive", limit.start, limit.minimum, limit.maximum))
        else:
            converted.append((resource, "number", limit, 0.0, None))
    return converted


def from_core(kind: str, amount: float, per: float, burst: float | None) -> Limit:
    """Convert a limit from the form of the core."""
    if kind == "rate":
        return Rate(amount, per, burst)
    return Budget(amount) if kind == "budget" else amount
