"""Calls on a Ray of two processors, 64 in flight: `RayExecutor` beside plain Ray tasks.

.venv-ray/bin/python benches/python/ray_rates.py       after make test-ray, which makes that environment

Both sides run in turn in one process, with workers that are ready. The CPU time is that of the driver with all of its threads; the
processes of Ray and the workers are not counted. A value above 1 in the third column means that `RayExecutor` is faster.
"""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import Any, NamedTuple

from headrace import RayExecutor, SourceIterObj

CALLS = 2_000
IN_FLIGHT = 64
WORKERS = 2
ROUNDS = 3


class Cost(NamedTuple):
    """The rate of a run, and the CPU time of the driver for a call."""

    rate: float
    cpu: float


def same(number: int) -> int:
    return number


async def by_ray(ray: Any) -> Cost:
    """Make the calls as Ray tasks."""
    remote = ray.remote(num_cpus=1, max_retries=0)(same)
    await asyncio.gather(*(remote.remote(number) for number in range(IN_FLIGHT)))
    numbers = iter(range(CALLS))

    async def work() -> None:
        for number in numbers:
            await remote.remote(number)

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return cost(begun, cpu)


async def by_headrace(linger: float) -> Cost:
    """Make the calls in a `RayExecutor`, with as many tasks waiting at its workers."""
    prefetch = IN_FLIGHT // WORKERS - 1
    async with RayExecutor(workers=WORKERS, prefetch=prefetch, linger=linger) as executor:
        while (executor.capabilities.slots or 0) < IN_FLIGHT:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.01)
        begun, cpu = time.perf_counter(), time.process_time()
        stream = SourceIterObj(range(CALLS)).map_pool(same, IN_FLIGHT, executor=executor)
        async with stream as results:
            assert sum([result async for result in results]) == sum(range(CALLS))
        return cost(begun, cpu)


def cost(begun: float, cpu: float) -> Cost:
    return Cost(CALLS / (time.perf_counter() - begun), (time.process_time() - cpu) / CALLS * 1e6)


async def main() -> None:
    ray: Any = import_module("ray")
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    print("| | calls/s | times plain Ray | driver's CPU a call | of plain Ray |")
    print("|---|--:|--:|--:|--:|")
    for _ in range(ROUNDS):
        plain = await by_ray(ray)
        print(f"| plain Ray tasks | {plain.rate:,.0f} | 1 | {plain.cpu:.0f} us | 1 |")
        for linger in (0.0, 0.005):
            found = await by_headrace(linger)
            print(
                f"| `RayExecutor(linger={linger:g})` | {found.rate:,.0f} | {found.rate / plain.rate:.1f} "
                f"| {found.cpu:.0f} us | {found.cpu / plain.cpu:.2f} |",
                flush=True,
            )
    ray.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
