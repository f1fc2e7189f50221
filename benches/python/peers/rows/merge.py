"""Many streams as one: merging, zipping and taking in turn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from by_hand import in_turn, merged_by_queue, numbers, one_turn_each, zipped

from peers.row import Goal, Group, Work, total, total_in_a_block, total_of_pushed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    Make = Callable[[int], AsyncIterator[int]]

TEN = 10


def sources(items: int, m: int, make: Make = numbers) -> list[AsyncIterator[int]]:
    """The items are those of all of them, so that a cell says what one of them costs."""
    return [make(items // m) for _ in range(m)]


def plain_sources(items: int, m: int) -> list[Iterator[int]]:
    return [(x for x in range(items // m)) for _ in range(m)]


def plain_total(items: Iterable[int]) -> int:
    result = 0
    for x in items:
        result += x
    return result


async def total_of_rows(stream: Any) -> int:
    result = 0
    async for row in stream:
        result += sum(row)
    return result


# Merging.


def merged_by_hand(items: int, m: int, make: Make = numbers) -> Any:
    return total(merged_by_queue(sources(items, m, make)))


def merged_by_headrace(items: int, m: int, make: Make = numbers) -> Any:
    from headrace import PullRaceObj

    return total(PullRaceObj(*sources(items, m, make)))


def merged_by_builtins(items: int, m: int) -> int:
    from itertools import chain

    return plain_total(chain.from_iterable(plain_sources(items, m)))


def merged_by_aiostream(items: int, m: int, make: Make = numbers) -> Any:
    from aiostream import stream

    return total_in_a_block(stream.merge(*sources(items, m, make)).stream())


def flattened_by_streamable(items: int, m: int, make: Make = numbers) -> Any:
    from streamable import stream

    return total(stream(sources(items, m, make)).flatten(concurrency=m))


def merged_by_aioitertools(items: int, m: int, make: Make = numbers) -> Any:
    from aioitertools.asyncio import as_generated

    return total(as_generated(sources(items, m, make)))


def merged_by_reactivex(items: int, m: int) -> int:
    import reactivex

    return total_of_pushed(
        reactivex.merge(*(reactivex.from_iterable(range(items // m)) for _ in range(m)))
    )


def merged_by_aioreactive(items: int, m: int, make: Make = numbers) -> Any:
    import aioreactive

    observables = [aioreactive.from_async_iterable(source) for source in sources(items, m, make)]
    merged = aioreactive.merge_inner(0)(aioreactive.from_iterable(observables))
    return total(aioreactive.to_async_iterable(merged))


FOREIGN = {
    "headrace": merged_by_headrace,
    "aiostream": merged_by_aiostream,
    "streamable": flattened_by_streamable,
    "aioitertools": merged_by_aioitertools,
    "aioreactive": merged_by_aioreactive,
}
READY = {
    "headrace": merged_by_headrace,
    "sync builtins": merged_by_builtins,
    **FOREIGN,
    "reactivex": merged_by_reactivex,
}


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


# Taking in turn.


def in_turn_by_headrace(items: int) -> Any:
    from headrace import PullRoundRobinObj

    return total(PullRoundRobinObj(*sources(items, TEN)))


def in_turn_by_builtins(items: int) -> int:
    from itertools import chain

    return plain_total(chain.from_iterable(zip(*plain_sources(items, TEN), strict=False)))


GROUP = Group(
    "Many streams as one",
    "The sources are async generators, and an item is one of any of them. By hand, a merge is a task for each source and "
    "an `asyncio.Queue` of as many places; a zip and a round-robin await each source in turn. streamable has no merge: "
    "its `flatten(concurrency=M)` takes in turn, and stands in both rows. `sync builtins` chains or zips plain generators; "
    "reactivex has no async source, and pushes out of ranges.",
    [
        *(
            Work(
                f"merge of {m} that are ready",
                partial(merged_by_hand, m=m),
                {library: partial(run, m=m) for library, run in READY.items()},
                Goal(goal, goal),
            )
            for m, goal in ((2, 0.06), (10, 0.10), (100, 0.13))
        ),
        *(
            Work(
                f"merge of {m}, one turn of the loop an item",
                partial(merged_by_hand, m=m, make=one_turn_each),
                {
                    library: partial(run, m=m, make=one_turn_each)
                    for library, run in FOREIGN.items()
                },
                Goal(goal, goal),
            )
            for m, goal in ((2, 0.90), (10, 0.75))
        ),
        Work(
            f"zip of {TEN}",
            lambda items: total_of_rows(zipped(sources(items, TEN))),
            {
                "headrace": zipped_by_headrace,
                "sync builtins": zipped_by_builtins,
                "aiostream": zipped_by_aiostream,
                "asyncstdlib": zipped_by_asyncstdlib,
                "aioitertools": zipped_by_aioitertools,
                "reactivex": zipped_by_reactivex,
            },
            Goal(0.35, 0.35),
        ),
        Work(
            f"round-robin of {TEN}",
            lambda items: total(in_turn(sources(items, TEN))),
            {
                "headrace": in_turn_by_headrace,
                "sync builtins": in_turn_by_builtins,
                "streamable": partial(flattened_by_streamable, m=TEN),
            },
            Goal(0.40, 0.40),
        ),
    ],
)
