"""`Ageing`: a priority order without starvation. The priority sources in `graph.sources` sort by it.

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

    __slots__ = ("clock", "priority", "seconds")

    def __init__(
        self,
        priority: Callable[[Any], float] | None,
        ageing: float,
        clock: Callable[[], float] | None,
    ) -> None:
        self.priority = check_callable_or_none("priority", priority)
        self.seconds = check_seconds("ageing", ageing)
        self.clock: Callable[[], float] = check_callable_or_none("clock", clock) or time.monotonic

    def position(self, item: Any, since: float | None = None) -> float:
        """Return the position of an item that has waited since the given time; None for now.

        Raises:
            TypeError, ValueError: The priority is not a finite number.
            Exception: An error raised by `priority`.
        """
        priority = getattr(item, "priority", 0) if self.priority is None else self.priority(item)
        rank = check_finite("priority", priority)
        return (self.clock() if since is None else since) - rank * self.seconds


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
        self._ageing.priority = check_callable_or_none("priority", priority)

    @property
    def ageing(self) -> float:
        """The head start of one priority step, in seconds. A new value applies to the items that arrive later."""
        return self._ageing.seconds

    @ageing.setter
    def ageing(self, ageing: float) -> None:
        self._ageing.seconds = check_seconds("ageing", ageing)
