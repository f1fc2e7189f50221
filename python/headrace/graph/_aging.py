"""`Ageing`: urgent things first, and nothing waits for ever.

What became due at time `t` with priority `p` stands at `t - p * ageing`, and the least comes first. So a priority is
worth a head start of so many seconds, and whatever waits is overtaken only by what comes within its lead. The place does
not change while a thing waits, so that nothing is ever sorted again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from headrace._internal.validate import check_callable_or_none, check_finite, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable


class Ageing:
    """The places of things in an order of priority."""

    __slots__ = ("_priority", "_seconds", "clock")

    def __init__(
        self,
        priority: Callable[[Any], float] | None,
        ageing: float,
        clock: Callable[[], float] | None,
    ) -> None:
        self.priority = priority
        self.seconds = ageing
        self.clock: Callable[[], float] = check_callable_or_none("clock", clock) or time.monotonic

    @property
    def priority(self) -> Callable[[Any], float] | None:
        """What gives the priority of a thing."""
        return self._priority

    @priority.setter
    def priority(self, priority: Callable[[Any], float] | None) -> None:
        self._priority = check_callable_or_none("priority", priority)

    @property
    def seconds(self) -> float:
        """The head start of one step of priority."""
        return self._seconds

    @seconds.setter
    def seconds(self, ageing: float) -> None:
        self._seconds = check_seconds("ageing", ageing)

    def place(self, item: Any, since: float | None = None) -> float:
        """Where a thing stands that has waited since a time; None for now.

        Raises:
            TypeError, ValueError: Its priority is no finite number. Exception: what `priority` raises.
        """
        given = getattr(item, "priority", 0) if self._priority is None else self._priority(item)
        rank = check_finite("priority", given)
        return (self.clock() if since is None else since) - rank * self._seconds


class Aged:
    """What sources by priority can be set to."""

    _ageing: Ageing

    @property
    def priority(self) -> Callable[[Any], float] | None:
        """What gives the priority of an item, live; None for its attribute `priority`, or else 0."""
        return self._ageing.priority

    @priority.setter
    def priority(self, priority: Callable[[Any], float] | None) -> None:
        self._ageing.priority = priority

    @property
    def ageing(self) -> float:
        """By how many seconds one step of priority puts an item before others, live: for the items that are to come."""
        return self._ageing.seconds

    @ageing.setter
    def ageing(self, ageing: float) -> None:
        self._ageing.seconds = ageing
