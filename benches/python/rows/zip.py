"""Many streams as one: zip and round-robin. The sources are ten async generators, and an item is one of any of them.

By hand, each source is awaited in turn. `sync builtins` zips plain generators; reactivex has no async source, and pushes from ranges.
`steps in C` are the floor, and `with identities` the floor with a task and a context for each source: see `stepper.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from by_hand import in_turn, total, zipped
from row import Goal, Work, total_in_a_block, total_of_pushed
from stepper import stepped_total

from rows.merge import TEN, flattened_by_streamable, plain_sources, plain_total, sources


async def total_of_rows(stream: Any) -> int:
    result = 0
    async for row in stream:
        result += sum(row)
    return result


# Zipping.


def zipped_by_headrace(items: int) -> Any:
    from headrace import PullZipObj

    return total_of_rows(PullZipObj(*sources(items, TEN)))


def zipped_by_builtins(items: int) -> int:
    return plain_total(map(sum, zip(*plain_sources(items, TEN), strict=False)))


def zipped_by_aiostream(items: int) -> Any:
    from aiostream import pipe, stream

    return total_in_a_block((stream.zip(*sources(items, TEN)) | pipe.map(sum)).stream())


def zipped_by_asyncstdlib(items: int) -> Any:
    import asyncstdlib

    return total_of_rows(asyncstdlib.zip(*sources(items, TEN)))


def zipped_by_aioitertools(items: int) -> Any:
    import aioitertools

    return total_of_rows(aioitertools.zip(*sources(items, TEN)))


def zipped_by_reactivex(items: int) -> int:
    import reactivex
    from reactivex import operators

    ranges = (reactivex.from_iterable(range(items // TEN)) for _ in range(TEN))
    return total_of_pushed(reactivex.zip(*ranges).pipe(operators.map(sum)))


# Round-robin.


def in_turn_by_headrace(items: int) -> Any:
    from headrace import PullRoundRobinObj

    return total(PullRoundRobinObj(*sources(items, TEN)))


def in_turn_by_builtins(items: int) -> int:
    from itertools import chain

    return plain_total(chain.from_iterable(zip(*plain_sources(items, TEN), strict=False)))


# The floors.


def stepped(*, rows: bool) -> dict[str, Any]:
    def run(items: int, *, identities: bool) -> Any:
        return stepped_total(sources(items, TEN), rows=rows, identities=identities)

    return {
        "steps in C": partial(run, identities=False),
        "with identities": partial(run, identities=True),
    }


GROUP = [
    Work(
        f"zip of {TEN}",
        "`await anext` of each",
        lambda items: total_of_rows(zipped(sources(items, TEN))),
        {
            "headrace": zipped_by_headrace,
            "sync builtins": zipped_by_builtins,
            **stepped(rows=True),
            "aiostream": zipped_by_aiostream,
            "asyncstdlib": zipped_by_asyncstdlib,
            "aioitertools": zipped_by_aioitertools,
            "reactivex": zipped_by_reactivex,
        },
        Goal(0.35),
    ),
    Work(
        f"round-robin of {TEN}",
        "`await anext` of each",
        lambda items: total(in_turn(sources(items, TEN))),
        {
            "headrace": in_turn_by_headrace,
            "sync builtins": in_turn_by_builtins,
            **stepped(rows=False),
            "streamable": lambda items: flattened_by_streamable(items, TEN),
        },
        Goal(0.40),
    ),
]
