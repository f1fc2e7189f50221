"""Limits: one, and a tree of three levels; alone, and with a thousand tasks that wait."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from limiter import (
    LEAVES,
    MIDS,
    by_capacity,
    by_limits,
    capacities,
    contended,
)

from peers.row import Goal, Group, Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Use = Callable[[bool], Awaitable[None]]
    Make = Callable[[int], Any]


def semaphore_of_anyio(count: int) -> Any:
    import anyio

    # As by hand: who need not wait goes on without a turn of the loop.
    return anyio.Semaphore(count, fast_acquire=True)


def limiter_of_anyio(count: int) -> Any:
    import anyio

    return anyio.CapacityLimiter(count)


class Aiologic:
    """By the names of the others."""

    def __init__(self, semaphore: Any) -> None:
        self.acquire = semaphore.async_acquire
        self.release = semaphore.async_release


def semaphore_of_aiologic(count: int) -> Any:
    import aiologic

    return Aiologic(aiologic.Semaphore(count))


PEERS = {
    "anyio semaphore": semaphore_of_anyio,
    "anyio limiter": limiter_of_anyio,
    "aiologic": semaphore_of_aiologic,
}


async def alone(use: Use, count: int) -> int:
    for _ in range(count):
        await use(False)
    return count


def path(make: Make) -> list[Any]:
    return [make(2), make(10), make(50)]


async def alone_by(make: Make, count: int) -> int:
    limiter = make(10)
    for _ in range(count):
        await limiter.acquire()
        limiter.release()
    return count


async def alone_by_headrace(count: int) -> int:
    from headrace import CapacitySource

    capacity = CapacitySource(10)
    for _ in range(count):
        lease = await capacity.acquire()
        lease.release()
    return count


async def many_by(make: Make, count: int) -> int:
    return await contended([by_limits(make(10))], count)


async def many_by_headrace(count: int) -> int:
    from headrace import CapacitySource

    return await contended([by_capacity(CapacitySource(10))], count)


async def path_by(make: Make, count: int) -> int:
    return await alone(by_limits(*path(make)), count)


async def path_by_headrace(count: int) -> int:
    return await alone(by_capacity(capacities()[0]), count)


async def tree_by(make: Make, count: int) -> int:
    root, mids = make(50), [make(10) for _ in range(MIDS)]
    paths = [[make(2), mids[number % MIDS], root] for number in range(LEAVES)]
    return await contended([by_limits(*path) for path in paths], count)


async def tree_by_headrace(count: int) -> int:
    return await contended([by_capacity(leaf) for leaf in capacities()], count)


def row(name: str, by: Callable[[Make, int], Any], headrace: Any, goal: float, items: int) -> Work:
    return Work(
        name,
        partial(by, asyncio.Semaphore),
        {"headrace": headrace, **{peer: partial(by, make) for peer, make in PEERS.items()}},
        Goal(goal, goal),
        items=items,
    )


GROUP = Group(
    "Limits",
    "Acquire and release; by hand, an `asyncio.Semaphore`, or one for each level, taken from the leaf up. With a thousand tasks, "
    "of which each holds for one turn of the loop; the tree has 100 leaves, 10 nodes above them, and a root. No peer has a tree: "
    "theirs is one limit for each level, as by hand. The limiter of anyio knows who holds it, and so does headrace; it gives the loop a "
    "turn each time it is acquired, which the others do only if they have to wait.",
    [
        row("a limit, alone", alone_by, alone_by_headrace, 0.40, 200_000),
        row("a limit, 1000 waiters", many_by, many_by_headrace, 0.80, 50_000),
        row("a tree of three levels, alone", path_by, path_by_headrace, 0.20, 200_000),
        row("a tree of three levels, 1000 waiters", tree_by, tree_by_headrace, 0.40, 50_000),
    ],
)
