"""Stages of map and filter, into a list.

By hand is synchronous Python, the floor. headrace uses `collect()`; the others use their equivalent, or
`[x async for x in stream]`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import stages
from row import Goal, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterable


def by_builtins(items: int, kinds: stages.Kinds) -> list[int]:
    return list(stages.by_builtins(items, kinds))


async def listed(stream: AsyncIterable[int]) -> list[int]:
    return [x async for x in stream]


async def by_aiostream(items: int, kinds: stages.Kinds) -> list[int]:
    from aiostream import stream

    result: list[int] = await stream.list(stages.by_aiostream(items, kinds))
    return result


async def by_asyncstdlib(items: int, kinds: stages.Kinds) -> list[int]:
    import asyncstdlib

    return await asyncstdlib.list(stages.by_asyncstdlib(items, kinds))


async def by_aioitertools(items: int, kinds: stages.Kinds) -> list[int]:
    import aioitertools

    return await aioitertools.list(stages.by_aioitertools(items, kinds))


def by_reactivex(items: int, kinds: stages.Kinds) -> list[int]:
    from reactivex import operators

    result: list[int] = []
    stages.by_reactivex(items, kinds).pipe(operators.to_list()).subscribe(result.extend)
    return result


LIBRARIES = {
    "headrace": lambda items, kinds: stages.by_headrace(items, kinds).collect(),
    "async generators": lambda items, kinds: listed(stages.by_hand(items, kinds)),
    "aiostream": by_aiostream,
    "streamable": lambda items, kinds: listed(stages.by_streamable(items, kinds)),
    "asyncstdlib": by_asyncstdlib,
    "aioitertools": by_aioitertools,
    "reactivex": by_reactivex,
}

GROUP = [
    Work(
        f"`collect()` of {count} map/filter stages",
        "`list(map(filter(...)))`, synchronous",
        partial(by_builtins, kinds=stages.in_turn(count)),
        {library: partial(run, kinds=stages.in_turn(count)) for library, run in LIBRARIES.items()},
        Goal(1.15),
    )
    for count in (3, 5, 10)
]
