"""What many streams as one cost: merging, zipping and taking in turn.

    python benches/python/merge.py

Each row is a ratio to what one would write by hand on asyncio, measured in the same process; two are to
headrace's own merge of few sources.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from harness import Case, Result, measure, print_table

from headrace import AsyncIteratorCombiner, PullRoundRobinObj, PullZipObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

END = object()


async def ready(count: int) -> AsyncIterator[int]:
    for x in range(count):
        yield x


async def one_turn_each(count: int) -> AsyncIterator[int]:
    for x in range(count):
        await asyncio.sleep(0)
        yield x


async def total(stream: Any) -> int:
    result = 0
    async for x in stream:
        result += x if isinstance(x, int) else sum(x)
    return result


async def by_queue(sources: list[AsyncIterator[int]]) -> AsyncIterator[int]:
    """A task for each source, and a bounded queue."""
    queue: asyncio.Queue[Any] = asyncio.Queue(len(sources))

    async def pump(source: AsyncIterator[int]) -> None:
        async for x in source:
            await queue.put(x)
        await queue.put(END)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    left = len(tasks)
    try:
        while left:
            x = await queue.get()
            if x is END:
                left -= 1
            else:
                yield x
    finally:
        for task in tasks:
            task.cancel()


async def zipped(sources: list[AsyncIterator[int]]) -> AsyncIterator[tuple[int, ...]]:
    pulls = [source.__anext__ for source in sources]
    while True:
        try:
            yield tuple([await pull() for pull in pulls])
        except StopAsyncIteration:
            return


async def in_turn(sources: list[AsyncIterator[int]]) -> AsyncIterator[int]:
    pulls = [source.__anext__ for source in sources]
    while pulls:
        for pull in tuple(pulls):
            try:
                yield await pull()
            except StopAsyncIteration:
                pulls.remove(pull)


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
        lambda n: total(by_queue(sources(make, m, n))),
        lambda n: total(merged(make, m, n)),
        goal,
        items=items,
    )


def flat(what: str, make: Callable[[int], AsyncIterator[int]], each: int) -> Case:
    """What an item costs with a thousand times as many sources, each of as many items."""

    async def few(count: int) -> int:
        result = 0
        for _ in range(count // (10 * each)):
            result += await total(merged(make, 10, 10 * each))
        return result

    return Case(
        f"merge of 10,000 sources, {what}, {each} items each",
        "headrace's own of 10",
        few,
        lambda n: total(merged(make, n // each, n)),
        goal=1.30,
        items=10_000 * each,
    )


def cases() -> list[Case]:
    return [
        *(
            merge("ready", ready, m, goal, 100_000)
            for m, goal in ((2, 0.06), (10, 0.10), (100, 0.13))
        ),
        merge("ready, 400 items each", ready, 1_000, 0.14, 400_000),
        *(
            merge("a turn of the loop an item", one_turn_each, m, goal, 60_000)
            for m, goal in ((2, 0.90), (10, 0.75), (1_000, 0.75))
        ),
        flat("ready", ready, 40),
        flat("a turn of the loop an item", one_turn_each, 40),
        Case(
            "zip of 10",
            "`await anext` of each",
            lambda n: total(zipped(sources(ready, 10, n))),
            lambda n: total(PullZipObj(*sources(ready, 10, n))),
            goal=0.35,
        ),
        Case(
            "round-robin of 10",
            "`await anext` of each",
            lambda n: total(in_turn(sources(ready, 10, n))),
            lambda n: total(PullRoundRobinObj(*sources(ready, 10, n))),
            goal=0.40,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=9, help="how often each side runs (9)")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    results: list[Result] = [
        measure(case, options.repetitions) for case in cases() if options.only in case.name
    ]
    print_table(results)


if __name__ == "__main__":
    main()
