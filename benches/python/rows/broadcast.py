"""Each item to many sinks. One item at one sink counts as one item.

By hand, a queue of 100 and a task for each sink, which decouples them; so do the bounded buffers. With callbacks and lists the libraries
call their sinks one after the other, headrace from a `PushForkObj`; its lists are `SinkCollectObj`s. `sync calls` is the floor: a `for`
over the callables.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from by_hand import broadcast
from row import Goal, Work

if TYPE_CHECKING:
    from collections.abc import Callable


def adder() -> tuple[Callable[[int], None], Callable[[], int]]:
    """Return the function that each sink calls, and the total of all calls."""
    total = 0

    def add(x: int) -> None:
        nonlocal total
        total += x

    return add, lambda: total


async def by_headrace(items: int, sinks: int) -> int:
    from headrace import PushForkObj, SinkCallbackObj

    add, total = adder()
    fork = PushForkObj([SinkCallbackObj(add) for _ in range(sinks)])
    for x in range(items // sinks):
        await fork.next(x)
    return total()


async def into_lists_by_headrace(items: int, sinks: int) -> int:
    from headrace import PushForkObj, SinkCollectObj

    collected: list[SinkCollectObj[int]] = [SinkCollectObj() for _ in range(sinks)]
    fork = PushForkObj(collected)
    for x in range(items // sinks):
        await fork.next(x)
    return sum(sum(sink.buffer) for sink in collected)


async def into_buffers_by_headrace(items: int, sinks: int) -> int:
    from headrace import PushForkObj, PushPullBufferObj

    buffers: list[PushPullBufferObj[int]] = [PushPullBufferObj(100) for _ in range(sinks)]
    add, total = adder()

    async def consume(buffer: PushPullBufferObj[int]) -> None:
        async for x in buffer.source:
            add(x)

    tasks = [asyncio.create_task(consume(buffer)) for buffer in buffers]
    fork = PushForkObj([buffer.sink for buffer in buffers])
    for x in range(items // sinks):
        await fork.next(x)
    await fork.return_()
    for task in tasks:
        await task
    return total()


def by_calls(items: int, sinks: int) -> int:
    add, total = adder()
    callbacks = [add] * sinks
    for x in range(items // sinks):
        for callback in callbacks:
            callback(x)
    return total()


def into_lists_by_calls(items: int, sinks: int) -> int:
    collected: list[list[int]] = [[] for _ in range(sinks)]
    appends = [items.append for items in collected]
    for x in range(items // sinks):
        for append in appends:
            append(x)
    return sum(map(sum, collected))


def by_reactivex(items: int, sinks: int) -> int:
    from reactivex.subject import Subject

    add, total = adder()
    subject: Subject[int] = Subject()
    for _ in range(sinks):
        subject.subscribe(add)
    for x in range(items // sinks):
        subject.on_next(x)
    return total()


def into_lists_by_reactivex(items: int, sinks: int) -> int:
    from reactivex.subject import Subject

    collected: list[list[int]] = [[] for _ in range(sinks)]
    subject: Subject[int] = Subject()
    for items_of_one in collected:
        subject.subscribe(items_of_one.append)
    for x in range(items // sinks):
        subject.on_next(x)
    return sum(map(sum, collected))


async def by_aioreactive(items: int, sinks: int) -> int:
    import aioreactive

    result = 0

    async def add(x: int) -> None:
        nonlocal result
        result += x

    subject: aioreactive.AsyncSubject[int] = aioreactive.AsyncSubject()
    for _ in range(sinks):
        await subject.subscribe_async(aioreactive.AsyncAnonymousObserver(add))
    for x in range(items // sinks):
        await subject.asend(x)
    return result


async def into_lists_by_aioreactive(items: int, sinks: int) -> int:
    import aioreactive

    def appending(collected: list[int]) -> aioreactive.AsyncAnonymousObserver[int]:
        async def append(x: int) -> None:
            collected.append(x)

        return aioreactive.AsyncAnonymousObserver(append)

    collected: list[list[int]] = [[] for _ in range(sinks)]
    subject: aioreactive.AsyncSubject[int] = aioreactive.AsyncSubject()
    for items_of_one in collected:
        await subject.subscribe_async(appending(items_of_one))
    for x in range(items // sinks):
        await subject.asend(x)
    return sum(map(sum, collected))


CALLBACKS = {
    "headrace": by_headrace,
    "sync calls": by_calls,
    "reactivex": by_reactivex,
    "aioreactive": by_aioreactive,
}
LISTS = {
    "headrace": into_lists_by_headrace,
    "sync calls": into_lists_by_calls,
    "reactivex": into_lists_by_reactivex,
    "aioreactive": into_lists_by_aioreactive,
}

BUFFERS = {"headrace": into_buffers_by_headrace}

THREE = ((2, 0.12), (10, 0.10), (100, 0.10))
KINDS = (
    ("callbacks", CALLBACKS, THREE),
    ("lists", LISTS, THREE),
    ("bounded buffers and their tasks", BUFFERS, ((2, 1.0), (10, 1.0), (100, 1.0))),
)

GROUP = [
    Work(
        f"broadcast to {sinks} {kind}",
        "a queue and a task for each",
        partial(broadcast, sinks=sinks),
        {library: partial(run, sinks=sinks) for library, run in libraries.items()},
        Goal(goal),
    )
    for kind, libraries, goals in KINDS
    for sinks, goal in goals
]
