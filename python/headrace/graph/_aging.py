"""`Ageing`: a priority order without starvation.

An item that became due at time `t` with priority `p` has the position `t - p * ageing`, and the lowest position is first.
A priority step is therefore worth a head start of `ageing` seconds, and a waiting item is overtaken only by items that
arrive within their head start. The position of an item is constant, so the queue is never sorted again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from headrace._internal.validate import check_callable_or_none, check_finite, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable


class Ageing:
    """Computes the positions of items in a priority order."""

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
        """The function that returns the priority of an item; `None` for the default."""
        return self._priority

    @priority.setter
    def priority(self, priority: Callable[[Any], float] | None) -> None:
        self._priority = check_callable_or_none("priority", priority)

    @property
    def seconds(self) -> float:
        """The head start of one priority step, in seconds."""
        return self._seconds

    @seconds.setter
    def seconds(self, ageing: float) -> None:
        self._seconds = check_seconds("ageing", ageing)

    def place(self, item: Any, since: float | None = None) -> float:
        """Return the position of an item that has waited since the given time; None for now.

        Raises:
            TypeError, ValueError: The priority is not a finite number.
            Exception: An error raised by `priority`.
        """
        given = getattr(item, "priority", 0) if self._priority is None else self._priority(item)
        rank = check_finite("priority", given)
        return (self.clock() if since is None else since) - rank * self._seconds


class Aged:
    """The properties that sources with a priority order share."""

    _ageing: Ageing

    @property
    def priority(self) -> Callable[[Any], float] | None:
        """The function that returns the priority of an item; None for its attribute `priority`, or 0 without one.

        It can be set at any time.
        """
        return self._ageing.priority

    @priority.setter
    def priority(self, priority: Callable[[Any], float] | None) -> None:
        self._ageing.priority = priority

    @property
    def ageing(self) -> float:
        """The head start of one priority step, in seconds. A new value applies to the items that arrive later."""
        return self._ageing.seconds

    @ageing.setter
    def ageing(self, ageing: float) -> None:
        self._ageing.seconds = ageing
