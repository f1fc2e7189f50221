"""Helpers for the tests of pools."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    EnvelopeType,
    HierarchicalTaskPoolRunner,
    RunStopped,
    TaskProgressEnvelope,
)

if TYPE_CHECKING:
    from headrace.pool.progress import TaskRun

__all__ = [
    "ERROR",
    "FINAL",
    "INTERMEDIATE",
    "Envelope",
    "Flaky",
    "Refused",
    "envelopes",
    "error_of",
    "fail",
    "hang",
    "one",
    "pool",
    "quiet",
    "read_until_stopped",
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


class Refused(Exception):
    """An answer that every call gets."""

    status_code = 401


class Flaky(Exception):
    """An answer that another call may not get."""


async def read_until_stopped(progress: TaskRun) -> tuple[list[Any], RunStopped]:
    """Read all envelopes and the error at the end."""
    found = []
    with pytest.raises(RunStopped) as stopped:
        async for envelope in progress:
            found.append(envelope)
    with pytest.raises(StopAsyncIteration):
        await anext(progress)
    return found, stopped.value


async def fail() -> None:
    raise ValueError("no")


async def hang() -> None:
    await asyncio.Event().wait()


async def error_of(task: Any, limit: int = 4) -> BaseException:
    """Return the error of the single envelope of a task."""
    [envelope] = await envelopes(pool([task], limit))
    assert envelope.type is ERROR
    assert envelope.value is None
    assert envelope.error is not None
    return envelope.error
