"""What a limit costs: alone, with many who wait, as a tree, and with time.

    make bench

Each row is a ratio to `asyncio.Semaphore` by hand for the same work, measured in the same process: for a tree, one semaphore for each
level, taken one after the other, which may deadlock where costs differ, and shares nothing. Below the table stand 200 leases a second,
in real time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from harness import Case, main

from headrace import CapacitySource, QuotaCapacitySource, Rate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Use = Callable[[bool], Awaitable[None]]

TASKS = 1000
LEAVES, MIDS = 100, 10


def by_semaphores(*semaphores: asyncio.Semaphore) -> Use:
    """Holds all of them, for a turn of the loop or for no time."""

    async def use(turn: bool) -> None:
        for semaphore in semaphores:
            await semaphore.acquire()
        if turn:
            await asyncio.sleep(0)
        for semaphore in semaphores:
            semaphore.release()

    return use


def by_capacity(capacity: CapacitySource) -> Use:
    async def use(turn: bool) -> None:
        lease = await capacity.acquire()
        if turn:
            await asyncio.sleep(0)
        lease.release()

    return use


def semaphores() -> list[list[asyncio.Semaphore]]:
    """Of each leaf, its path."""
    root = asyncio.Semaphore(50)
    mids = [asyncio.Semaphore(10) for _ in range(MIDS)]
    return [[asyncio.Semaphore(2), mids[number % MIDS], root] for number in range(LEAVES)]


def capacities() -> list[CapacitySource]:
    """The leaves."""
    root = CapacitySource(50)
    mids = [CapacitySource(10, root) for _ in range(MIDS)]
    return [CapacitySource(2, mids[number % MIDS]) for number in range(LEAVES)]


async def contended(uses: list[Use], count: int) -> int:
    """By a thousand tasks at once."""

    async def work(use: Use) -> None:
        for _ in range(count // TASKS):
            await use(True)

    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(work(uses[number % len(uses)]))
    return count


# Alone the call of `use` would count for more than what it does, so those loops are written out.


async def alone_by_semaphore(count: int) -> int:
    semaphore = asyncio.Semaphore(10)
    for _ in range(count):
        await semaphore.acquire()
        semaphore.release()
    return count


async def alone_by_capacity(count: int) -> int:
    capacity = CapacitySource(10)
    for _ in range(count):
        lease = await capacity.acquire()
        lease.release()
    return count


async def block_by_semaphore(count: int) -> int:
    semaphore = asyncio.Semaphore(10)
    for _ in range(count):
        async with semaphore:
            pass
    return count


async def block_by_capacity(count: int) -> int:
    capacity = CapacitySource(10)
    for _ in range(count):
        async with capacity.acquire():
            pass
    return count


async def path_by_semaphores(count: int) -> int:
    path = semaphores()[0]
    for _ in range(count):
        for semaphore in path:
            await semaphore.acquire()
        for semaphore in path:
            semaphore.release()
    return count


async def path_by_capacity(count: int) -> int:
    # The tree itself is kept by its leaf.
    capacity = capacities()[0]
    for _ in range(count):
        lease = await capacity.acquire()
        lease.release()
    return count


async def many_by_semaphore(count: int) -> int:
    return await contended([by_semaphores(asyncio.Semaphore(10))], count)


async def many_by_capacity(count: int) -> int:
    return await contended([by_capacity(CapacitySource(10))], count)


async def tree_by_semaphores(count: int) -> int:
    return await contended([by_semaphores(*path) for path in semaphores()], count)


async def tree_by_capacity(count: int) -> int:
    return await contended([by_capacity(leaf) for leaf in capacities()], count)


def cases() -> list[Case]:
    one, three = "`asyncio.Semaphore`", "three `asyncio.Semaphore`s"
    return [
        Case("a limit, alone", one, alone_by_semaphore, alone_by_capacity, 0.40),
        Case("a limit, alone, `async with`", one, block_by_semaphore, block_by_capacity, 0.40),
        Case("a limit, 1000 waiters", one, many_by_semaphore, many_by_capacity, 0.80, 50_000),
        Case("a tree of three levels, alone", three, path_by_semaphores, path_by_capacity, 0.20),
        Case(
            "a tree of three levels, 1000 waiters",
            three,
            tree_by_semaphores,
            tree_by_capacity,
            0.40,
            50_000,
        ),
    ]


async def paced(tasks: int, seconds: float = 3.0) -> tuple[list[float], float]:
    """When each lease of 200 a second was granted, and what that cost of the processor."""
    capacity = QuotaCapacitySource(Rate(200, per=1.0))
    granted: list[float] = []
    begun, spent = time.perf_counter(), time.process_time()

    async def work() -> None:
        while True:
            (await capacity.acquire()).release()
            granted.append(time.perf_counter() - begun)

    working = [asyncio.create_task(work()) for _ in range(tasks)]
    await asyncio.sleep(seconds)
    spent = time.process_time() - spent
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    return [when for when in granted if when < seconds], spent


def most(granted: list[float], window: float) -> int:
    """How many there were in the fullest window of that length."""
    first = best = 0
    for last, when in enumerate(granted):
        while granted[first] <= when - window:
            first += 1
        best = max(best, last - first + 1)
    return best


def print_paced() -> None:
    print("\n| 200 leases a second, for 3 s | granted / 600 | most in 1 s | in 0.1 s | CPU, s |")
    print("|---|--:|--:|--:|--:|")
    for tasks in (1, 1000):
        granted, spent = asyncio.run(paced(tasks))
        print(
            f"| {tasks} waiting | {len(granted) / 600:.3f} | {most(granted, 1.0)} | {most(granted, 0.1)} | {spent:.3f} |"
        )


if __name__ == "__main__":
    main(__doc__, cases)
    print_paced()
