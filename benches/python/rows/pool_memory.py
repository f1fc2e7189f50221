"""Memory growth from few to many tasks, each of one loop iteration, 100 at once.

It shows the memory that a pool keeps for ended tasks and for tasks that are not started.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from row import Probe

from rows.concurrent_map import as_finished_by_hand, iteration
from rows.pool import LIMIT, POOLS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FEW, MANY = 10_000, 100_000


def most_ever_resident() -> float:
    """Megabytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("this kernel does not say how much memory a process has had")
    return int(found[1]) / 1024


async def growth(run: Callable[..., Awaitable[Any]]) -> str:
    await run(FEW, call=iteration, limit=LIMIT)
    before = most_ever_resident()
    await run(MANY, call=iteration, limit=LIMIT)
    return f"{most_ever_resident() - before:.1f} MB"


GROUP = [
    Probe(
        f"{MANY:,} tasks after {FEW:,}",
        "<= 2 MB",
        {
            library: partial(growth, run)
            for library, run in {
                **POOLS,
                "by hand": as_finished_by_hand,
            }.items()
        },
    )
]
