"""Checks of shares, floors, rates and cooldowns, which a tree of capacities keeps whatever executor its runs use.

`test_executor_sharing.py` has the executors of one machine, and `test_ray_sharing.py` a cluster of two nodes. Times are real. The checks
compare times that were measured in the same run, so that a slow machine makes them longer, and not false.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from itertools import count, pairwise, takewhile
from math import inf
from typing import TYPE_CHECKING, Any, Self

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Rate, Retry, Task
from headrace.testing.executors._observed import Observed
from tests import process_jobs as jobs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from headrace.pool import Executor

    Lengths = Iterator[float]

SLOTS = 14
"""The slots that the executor of a check must have: those of the capacity, and one for each run, which may wait with it."""

LIMIT = 4
"""The slots of the capacity that all runs share."""


# The runs.


class Lag:
    """The longest time for which the event loop or the machine was late, while the block runs."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beating.cancel()
        await asyncio.wait([self._beating])

    async def _beat(self) -> None:
        while True:
            due = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, time.monotonic() - due)


async def run_until(
    enough: Callable[[Observed], bool],
    executor: Executor,
    capacities: Mapping[str, CapacitySource],
    tasks: Callable[[str], Iterator[Task[Any]]],
    **options: Any,
) -> tuple[Observed, float]:
    """Run tasks under each capacity until this is enough, and to their ends. Return what the executor did, and the time of enough."""
    observed = Observed(executor)
    ends: list[float] = []

    async def run(name: str, capacity: CapacitySource) -> None:
        source = takewhile(lambda _: not ends, tasks(name))
        runner = HierarchicalTaskPoolRunner(
            source, capacity, executor=observed, name=name, **options
        )
        async with runner.run_tasks() as progress:
            async for event in progress:
                assert event.error is None
                if not ends and enough(observed):
                    ends.append(asyncio.get_running_loop().time())

    async with asyncio.TaskGroup() as group:
        for name, capacity in capacities.items():
            group.create_task(run(name, capacity))
    faults = observed.faults()
    assert not faults, faults
    assert all(capacity.held in (0, {"slots": 0}) for capacity in capacities.values())
    return observed, ends[0]


def ended(number: int) -> Callable[[Observed], bool]:
    """Return a condition: so many tasks have ended."""
    return lambda observed: len(observed.works) - observed.live >= number


def tenant_of(task: Task[Any]) -> str:
    return str(task.args[1])


def held(observed: Observed, tenants: Iterable[str], end: float) -> list[float]:
    """Return the slot-seconds of each tenant, from the time at which all have had a slot until the end."""
    firsts = {tenant_of(one.task): one.submitted for one in reversed(observed.works)}
    begin = max(firsts.values())
    seconds = dict.fromkeys(tenants, 0.0)
    for one in observed.works:
        length = min(one.ended_at or end, end) - max(one.submitted, begin)
        seconds[tenant_of(one.task)] += max(0.0, length)
    return list(seconds.values())


def check_shares(observed: Observed, due: Mapping[str, float], end: float) -> None:
    """Check that each tenant has its due part of the slot-seconds, to 3% and twice the longest hold: so long it may lag behind."""
    found = dict(zip(due, held(observed, due, end), strict=True))
    total = sum(found.values())
    longest = max((one.ended_at or end) - one.submitted for one in observed.works)
    for tenant, part in due.items():
        expected = part / sum(due.values()) * total
        lag = abs(found[tenant] - expected)
        assert lag <= 0.03 * expected + 2 * longest, (tenant, found, longest)


def full_time(observed: Observed, limit: int) -> float:
    """Return the seconds in which all slots were held."""
    changes = [(one.submitted, 1) for one in observed.works]
    changes += [(one.ended_at or inf, -1) for one in observed.works]
    changes.sort()
    seconds, running = 0.0, 0
    for (begin, change), (end, _) in pairwise(changes):
        running += change
        seconds += (end - begin) if running >= limit else 0.0
    return seconds


def jain(shares: Sequence[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def check_notes(log: Path, limits: Mapping[str, int], most: int = LIMIT) -> list[list[str]]:
    """Check by the notes of the tasks that never more ran than were allowed. Return the notes.

    An end is noted before the driver can know of it, and a begin after its grant, so that the order of the lines proves it.
    """
    lines = [line.split() for line in log.read_text().splitlines()]
    running = Counter[str]()
    for sign, tenant, _ in lines:
        running[tenant] += 1 if sign == "+" else -1
        assert running.total() <= most, running
        assert running[tenant] <= limits.get(tenant, most), running
    return lines


def check_rate(times: Sequence[float], rate: float, burst: float) -> None:
    """Check that no stretch of time has more calls than a rate allows. A grant may be 50 ms late, and is counted from its due time."""
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            most = burst + rate * (times[last] - begin + 0.05)
            assert last - first + 1 <= most + 1e-6, (begin, times[last])


# The checks.


def endless(log: Path, lengths: Lengths, **options: Any) -> Callable[[str], Iterator[Task[Any]]]:
    return lambda tenant: (
        Task(jobs.note_call, log, tenant, length, **options) for length in lengths
    )


def short(seed: int) -> Lengths:
    rng = random.Random(seed)
    while True:
        yield rng.uniform(0.001, 0.005)


def mixed(seed: int) -> Lengths:
    """Yield lengths of which one in ten is ten times as long as the others."""
    rng = random.Random(seed)
    while True:
        yield rng.uniform(0.01, 0.03) if rng.random() < 0.1 else rng.uniform(0.001, 0.003)


async def check_weights(executor: Executor, log: Path) -> None:
    """Runs of short tasks and of tasks of mixed lengths share slot-seconds by weight."""
    lengths = {"1": short(1), "2": mixed(2), "3": short(3)}
    root = CapacitySource(LIMIT)
    capacities = {name: CapacitySource(LIMIT, root, weight=int(name)) for name in lengths}
    observed, end = await run_until(
        ended(1_500), executor, capacities, lambda name: endless(log, lengths[name])(name)
    )
    check_shares(observed, {"1": 1, "2": 2, "3": 3}, end)
    check_notes(log, {})


async def check_hierarchy(executor: Executor, log: Path) -> None:
    """Nine tenants of three teams get their shares at each level."""
    root = CapacitySource(LIMIT)
    capacities: dict[str, CapacitySource] = {}
    due: dict[str, float] = {}
    for weight, members in ((1, (1, 1)), (2, (1, 2, 1)), (3, (1, 1, 1, 3))):
        team = CapacitySource(LIMIT, root, weight=weight)
        for number, member in enumerate(members):
            name = f"{weight}.{number}"
            capacities[name] = CapacitySource(2, team, weight=member)
            due[name] = weight / 6 * member / sum(members)
    observed, end = await run_until(ended(1_500), executor, capacities, endless(log, short(4)))
    check_shares(observed, due, end)
    shares = held(observed, due, end)
    normalized = [share / part for share, part in zip(shares, due.values(), strict=True)]
    assert jain(normalized) >= 0.99, normalized
    check_notes(log, dict.fromkeys(capacities, 2))


async def check_floor(executor: Executor, log: Path) -> None:
    """A light run has its floor while heavy ones wait, and these share the rest."""
    root = CapacitySource(LIMIT)
    capacities = {
        "light": CapacitySource(LIMIT, root, floor=2),
        "heavy": CapacitySource(LIMIT, root, weight=50),
        "other": CapacitySource(LIMIT, root, weight=50),
    }
    observed, end = await run_until(ended(800), executor, capacities, endless(log, short(5)))
    check_shares(observed, {"light": 2, "heavy": 1, "other": 1}, end)
    check_notes(log, {})


async def check_retries(executor: Executor, log: Path) -> None:
    """Runs share slot-seconds by weight although each second call fails and is retried."""
    retry = Retry(1, on=OSError, backoff=0.005, factor=1, jitter=False)
    root = CapacitySource(LIMIT)
    capacities = {name: CapacitySource(LIMIT, root, weight=int(name)) for name in ("1", "3")}
    numbers = count()

    def tasks(tenant: str) -> Iterator[Task[Any]]:
        return (
            Task(jobs.fail_once, log, tenant, length, next(numbers), retry=retry)
            for length in short(6)
        )

    observed, end = await run_until(ended(800), executor, capacities, tasks)
    check_shares(observed, {"1": 1, "3": 3}, end)
    check_notes(log, {})


async def check_shared_rate(executor: Executor, log: Path) -> None:
    """The rate of a parent is never exceeded, is used, and is shared by weight."""
    rate, burst, number = 100, 50, 250
    root = CapacitySource({"slots": LIMIT, "calls": Rate(rate, per=1, burst=burst)})
    capacities = {name: CapacitySource(LIMIT, root, weight=int(name)) for name in ("1", "3")}
    cost = {"slots": 1, "calls": 1}
    async with Lag() as lag:
        # Late timers grant several requests at once, so that each run must have several.
        tasks = endless(log, short(7), cost=cost)
        observed, _ = await run_until(ended(number), executor, capacities, tasks, lookahead=4)
    times = [one.submitted for one in observed.works]
    check_rate(times, rate, burst)
    # The burst absorbs what the event loop was late before the last call. On a slow machine the slots may be the limit meanwhile.
    took = times[number - 1] - times[0]
    assert took <= (number - burst) / rate / 0.95 + lag.longest + full_time(observed, LIMIT)
    light = sum(tenant_of(one.task) == "1" for one in observed.works[burst:number])
    assert light == pytest.approx((number - burst) / 4, abs=6)
    # By the clock that all processes of the machine share: no call begins before its grant.
    begins = [float(at) for sign, _, at in check_notes(log, {}) if sign == "+"]
    assert all(begin >= time for begin, time in zip(sorted(begins), times, strict=False))


async def check_cooldown(executor: Executor, log: Path) -> None:
    """A 429 stops the calls of all runs under its node for the delay, and no others."""
    root = CapacitySource(LIMIT, cooldown=True)
    capacities = {
        "one": CapacitySource(LIMIT, root),
        "two": CapacitySource(LIMIT, root),
        "elsewhere": CapacitySource(2),
    }
    delay = 1.0

    def tasks(tenant: str) -> Iterator[Task[Any]]:
        if tenant == "one":
            yield Task(jobs.throttle_once, log, tenant, str(delay))
        yield from endless(log, short(8))(tenant)

    def is_over(observed: Observed) -> bool:
        throttled = next((one for one in observed.works if one.task.fn is jobs.throttle_once), None)
        last = [one.submitted for one in observed.works if tenant_of(one.task) != "elsewhere"]
        return throttled is not None and max(last) > (throttled.ended_at or inf) + delay

    observed, _ = await run_until(is_over, executor, capacities, tasks)
    first = next(one for one in observed.works if one.task.fn is jobs.throttle_once)
    begin = first.ended_at or 0.0
    called = [
        tenant_of(one.task) for one in observed.works if begin < one.submitted < begin + delay
    ]
    noted = [
        tenant
        for sign, tenant, at in check_notes(log, {"elsewhere": 2}, LIMIT + 2)
        if sign == "+" and begin < float(at) < begin + delay
    ]
    for tenants in (called, noted):
        assert "elsewhere" in tenants
        # Those whose capacity was granted before.
        assert sum(tenant != "elsewhere" for tenant in tenants) < LIMIT, tenants


CHECKS: list[Callable[[Executor, Path], Awaitable[None]]] = [
    check_weights,
    check_hierarchy,
    check_floor,
    check_retries,
    check_shared_rate,
    check_cooldown,
]
