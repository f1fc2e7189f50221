"""`as_capacity`: a capacity, or a number of calls at once, as a capacity. The runner, `map_pool` and `headrace.amap` call it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace._internal.reprs import describe_value
from headrace._internal.validate import check_int
from headrace.capacity.limits import AdaptiveLimit, Budget, Rate
from headrace.capacity.node import CapacitySource

if TYPE_CHECKING:
    from collections.abc import Callable


_LIMITS: tuple[type, ...] = (float, AdaptiveLimit, Rate, Budget, Mapping)


def as_capacity(parameter: str, given: object) -> CapacitySource:
    """Return a capacity as it is; for a number, a new capacity of so many slots.

    Raises:
        TypeError: It is neither of the two.
        ValueError: The number is below 1, so that nothing could run.
    """
    if isinstance(given, CapacitySource):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return CapacitySource(check_int(parameter, 1, given), clock=loop_clock())
    remedy = "such as CapacitySource(20)"
    if isinstance(given, _LIMITS):
        remedy = "made of this limit: CapacitySource(limit)"
    raise TypeError(
        f"{parameter} must be a CapacitySource, {remedy}, or a number of calls at once, got {describe_value(given)}"
    )


def loop_clock() -> Callable[[], float] | None:
    """Return the clock of the running event loop, which may be virtual; None without one."""
    loop = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage]  # the public function raises instead
    return None if loop is None else loop.time
