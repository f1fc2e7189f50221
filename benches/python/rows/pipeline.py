"""Stages of map and filter, through `async for`.

`x + 1` and `x % 7 != 0` alternate; by hand, one async generator per stage over one that counts. `sync builtins` is the floor: `map` and
`filter` in a plain `for`. reactivex pushes without the event loop.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import stages
from by_hand import numbers, total
from row import Goal, Work, total_in_a_block, total_of_pushed


async def by_hand(items: int, kinds: stages.Kinds) -> int:
    return await total(stages.by_hand(items, kinds))


def plain_total(items: int, kinds: stages.Kinds) -> int:
    result = 0
    for x in stages.by_builtins(items, kinds):
        result += x
    return result


LIBRARIES = {
    "headrace": lambda items, kinds: total(stages.by_headrace(items, kinds)),
    "sync builtins": plain_total,
    "aiostream": lambda items, kinds: total_in_a_block(stages.by_aiostream(items, kinds).stream()),
    "streamable": lambda items, kinds: total(stages.by_streamable(items, kinds)),
    "asyncstdlib": lambda items, kinds: total(stages.by_asyncstdlib(items, kinds)),
    "aioitertools": lambda items, kinds: total(stages.by_aioitertools(items, kinds)),
    "reactivex": lambda items, kinds: total_of_pushed(stages.by_reactivex(items, kinds)),
    "aioreactive": lambda items, kinds: total(stages.by_aioreactive(items, kinds)),
    "aiochan": lambda items, kinds: total(stages.by_aiochan(items, kinds)),
}

GOALS = {1: Goal(0.50, 0.48), 3: Goal(0.42, 0.38), 5: Goal(0.42, 0.36), 10: Goal(0.40, 0.30)}


async def exhausted(stream: Any) -> None:
    async for _ in stream:
        pass


GROUP = [
    Work(
        "an empty `async for`",
        "async generator",
        lambda items: exhausted(numbers(items)),
        {"headrace": lambda items: exhausted(stages.by_headrace(items, []))},
        Goal(0.60),
    ),
    *(
        Work(
            f"{count} map/filter stage{'s' * (count > 1)}",
            "async generators",
            partial(by_hand, kinds=stages.in_turn(count)),
            {
                library: partial(run, kinds=stages.in_turn(count))
                for library, run in LIBRARIES.items()
            },
            goal,
        )
        for count, goal in GOALS.items()
    ),
]
