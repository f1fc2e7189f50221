"""Cases about shares and rates, which a pool keeps whatever its executor."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from headrace.capacity.limits import Rate
from headrace.capacity.node import CapacitySource
from headrace.task.task import Task
from headrace.testing.executors import _tasks
from headrace.testing.executors._needs import four_at_once
from headrace.testing.executors._setting import Setting, expect, expect_equal
from headrace.testing.executors.case import CaseList

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.testing.executors._observed import Work

CASES = CaseList()

_WEIGHTS = (1, 2, 3)
_TASKS = 120


@CASES.case(four_at_once)
async def runs_share_capacity_by_weight(setting: Setting) -> None:
    """Three runs of weights 1, 2 and 3 under one slot hold it for times in this proportion."""
    root = CapacitySource(1)
    holds: list[tuple[int, Work]] = []

    def tasks(number: int) -> Iterator[Task[Any]]:
        for _ in count():
            yield setting.napping(number, 0.001)

    async def share(number: int, weight: int) -> None:
        runner = setting.pool(tasks(number), CapacitySource(1, root, weight=weight))
        async with runner.run_tasks() as progress:
            async for _ in progress:
                if len(setting.executor.works) >= _TASKS:
                    return

    setting.waits_for = "the end of three runs"
    await asyncio.gather(*(share(number, weight) for number, weight in enumerate(_WEIGHTS)))
    expect_equal(root.held, 0, "the capacity that is held")
    # Only the time in which all three have requested the slot.
    works = [work for work in setting.executor.works[3 : _TASKS - 3] if work.ended_at is not None]
    holds = [(work.task.args[0], work) for work in works]
    longest = max((work.ended_at or 0.0) - work.submitted for work in works)
    service = [0.0, 0.0, 0.0]
    for number, work in holds:
        service[number] += ((work.ended_at or 0.0) - work.submitted) / _WEIGHTS[number]
    # The lag of a node is bounded by the longest hold; here with a margin for the first tasks.
    expect(
        max(service) - min(service) <= 4 * longest,
        f"held by weight: {service}; the longest hold took {longest:.4f} s",
    )


@CASES.case()
async def rate_is_kept(setting: Setting) -> None:
    """A run calls no more tasks than its rate allows."""
    capacity = CapacitySource({"slots": 4, "calls": Rate(100, per=1, burst=1)})
    tasks = [Task(_tasks.double, number, cost={"slots": 1, "calls": 1}) for number in range(31)]
    found = await setting.pool(tasks, capacity).run()
    expect_equal(sorted(found), [2 * number for number in range(31)], "the results")
    submitted = [work.submitted for work in setting.executor.works]
    # 30 calls after the first, at 100 a second. A late timer may be counted by 50 ms from its due time.
    took = submitted[-1] - submitted[0]
    expect(took >= 0.3 - 0.051, f"31 tasks were called within {took:.3f} s")
