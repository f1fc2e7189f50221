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


CASES = CaseList()

_TASKS = 120

_LATEST = 0.051
"""The seconds for which a late timer may be counted from its due time, and a little."""


async def _check_shares(setting: Setting, due: dict[CapacitySource, float], lag: float) -> None:
    """Check that runs without end hold the single slot of a tree for times in proportion to their due shares.

    Args:
        setting: The setting.
        due: The share of each capacity.
        lag: The maximum difference between two times by share, in longest holds.
    """

    def tasks(number: int) -> Iterator[Task[Any]]:
        for _ in count():
            yield setting.napping(number, 0.001)

    async def share(number: int, capacity: CapacitySource) -> None:
        runner = setting.pool(tasks(number), capacity)
        async with runner.run_tasks() as progress:
            async for _ in progress:
                if len(setting.executor.works) >= _TASKS:
                    return

    setting.waits_for = "the end of all runs"
    await asyncio.gather(*(share(number, capacity) for number, capacity in enumerate(due)))
    for capacity in due:
        expect_equal(capacity.held, 0, "the capacity that is held")
    # Only the time in which all of them have requested the slot.
    works = setting.executor.works[len(due) : _TASKS - len(due)]
    shares = list(due.values())
    service = [0.0] * len(due)
    longest = 0.0
    for work in works:
        if work.ended_at is not None:
            held = work.ended_at - work.submitted
            longest = max(longest, held)
            number = work.task.args[0]
            service[number] += held * min(shares) / shares[number]
    # The lag of a node is bounded by the longest hold; here with a margin for the first tasks.
    expect(
        max(service) - min(service) <= lag * longest,
        f"held by share: {service}; the longest hold took {longest:.4f} s",
    )


@CASES.case(four_at_once)
async def runs_share_capacity_by_weight(setting: Setting) -> None:
    """Three runs of weights 1, 2 and 3 under one slot hold it for times in this proportion."""
    root = CapacitySource(1)
    await _check_shares(setting, {CapacitySource(1, root, weight=n): n / 6 for n in (1, 2, 3)}, 4)


@CASES.case(four_at_once)
async def runs_share_capacity_at_each_level(setting: Setting) -> None:
    """Runs of weights 1 and 3 in a group of weight 2 share that of the group, beside a run of weight 1."""
    root = CapacitySource(1)
    group = CapacitySource(1, root, weight=2)
    due = {
        CapacitySource(1, root): 1 / 3,
        CapacitySource(1, group): 1 / 6,
        CapacitySource(1, group, weight=3): 1 / 2,
    }
    await _check_shares(setting, due, 6)


@CASES.case(four_at_once)
async def run_below_its_floor_is_next(setting: Setting) -> None:
    """The next slot goes to a run below its floor, whatever its weight."""
    root = CapacitySource(2)
    light, heavy = CapacitySource(2, root, floor=1), CapacitySource(2, root, weight=100)
    first = setting.gated("first", "first gate")
    setting.waits_for = "the begin of two tasks"
    running = asyncio.ensure_future(
        setting.pool([first, *(setting.gated(f"heavy {n}") for n in range(3))], heavy).run()
    )
    await setting.until(lambda: setting.has("first") and setting.has("heavy 0"), "two calls")
    late = setting.gated("late")
    other = asyncio.ensure_future(setting.pool([late], light).run())
    await setting.until(lambda: light.waiting and heavy.waiting, "a request of each run")
    setting.open("first gate")
    await setting.until(lambda: len(setting.executor.works) > 2, "the next task")
    # Local executors get a copy of a task.
    expect_equal(setting.executor.works[2].task.args, late.args, "the next task")
    setting.open()
    expect_equal(await setting.result(running, "a run"), [True] * 4, "the results")
    expect_equal(await setting.result(other, "a run"), [True], "the results")


def _check_rate(setting: Setting, rate: float, burst: float) -> None:
    """Check that no stretch of time has more calls than a rate allows."""
    times = [work.submitted for work in setting.executor.works]
    for first, begin in enumerate(times):
        for number, time in enumerate(times[first:], 1):
            most = burst + rate * (time - begin + _LATEST)
            expect(number <= most, f"{number} tasks were called within {time - begin:.3f} s")


@CASES.case()
async def rate_is_kept(setting: Setting) -> None:
    """A run calls no more tasks than its rate allows, in any stretch of time."""
    capacity = CapacitySource({"slots": 4, "calls": Rate(100, per=1, burst=1)})
    tasks = [Task(_tasks.double, number, cost={"slots": 1, "calls": 1}) for number in range(31)]
    found = await setting.pool(tasks, capacity).run()
    expect_equal(sorted(found), [2 * number for number in range(31)], "the results")
    _check_rate(setting, 100, 1)


@CASES.case(four_at_once)
async def runs_keep_the_rate_of_their_parent(setting: Setting) -> None:
    """Two runs together call no more tasks than the rate above them allows, in any stretch of time."""
    root = CapacitySource({"slots": 2, "calls": Rate(200, per=1, burst=2)})
    cost = {"slots": 1, "calls": 1}
    tasks = [Task(_tasks.double, number, cost=cost) for number in range(30)]
    setting.waits_for = "the end of both runs"
    found = await asyncio.gather(
        *(setting.pool(tasks, CapacitySource(2, root)).run() for _ in range(2))
    )
    for results in found:
        expect_equal(sorted(results), [2 * number for number in range(30)], "the results")
    _check_rate(setting, 200, 2)


@CASES.case(four_at_once)
async def throttled_answer_stops_its_node(setting: Setting) -> None:
    """After a 429, no task of any run under the capacity is called for the delay, and all are called afterwards."""
    root = CapacitySource(1, cooldown=True)
    first = Task(_tasks.fail_at_first, setting.path("log"), 1, 429, "", "0.2")
    doubles = [Task(_tasks.double, number) for number in range(5)]
    setting.waits_for = "the end of both runs"
    found = await asyncio.gather(
        setting.pool([first, *doubles], CapacitySource(1, root)).run(),
        setting.pool(doubles, CapacitySource(1, root)).run(),
    )
    # Two calls of the first task.
    expect_equal([sorted(one) for one in found], [[0, 2, 2, 4, 6, 8], [0, 2, 4, 6, 8]], "results")
    works = setting.executor.works
    answered = next(work.ended_at or 0.0 for work in works if work.task.fn is _tasks.fail_at_first)
    later = [work.submitted - answered for work in works if work.submitted > answered]
    # The clock of an event loop may have a resolution of a millisecond.
    expect(min(later) >= 0.2 - 0.002, f"a task was called {min(later):.3f} s after the answer")
