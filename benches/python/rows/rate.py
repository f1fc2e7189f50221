"""A rate: 200 leases a second, for three seconds of real time.

By hand, a task that sleeps until each lease is due. aiolimiter gets a bucket of one, the default of headrace's `Rate`; pyrate-limiter uses
windows. `bare timers` are the floor of CPU time: the loop wakes as often and grants no lease. headrace does not catch up after a stall of
more than 50 ms, as `Rate` documents: on a busy machine it grants fewer leases.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from row import Ask, Probe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Lease = Callable[[], Awaitable[object]]
    Question = Callable[[list[float], float], str]

PER_SECOND, SECONDS = 200, 3.0


def of_headrace() -> Lease:
    from headrace import QuotaCapacitySource, Rate

    capacity = QuotaCapacitySource(Rate(PER_SECOND, per=1.0))

    async def lease() -> None:
        (await capacity.acquire()).release()

    return lease


def by_hand() -> Lease:
    """Reserve the next free time, and sleep until then."""
    loop = asyncio.get_running_loop()
    due = loop.time()

    async def lease() -> None:
        nonlocal due
        due += 1 / PER_SECOND
        await asyncio.sleep(due - loop.time())

    return lease


def of_aiolimiter() -> Lease:
    from aiolimiter import AsyncLimiter

    return AsyncLimiter(1, 1 / PER_SECOND).acquire


def of_pyrate_limiter() -> Lease:
    from pyrate_limiter import Duration, Limiter, Rate

    limiter = Limiter(Rate(PER_SECOND, Duration.SECOND))

    async def lease() -> None:
        await limiter.try_acquire_async("all")

    return lease


LIBRARIES: dict[str, Callable[[], Lease]] = {
    "headrace": of_headrace,
    "by hand": by_hand,
    "aiolimiter": of_aiolimiter,
    "pyrate-limiter": of_pyrate_limiter,
}


async def paced(make: Callable[[], Lease], tasks: int) -> tuple[list[float], float]:
    """Return the time of each grant, and the CPU time in seconds."""
    lease = make()
    granted: list[float] = []
    begun, spent = time.perf_counter(), time.process_time()

    async def work() -> None:
        while True:
            await lease()
            granted.append(time.perf_counter() - begun)

    working = [asyncio.create_task(work()) for _ in range(tasks)]
    await asyncio.sleep(SECONDS)
    spent = time.process_time() - spent
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    return [when for when in granted if when < SECONDS], spent


def most(granted: list[float], window: float) -> int:
    """Return the most grants in any window of that length."""
    first = best = 0
    for last, when in enumerate(granted):
        while granted[first] <= when - window:
            first += 1
        best = max(best, last - first + 1)
    return best


async def bare_timers() -> str:
    """The cost of as many timers, each of which only sets the next one."""
    loop = asyncio.get_running_loop()
    begun, spent = loop.time(), time.process_time()
    done = asyncio.Event()

    def tick(number: int) -> None:
        if number == PER_SECOND * SECONDS:
            done.set()
        else:
            loop.call_at(begun + number / PER_SECOND, tick, number + 1)

    tick(1)
    await done.wait()
    return processor_time([], time.process_time() - spent)


async def answer(make: Callable[[], Lease], tasks: int, question: Question) -> str:
    return question(*await paced(make, tasks))


def how_many(granted: list[float], _: float) -> str:
    return str(len(granted))


def most_in_100_ms(granted: list[float], _: float) -> str:
    return str(most(granted, 0.1))


def processor_time(_: list[float], spent: float) -> str:
    return f"{spent:.2f} s"


def row(name: str, tasks: int, question: Question, right: str) -> Probe:
    libraries: dict[str, Ask] = {
        library: partial(answer, make, tasks, question) for library, make in LIBRARIES.items()
    }
    if question is processor_time:
        libraries["bare timers"] = bare_timers
    # Other starting processes would stall it.
    is_alone = question is not processor_time
    return Probe(f"{name}, {tasks} waiting", right, libraries, is_alone)


GROUP = [
    row("granted, of 600", 1000, how_many, ">= 597"),
    row("most in 0.1 s", 1000, most_in_100_ms, "<= 22"),
    row("CPU", 1, processor_time, "<= 0.02 s"),
    row("CPU", 1000, processor_time, "<= 0.02 s"),
]
