"""What a limit costs: alone, with many who wait, as a tree, and with time.

    make bench

Each row is a ratio to `asyncio.Semaphore` by hand for the same work, measured in the same process: for a tree, one semaphore for each
level, taken one after the other, which may deadlock where costs differ, and shares nothing.

The second table holds the floor against the same: the smallest limit that Python code can be, a count and a line of futures. It knows no
lease, nobody who holds one, no path, no share and no thread, and loses the place of a waiter that was cancelled. Below stand 200 leases a
second, in real time, and a loop by hand that sleeps until each of them. A stall of the process of more than 50 ms is lost to the first
two, as `Rate` says: where other programs take the processor away, fewer than 600 are granted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from harness import Case, main, measure, print_table

from headrace import CapacitySource, QuotaCapacitySource, Rate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    Use = Callable[[bool], Awaitable[None]]

TASKS = 1000
LEAVES, MIDS = 100, 10


# Not a generator, but all that `await` asks of one.
NOTHING = cast("Generator[Any, Any, None]", iter(()))


class Smallest:
    """A count and a line of futures. It is its own awaitable, since a coroutine would cost as much as all the rest."""

    __slots__ = ("free", "line")

    def __init__(self, count: int) -> None:
        self.free = count
        self.line: deque[asyncio.Future[None]] = deque()

    def acquire(self) -> Smallest:
        return self

    def __await__(self) -> Generator[Any, Any, None]:
        if self.free:
            self.free -= 1
            return NOTHING
        future = asyncio.get_running_loop().create_future()
        self.line.append(future)
        return future.__await__()

    def release(self) -> None:
        if self.line:
            self.line.popleft().set_result(None)
        else:
            self.free += 1


Limit = asyncio.Semaphore | Smallest


def by_limits(*limits: Limit) -> Use:
    """Holds all of them, for a turn of the loop or for no time."""

    async def use(turn: bool) -> None:
        for limit in limits:
            await limit.acquire()
        if turn:
            await asyncio.sleep(0)
        for limit in limits:
            limit.release()

    return use


def by_capacity(capacity: CapacitySource) -> Use:
    async def use(turn: bool) -> None:
        lease = await capacity.acquire()
        if turn:
            await asyncio.sleep(0)
        lease.release()

    return use


def paths(kind: type[Limit]) -> list[list[Limit]]:
    """Of each leaf, its path."""
    root = kind(50)
    mids = [kind(10) for _ in range(MIDS)]
    return [[kind(2), mids[number % MIDS], root] for number in range(LEAVES)]


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


async def alone_by_smallest(count: int) -> int:
    limit = Smallest(10)
    for _ in range(count):
        await limit.acquire()
        limit.release()
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
    return await path_by(asyncio.Semaphore, count)


async def path_by_smallest(count: int) -> int:
    return await path_by(Smallest, count)


async def path_by(kind: type[Limit], count: int) -> int:
    path = paths(kind)[0]
    for _ in range(count):
        for limit in path:
            await limit.acquire()
        for limit in path:
            limit.release()
    return count


async def path_by_capacity(count: int) -> int:
    # The tree itself is kept by its leaf.
    capacity = capacities()[0]
    for _ in range(count):
        lease = await capacity.acquire()
        lease.release()
    return count


async def many_by_semaphore(count: int) -> int:
    return await contended([by_limits(asyncio.Semaphore(10))], count)


async def many_by_smallest(count: int) -> int:
    return await contended([by_limits(Smallest(10))], count)


async def many_by_capacity(count: int) -> int:
    return await contended([by_capacity(CapacitySource(10))], count)


async def tree_by_semaphores(count: int) -> int:
    return await contended([by_limits(*path) for path in paths(asyncio.Semaphore)], count)


async def tree_by_smallest(count: int) -> int:
    return await contended([by_limits(*path) for path in paths(Smallest)], count)


async def tree_by_capacity(count: int) -> int:
    return await contended([by_capacity(leaf) for leaf in capacities()], count)


ONE, THREE = "`asyncio.Semaphore`", "three `asyncio.Semaphore`s"


def cases() -> list[Case]:
    return [
        Case("a limit, alone", ONE, alone_by_semaphore, alone_by_capacity, 0.40),
        Case("a limit, alone, `async with`", ONE, block_by_semaphore, block_by_capacity, 0.40),
        Case("a limit, 1000 waiters", ONE, many_by_semaphore, many_by_capacity, 0.80, 50_000),
        Case("a tree of three levels, alone", THREE, path_by_semaphores, path_by_capacity, 0.20),
        Case(
            "a tree of three levels, 1000 waiters",
            THREE,
            tree_by_semaphores,
            tree_by_capacity,
            0.40,
            50_000,
        ),
    ]


def floors() -> list[Case]:
    """The same rows, with the smallest limit in the place of headrace."""
    return [
        Case("a limit, alone", ONE, alone_by_semaphore, alone_by_smallest, 0.40),
        Case("a limit, 1000 waiters", ONE, many_by_semaphore, many_by_smallest, 0.80, 50_000),
        Case("three limits, alone", THREE, path_by_semaphores, path_by_smallest, 0.20),
        Case(
            "three limits, 1000 waiters",
            THREE,
            tree_by_semaphores,
            tree_by_smallest,
            0.40,
            50_000,
        ),
    ]


def print_floors() -> None:
    print("\nThe floor: the smallest limit by hand, in the place of headrace.\n")
    print_table([measure(case) for case in floors()])


async def paced(tasks: int, seconds: float = 3.0) -> tuple[list[float], float]:
    """When each lease of 200 a second was granted, and what that cost of the processor."""
    capacity = QuotaCapacitySource(Rate(200, per=1.0))

    async def lease() -> None:
        (await capacity.acquire()).release()

    return await timed(lease, tasks, seconds)


async def paced_by_hand(seconds: float = 3.0) -> tuple[list[float], float]:
    """The same of one task that sleeps until each is due."""
    loop = asyncio.get_running_loop()
    due = loop.time()

    async def sleep() -> None:
        nonlocal due
        due += 1 / 200
        await asyncio.sleep(due - loop.time())

    return await timed(sleep, 1, seconds)


async def timed(
    lease: Callable[[], Awaitable[None]], tasks: int, seconds: float
) -> tuple[list[float], float]:
    granted: list[float] = []
    begun, spent = time.perf_counter(), time.process_time()

    async def work() -> None:
        while True:
            await lease()
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
    runs = {
        "1 waiting": paced(1),
        "1000 waiting": paced(1000),
        "by hand, a sleep for each": paced_by_hand(),
    }
    for name, run in runs.items():
        granted, spent = asyncio.run(run)
        print(
            f"| {name} | {len(granted) / 600:.3f} | {most(granted, 1.0)} | {most(granted, 0.1)} | {spent:.3f} |"
        )


if __name__ == "__main__":
    main(__doc__, cases)
    print_floors()
    print_paced()
