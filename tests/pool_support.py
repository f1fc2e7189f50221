"""What the tests of pools have in common."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace import CapacitySource, EnvelopeType, HierarchicalTaskPoolRunner, TaskProgressEnvelope

__all__ = [
    "ERROR",
    "FINAL",
    "INTERMEDIATE",
    "Envelope",
    "envelopes",
    "one",
    "pool",
    "quiet",
    "shown",
]


INTERMEDIATE, FINAL, ERROR = EnvelopeType.INTERMEDIATE, EnvelopeType.FINAL, EnvelopeType.ERROR
Envelope = TaskProgressEnvelope[Any]


async def quiet() -> None:
    """Gives everything that can go on the turns to do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def envelopes(runner: HierarchicalTaskPoolRunner) -> list[Envelope]:
    """All envelopes of a run."""
    async with runner.run_tasks() as progress:
        return [envelope async for envelope in progress]


def pool(tasks: Any, limit: int = 4, **options: Any) -> HierarchicalTaskPoolRunner:
    """A runner under a capacity of its own."""
    return HierarchicalTaskPoolRunner(tasks, CapacitySource(limit), **options)


async def one() -> int:
    """The least that a task can do."""
    return 1


def shown(found: list[Envelope]) -> list[Any]:
    """The values of envelopes, and the names of errors."""
    return [type(e.error).__name__ if e.type is ERROR else e.value for e in found]
