"""Limits: a single one, and a tree of three levels; uncontended, and with a thousand tasks that each hold for one loop iteration.

By hand, an `asyncio.Semaphore`, or one for each level, acquired from the leaf up; this may deadlock if costs differ, and is not fair. No
other library has a tree: they use one limit for each level. The tree has 100 leaves, 10 nodes above them, and a root. The limiter of anyio
tracks its holders, as headrace does, and yields to the loop at each acquire; the others yield only if they wait. `smallest` is the floor,
the smallest limit in Python, a counter and a queue of futures: without leases, holders, paths, shares or threads, and a cancelled waiter
loses its grant.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from row import Goal, Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    Use = Callable[[], Awaitable[None]]
    Make = Callable[[int], Any]

TASKS = 1000
LEAVES, MIDS = 100, 10


# Not a generator, but implements all that `await` needs.
NOTHING = cast("Generator[Any, Any, None]", iter(()))


class Smallest:
    """A counter and a queue of futures. It is its own awaitable, because a coroutine would double the cost."""

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


def semaphore_of_anyio(count: int) -> Any:
    import anyio

    # As by hand: an acquire that need not wait does not yield to the loop.
    return anyio.Semaphore(count, fast_acquire=True)


def limiter_of_anyio(count: int) -> Any:
    import anyio

    return anyio.CapacityLimiter(count)


class Aiologic:
    """The same under the method names of the others."""

    def __init__(self, semaphore: Any) -> None:
        self.acquire = semaphore.async_acquire
        self.release = semaphore.async_release


def semaphore_of_aiologic(count: int) -> Any:
    import aiologic

    return Aiologic(aiologic.Semaphore(count))


LIMITS: dict[str, Make] = {
    "anyio semaphore": semaphore_of_anyio,
    "anyio limiter": limiter_of_anyio,
    "aiologic": semaphore_of_aiologic,
    "smallest": Smallest,
}


def paths(make: Make) -> list[list[Any]]:
    """The path of each leaf."""
    root, mids = make(50), [make(10) for _ in range(MIDS)]
    return [[make(2), mids[number % MIDS], root] for number in range(LEAVES)]


def capacities() -> list[Any]:
    """The leaves."""
    from headrace import CapacitySource

    root = CapacitySource(50)
    mids = [CapacitySource(10, root) for _ in range(MIDS)]
    return [CapacitySource(2, mids[number % MIDS]) for number in range(LEAVES)]


# Uncontended. These loops are written out, because a function call would cost more than its body.


async def alone_by(make: Make, count: int) -> int:
    limit = make(10)
    for _ in range(count):
        await limit.acquire()
        limit.release()
    return count


async def alone_by_headrace(count: int) -> int:
    from headrace import CapacitySource

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


async def block_by_headrace(count: int) -> int:
    from headrace import CapacitySource

    capacity = CapacitySource(10)
    for _ in range(count):
        async with capacity.acquire():
            pass
    return count


async def path_by(make: Make, count: int) -> int:
    path = paths(make)[0]
    for _ in range(count):
        for limit in path:
            await limit.acquire()
        for limit in path:
            limit.release()
    return count


async def path_by_headrace(count: int) -> int:
    # The leaf keeps the tree alive.
    capacity = capacities()[0]
    for _ in range(count):
        lease = await capacity.acquire()
        lease.release()
    return count


# With many waiters.


def by_limits(*limits: Any) -> Use:
    """Hold all of them for one loop iteration."""

    async def use() -> None:
        for limit in limits:
            await limit.acquire()
        await asyncio.sleep(0)
        for limit in limits:
            limit.release()

    return use


def by_capacity(capacity: Any) -> Use:
    async def use() -> None:
        lease = await capacity.acquire()
        await asyncio.sleep(0)
        lease.release()

    return use


async def contended(uses: list[Use], count: int) -> int:
    """A thousand tasks at once."""

    async def work(use: Use) -> None:
        for _ in range(count // TASKS):
            await use()

    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(work(uses[number % len(uses)]))
    return count


async def many_by(make: Make, count: int) -> int:
    return await contended([by_limits(make(10))], count)


async def many_by_headrace(count: int) -> int:
    from headrace import CapacitySource

    return await contended([by_capacity(CapacitySource(10))], count)


async def tree_by(make: Make, count: int) -> int:
    return await contended([by_limits(*path) for path in paths(make)], count)


async def tree_by_headrace(count: int) -> int:
    return await contended([by_capacity(leaf) for leaf in capacities()], count)


ONE, THREE = "`asyncio.Semaphore`", "three `asyncio.Semaphore`s"


def row(
    name: str,
    baseline: str,
    by: Callable[[Make, int], Any],
    headrace: Any,
    goal: float,
    *,
    waits: bool = False,
) -> Work:
    return Work(
        name,
        baseline,
        partial(by, asyncio.Semaphore),
        {"headrace": headrace, **{library: partial(by, make) for library, make in LIMITS.items()}},
        Goal(goal),
        # Creating a thousand tasks takes time; there must be enough work for each.
        items=20_000 if waits else 200_000,
        is_whole=waits,
    )


GROUP = [
    row("a limit, alone", ONE, alone_by, alone_by_headrace, 0.40),
    Work(
        "a limit, alone, `async with`",
        ONE,
        block_by_semaphore,
        {"headrace": block_by_headrace},
        Goal(0.40),
    ),
    row("a limit, 1000 waiters", ONE, many_by, many_by_headrace, 0.80, waits=True),
    row("a tree of three levels, alone", THREE, path_by, path_by_headrace, 0.20),
    row("a tree of three levels, 1000 waiters", THREE, tree_by, tree_by_headrace, 0.40, waits=True),
]
