"""Single operators, through `async for`: awaiting, a foreign source, batches, a running sum.

asyncstdlib and aioitertools return a foreign async generator unchanged, at no cost.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from by_hand import numbers, total
from row import Goal, Work, total_in_a_block, total_of_pushed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZE = 100


async def same(x: int) -> int:
    return x


# An async callable that does not suspend.


async def awaited(items: int) -> AsyncIterator[int]:
    for x in range(items):
        yield await same(x)


def awaited_by_headrace(items: int) -> Any:
    from headrace import SourceIterObj

    return total(SourceIterObj(range(items)).map(same))


def awaited_by_aiostream(items: int) -> Any:
    from aiostream import stream

    return total_in_a_block(stream.map(stream.iterate(range(items)), same, task_limit=1).stream())


def awaited_by_streamable(items: int) -> Any:
    from streamable import stream

    return total(stream(range(items)).map(same))


def awaited_by_asyncstdlib(items: int) -> Any:
    import asyncstdlib

    return total(asyncstdlib.map(same, range(items)))


def awaited_by_aioitertools(items: int) -> Any:
    import aioitertools

    return total(aioitertools.map(same, range(items)))


def awaited_by_aioreactive(items: int) -> Any:
    import aioreactive

    source = aioreactive.from_iterable(range(items))
    return total(aioreactive.to_async_iterable(aioreactive.map_async(same)(source)))


# A foreign async generator as source.


def foreign_by_headrace(items: int) -> Any:
    from headrace import SourceIterObj

    return total(SourceIterObj(numbers(items)))


def foreign_by_aiostream(items: int) -> Any:
    from aiostream import stream

    return total_in_a_block(stream.iterate(numbers(items)).stream())


def foreign_by_streamable(items: int) -> Any:
    from streamable import stream

    return total(stream(numbers(items)))


def foreign_by_aioreactive(items: int) -> Any:
    import aioreactive

    return total(aioreactive.to_async_iterable(aioreactive.from_async_iterable(numbers(items))))


# Windows, flattened again.


async def batches(items: int) -> AsyncIterator[list[int]]:
    batch: list[int] = []
    async for x in numbers(items):
        batch.append(x)
        if len(batch) == SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


async def flattened(items: int) -> AsyncIterator[int]:
    async for batch in batches(items):
        for x in batch:
            yield x


def batches_by_headrace(items: int) -> Any:
    from headrace import SourceIterObj

    return total(SourceIterObj(range(items)).batch(SIZE).flatten())


def batches_by_aiostream(items: int) -> Any:
    from aiostream import pipe, stream

    line = stream.iterate(range(items)) | pipe.chunks(SIZE)
    return total_in_a_block((line | pipe.concatmap(stream.iterate, task_limit=1)).stream())


def batches_by_streamable(items: int) -> Any:
    from streamable import stream

    return total(stream(range(items)).group(SIZE).flatten())


def batches_by_asyncstdlib(items: int) -> Any:
    import asyncstdlib

    return total(asyncstdlib.chain.from_iterable(asyncstdlib.batched(range(items), SIZE)))


def batches_by_aioitertools(items: int) -> Any:
    from aioitertools.itertools import chain
    from aioitertools.more_itertools import chunked

    return total(chain.from_iterable(chunked(range(items), SIZE)))


def batches_by_reactivex(items: int) -> Any:
    import reactivex
    from reactivex import operators

    line = reactivex.from_iterable(range(items)).pipe(
        operators.buffer_with_count(SIZE), operators.flat_map(reactivex.from_iterable)
    )
    return total_of_pushed(line)


# A running sum.


async def summed(items: int) -> AsyncIterator[int]:
    result = 0
    async for x in numbers(items):
        result += x
        yield result


def summed_by_headrace(items: int) -> Any:
    from headrace import SourceIterObj

    return total(SourceIterObj(range(items)).accumulate(operator.add))


def summed_by_aiostream(items: int) -> Any:
    from aiostream import pipe, stream

    # It awaits an awaitable result, and `operator.add` is not annotated.
    line = stream.iterate(range(items)) | pipe.accumulate(operator.add)
    return total_in_a_block(line.stream())


def summed_by_asyncstdlib(items: int) -> Any:
    import asyncstdlib

    return total(asyncstdlib.accumulate(range(items), operator.add))


def summed_by_aioitertools(items: int) -> Any:
    from aioitertools.itertools import accumulate

    return total(accumulate(range(items), operator.add))


def summed_by_reactivex(items: int) -> Any:
    import reactivex
    from reactivex import operators

    return total_of_pushed(
        reactivex.from_iterable(range(items)).pipe(operators.scan(operator.add, 0))
    )


def summed_by_aioreactive(items: int) -> Any:
    import aioreactive

    source = aioreactive.from_iterable(range(items))
    return total(aioreactive.to_async_iterable(aioreactive.scan(operator.add, 0)(source)))


GROUP = [
    Work(
        "an async callable that does not suspend",
        "`yield await f(x)`",
        lambda items: total(awaited(items)),
        {
            "headrace": awaited_by_headrace,
            "aiostream": awaited_by_aiostream,
            "streamable": awaited_by_streamable,
            "asyncstdlib": awaited_by_asyncstdlib,
            "aioitertools": awaited_by_aioitertools,
            "aioreactive": awaited_by_aioreactive,
        },
        Goal(0.85),
    ),
    Work(
        "a foreign async generator as source",
        "iterating it",
        lambda items: total(numbers(items)),
        {
            "headrace": foreign_by_headrace,
            "aiostream": foreign_by_aiostream,
            "streamable": foreign_by_streamable,
            "aioreactive": foreign_by_aioreactive,
        },
        Goal(1.10),
    ),
    Work(
        f"batches of {SIZE}, flattened again",
        "async generators",
        lambda items: total(flattened(items)),
        {
            "headrace": batches_by_headrace,
            "aiostream": batches_by_aiostream,
            "streamable": batches_by_streamable,
            "asyncstdlib": batches_by_asyncstdlib,
            "aioitertools": batches_by_aioitertools,
            "reactivex": batches_by_reactivex,
        },
        Goal(0.35),
    ),
    Work(
        "a running sum",
        "async generators",
        lambda items: total(summed(items)),
        {
            "headrace": summed_by_headrace,
            "aiostream": summed_by_aiostream,
            "asyncstdlib": summed_by_asyncstdlib,
            "aioitertools": summed_by_aioitertools,
            "reactivex": summed_by_reactivex,
            "aioreactive": summed_by_aioreactive,
        },
        Goal(0.45),
    ),
]
