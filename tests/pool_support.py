"""Helpers for the tests of pools."""

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
    "fail",
    "hang",
    "one",
    "pool",
    "quiet",
    "summarize",
]


INTERMEDIATE, FINAL, ERROR = EnvelopeType.INTERMEDIATE, EnvelopeType.FINAL, EnvelopeType.ERROR
Envelope = TaskProgressEnvelope[Any]


async def quiet() -> None:
    """Yield until everything that can run has run."""
    for _ in range(50):
        await asyncio.sleep(0)


async def envelopes(runner: HierarchicalTaskPoolRunner) -> list[Envelope]:
    """Run to the end and return all envelopes."""
    async with runner.run_tasks() as progress:
        return [envelope async for envelope in progress]


def pool(tasks: Any, limit: int = 4, **options: Any) -> HierarchicalTaskPoolRunner:
    """Create a runner with its own capacity."""
    return HierarchicalTaskPoolRunner(tasks, CapacitySource(limit), **options)


async def one() -> int:
    """A minimal task."""
    return 1


def summarize(found: list[Envelope]) -> list[Any]:
    """Return the values of envelopes, with the class names of errors."""
    return [type(e.error).__name__ if e.type is ERROR else e.value for e in found]


async def fail() -> None:
    raise ValueError("no")


async def hang() -> None:
    await asyncio.Event().wait()
