"""Many streams as one: merging. The sources are async generators, and an item is one of any of them.

By hand, a task for each source and an `asyncio.Queue` with as many slots. streamable has no merge: its `flatten(concurrency=M)` is
round-robin. `sync builtins` chains plain generators; reactivex has no async source, and pushes from ranges. Very many sources, and very
many bare generators, are compared with headrace's own cost for few.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from by_hand import in_ring, merged_by_queue, numbers, one_turn_each, total
from row import Goal, Work, total_in_a_block, total_of_pushed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    Make = Callable[[int], AsyncIterator[int]]

TEN, MANY = 10, 1_000
EACH = 40


def sources(items: int, m: int, make: Make = numbers) -> list[AsyncIterator[int]]:
    """Counts the items of all sources, so that a cell gives the cost of one."""
    return [make(items // m) for _ in range(m)]


def plain_sources(items: int, m: int) -> list[Iterator[int]]:
    return [(x for x in range(items // m)) for _ in range(m)]


def plain_total(items: Iterable[int]) -> int:
    result = 0
    for x in items:
        result += x
    return result


def merged_by_hand(items: int, m: int, make: Make = numbers) -> Any:
    return total(merged_by_queue(sources(items, m, make)))


def raced_by_headrace(items: int, m: int, make: Make = numbers) -> Any:
    from headrace import PullRaceObj

    return PullRaceObj(*sources(items, m, make))


def merged_by_headrace(items: int, m: int, make: Make = numbers) -> Any:
    return total(raced_by_headrace(items, m, make))


def merged_by_builtins(items: int, m: int, make: Make) -> int:  # noqa: ARG001  (plain generators)
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


def merged_by_reactivex(items: int, m: int, make: Make) -> int:  # noqa: ARG001  (ranges)
    import reactivex

    return total_of_pushed(
        reactivex.merge(*(reactivex.from_iterable(range(items // m)) for _ in range(m)))
    )


def merged_by_aioreactive(items: int, m: int, make: Make = numbers) -> Any:
    import aioreactive

    observables = [aioreactive.from_async_iterable(source) for source in sources(items, m, make)]
    merged = aioreactive.merge_inner(0)(aioreactive.from_iterable(observables))
    return total(aioreactive.to_async_iterable(merged))


SUSPENDING: dict[str, Any] = {
    "headrace": merged_by_headrace,
    "aiostream": merged_by_aiostream,
    "streamable": flattened_by_streamable,
    "aioitertools": merged_by_aioitertools,
    "aioreactive": merged_by_aioreactive,
}
READY = {
    "headrace": merged_by_headrace,
    "sync builtins": merged_by_builtins,
    **SUSPENDING,
    "reactivex": merged_by_reactivex,
}


def flat(
    name: str, baseline: str, join: Callable[[int, int], Any], library: str, goal: Goal | None
) -> Work:
    """The cost of an item with a thousand times as many sources of the same length, creating and closing them included."""

    async def few(items: int) -> int:
        result = 0
        for _ in range(items // (TEN * EACH)):
            result += await total(join(TEN * EACH, TEN))
        return result

    return Work(
        f"{name}, {EACH} items each",
        baseline,
        few,
        {library: lambda items: total(join(items, items // EACH))},
        goal,
        items=10_000 * EACH,
        is_whole=True,
    )


def merge(what: str, m: int, make: Make, libraries: dict[str, Any], goal: float) -> Work:
    return Work(
        f"merge of {m:,} sources, {what}",
        "a task each and an `asyncio.Queue`",
        partial(merged_by_hand, m=m, make=make),
        {library: partial(run, m=m, make=make) for library, run in libraries.items()},
        Goal(goal),
        # The cost of a source is spread over a realistic number of items.
        items=400_000 if m == MANY and make is numbers else 60_000 if m == MANY else 200_000,
        is_whole=m == MANY,
    )


READY_ONES, A_TURN = "ready", "one loop iteration an item"
OURS = {"headrace": merged_by_headrace}

GROUP = [
    *(
        merge(READY_ONES, m, numbers, READY, goal)
        for m, goal in ((2, 0.06), (10, 0.10), (100, 0.13))
    ),
    merge(f"{READY_ONES}, 400 items each", MANY, numbers, OURS, 0.14),
    *(merge(A_TURN, m, one_turn_each, SUSPENDING, goal) for m, goal in ((2, 0.90), (10, 0.75))),
    merge(A_TURN, MANY, one_turn_each, OURS, 0.75),
    flat(
        "merge of 10,000 sources, ready",
        "headrace's own of 10",
        raced_by_headrace,
        "headrace",
        Goal(1.30),
    ),
    flat(
        "10,000 async generators in turn",
        "the same with 10",
        lambda items, m: in_ring(sources(items, m)),
        "async generators",
        None,
    ),
    flat(
        "merge of 10,000 sources, one loop iteration an item",
        "headrace's own of 10",
        partial(raced_by_headrace, make=one_turn_each),
        "headrace",
        Goal(1.30),
    ),
]
