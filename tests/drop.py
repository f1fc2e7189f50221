"""Drops a long line of each operator, in a thread with little stack: `python -m tests.drop WAY`.

It is a program of its own, since what it is about ends a process. It says what it is about to drop, and `through` at last.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from headrace import (
    PullConcatObj,
    PushChain,
    PushDistributeObj,
    PushForkObj,
    PushMapObj,
    PushSerialObj,
    SinkCollectObj,
    SinkNullObj,
    SourceIterObj,
)
from tests.support import turns
from tests.test_push_operators import STAGES
from tests.test_sweep import ROWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["INTERRUPTIONS"]

DEPTH = 2_000
STACK = 256 << 10
"""Of the thread that drops, in bytes: a hundred for each link, where a deallocator takes eight hundred."""

INTERRUPTIONS = ["as it was built", "driven", "cancelled", "in a cycle"]


PULL: dict[str, tuple[Callable[[Any], Any], int]] = {
    **{row.name: (row.identity, min(row.depth, DEPTH)) for row in ROWS if row.identity is not None},
    "two kinds in turn": (lambda source: PullConcatObj(source.map(lambda n: n), [7]), DEPTH // 2),
    "a source in a source": (SourceIterObj, DEPTH),
}
TASKS = {row.name for row in ROWS if row.owns_tasks}

PUSH: dict[str, Callable[[Any], Any]] = {
    **STAGES,
    "map": lambda sink: PushMapObj(sink, lambda n: n),
    "serial": PushSerialObj,
    "fork": lambda sink: PushForkObj([SinkNullObj(), sink]),
    "distribute": lambda sink: PushDistributeObj([sink], lambda _: 0),
}


class Holder:
    """What refers to itself, and to more."""

    def __init__(self) -> None:
        self.cycle = self
        self.held: list[Any] = []


async def never() -> AsyncIterator[int]:
    await asyncio.get_running_loop().create_future()
    yield 0


async def cancel_one(line: Any) -> None:
    pull = asyncio.ensure_future(anext(line))
    await turns(3)
    pull.cancel()
    await asyncio.wait([pull])


async def push_one(line: Any) -> None:
    try:
        await line.next(1)
    except RecursionError:
        """As above."""


async def pull_one(line: Any) -> None:
    try:
        await anext(line)
    except RecursionError:
        """As above."""


def run_in_thread(stack: int, function: Callable[[], None]) -> None:
    threading.stack_size(stack)
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def drop(way: str, end: Any, wrap: Callable[[Any], Any], depth: int) -> None:
    """Lets go of a line to this end."""
    is_push = isinstance(end, SinkCollectObj)
    gone = weakref.ref(end)
    # Older than the line, so that the collector comes to it first.
    holder = Holder()

    def build() -> None:
        nonlocal end
        line = end
        end = None
        for _ in range(depth):
            line = wrap(line)
        if way == "driven":
            asyncio.run(push_one(line) if is_push else pull_one(line))
        elif way == "cancelled":
            asyncio.run(cancel_one(line))
        holder.held.append(line)

    def let_go() -> None:
        nonlocal holder
        if way == "in a cycle":
            del holder
        else:
            holder.held.clear()
        if way != "as it was built":
            # Of tasks that ran, there are some cycles.
            gc.collect()

    # To drive what nests takes stack.
    run_in_thread(256 << 20, build)
    assert gone() is not None
    run_in_thread(STACK, let_go)
    assert gone() is None, "all of it is dropped"


def main(way: str) -> None:
    # Of tasks that are dropped, which is what this is about.
    warnings.simplefilter("ignore")
    gc.disable()
    for name, (wrap, depth) in PULL.items():
        if way != "as it was built" and (name in TASKS or depth == 100):
            # Tasks are dropped by their loop, one by one; and branches of `tee` nest, also where they wait.
            continue
        print(f"pull: {name}", flush=True)
        drop(
            way,
            SourceIterObj(never()) if way == "cancelled" else SourceIterObj(range(3)),
            wrap,
            depth,
        )
    for name, wrap in PUSH.items() if way != "cancelled" else ():
        print(f"push: {name}", flush=True)
        drop(way, SinkCollectObj(), wrap, DEPTH)
    print("a chain", flush=True)
    chain = PushChain.start(int)
    for _ in range(DEPTH):
        chain = chain.map(lambda n: n)
    chains = [chain]
    del chain
    run_in_thread(STACK, chains.clear)
    print("through")


if __name__ == "__main__":
    main(sys.argv[1])
