"""What many streams as one cost: merging, zipping and taking in turn.

    make bench

Each row is a ratio to what one would write by hand on asyncio, measured in the same process; two are to
headrace's own merge of few sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from by_hand import in_ring, in_turn, merged_by_queue, numbers, one_turn_each, zipped
from harness import Case, main

from headrace import AsyncIteratorCombiner, PullRoundRobinObj, PullZipObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def total(stream: Any) -> int:
    result = 0
    async for x in stream:
        result += x if isinstance(x, int) else sum(x)
    return result


def sources(make: Callable[[int], AsyncIterator[int]], m: int, count: int) -> list[Any]:
    return [make(count // m) for _ in range(m)]


def merged(make: Callable[[int], AsyncIterator[int]], m: int, count: int) -> Any:
    return AsyncIteratorCombiner(*sources(make, m, count)).race_generator()


def merge(
    what: str, make: Callable[[int], AsyncIterator[int]], m: int, goal: float, items: int
) -> Case:
    return Case(
        f"merge of {m:,} sources, {what}",
        "a task each and an `asyncio.Queue`",
        lambda n: total(merged_by_queue(sources(make, m, n))),
        lambda n: total(merged(make, m, n)),
        goal,
        items=items,
    )


def flat(
    name: str,
    baseline: str,
    each: int,
    join: Callable[[int, int], Any],
) -> Case:
    """What an item costs with a thousand times as many sources, each of as many items."""

    async def few(count: int) -> int:
        result = 0
        for _ in range(count // (10 * each)):
            result += await total(join(10, 10 * each))
        return result

    return Case(
        f"{name}, {each} items each",
        baseline,
        few,
        lambda n: total(join(n // each, n)),
        goal=1.30,
        items=10_000 * each,
    )


def flat_merge(what: str, make: Callable[[int], AsyncIterator[int]], each: int) -> Case:
    return flat(
        f"merge of 10,000 sources, {what}",
        "headrace's own of 10",
        each,
        lambda m, count: merged(make, m, count),
    )


def flat_by_hand(each: int) -> Case:
    """How much of that is the generators' own: they lie further apart than caches reach."""
    return flat(
        "10,000 async generators in turn, by hand",
        "the same with 10",
        each,
        lambda m, count: in_ring(sources(numbers, m, count)),
    )


def cases() -> list[Case]:
    return [
        *(
            merge("ready", numbers, m, goal, 100_000)
            for m, goal in ((2, 0.06), (10, 0.10), (100, 0.13))
        ),
        merge("ready, 400 items each", numbers, 1_000, 0.14, 400_000),
        *(
            merge("a turn of the loop an item", one_turn_each, m, goal, 60_000)
            for m, goal in ((2, 0.90), (10, 0.75), (1_000, 0.75))
        ),
        flat_merge("ready", numbers, 40),
        flat_by_hand(40),
        flat_merge("a turn of the loop an item", one_turn_each, 40),
        Case(
            "zip of 10",
            "`await anext` of each",
            lambda n: total(zipped(sources(numbers, 10, n))),
            lambda n: total(PullZipObj(*sources(numbers, 10, n))),
            goal=0.35,
        ),
        Case(
            "round-robin of 10",
            "`await anext` of each",
            lambda n: total(in_turn(sources(numbers, 10, n))),
            lambda n: total(PullRoundRobinObj(*sources(numbers, 10, n))),
            goal=0.40,
        ),
    ]


if __name__ == "__main__":
    main(__doc__, cases)
