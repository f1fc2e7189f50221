"""Helpers for the tests of breakers."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace import Breaker, CapacitySource


class Answer(Exception):
    """An answer of a service that is an error."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status_code = status


def now() -> float:
    return asyncio.get_running_loop().time()


def broken(breaker: Breaker, limit: Any = 10, **options: Any) -> CapacitySource:
    clock = asyncio.get_running_loop().time
    return CapacitySource(limit, breaker=breaker, clock=clock, **options)


def state_of(capacity: CapacitySource) -> str | None:
    """Return the state of the breaker. Type checkers assume that an attribute stays as it is."""
    return capacity.breaker_state


async def report(capacity: CapacitySource, error: BaseException | None = None) -> None:
    """Make a call with this outcome."""
    async with capacity.acquire() as lease:
        lease.report(error=error)
