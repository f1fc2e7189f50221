"""Drop a long pipeline of each operator, in a thread with a small stack: `python -m tests.drop STATE`.

It is a program of its own, because a failure crashes the process. It prints each pipeline before it drops it, and `through` at
the end.
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
from tests.support import yield_to_loop
from tests.sweep_tables import ROWS
from tests.test_push_operators import STAGES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["INTERRUPTIONS"]

DEPTH = 2_000
STACK = 256 << 10
"""Stack size of the thread that drops, in bytes: about a hundred for each stage, where one deallocator takes eight hundred."""

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
    """An object that refers to itself and to other objects."""

    def __init__(self) -> None:
        self.cycle = self
        self.held: list[Any] = []


async def never() -> AsyncIterator[int]:
    await asyncio.get_running_loop().create_future()
    yield 0


async def cancel_one(pipeline: Any) -> None:
    pull = asyncio.ensure_future(anext(pipeline))
    await yield_to_loop(3)
    pull.cancel()
    await asyncio.wait([pull])


async def push_one(pipeline: Any) -> None:
    try:
        await pipeline.next(1)
    except RecursionError:
        """The stack may be too small for nested stages."""


async def pull_one(pipeline: Any) -> None:
    try:
        await anext(pipeline)
    except RecursionError:
        """The stack may be too small for nested stages."""


def run_in_thread(stack: int, function: Callable[[], None]) -> None:
    threading.stack_size(stack)
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def drop(state: str, end: Any, wrap: Callable[[Any], Any], depth: int) -> None:
    """Drop a pipeline that ends in `end`."""
    is_push = isinstance(end, SinkCollectObj)
    end_ref = weakref.ref(end)
    # Created before the pipeline, so that the garbage collector visits it first.
    holder = Holder()

    def build() -> None:
        nonlocal end
        pipeline = end
        end = None
        for _ in range(depth):
            pipeline = wrap(pipeline)
        if state == "driven":
            asyncio.run(push_one(pipeline) if is_push else pull_one(pipeline))
        elif state == "cancelled":
            asyncio.run(cancel_one(pipeline))
        holder.held.append(pipeline)

    def unpin() -> None:
        nonlocal holder
        if state == "in a cycle":
            del holder
        else:
            holder.held.clear()
        if state != "as it was built":
            # Tasks that ran leave some reference cycles.
            gc.collect()

    # Running nested stages needs a large stack.
    run_in_thread(256 << 20, build)
    assert end_ref() is not None
    run_in_thread(STACK, unpin)
    assert end_ref() is None, "the pipeline is still alive"


def main(state: str) -> None:
    # Dropped tasks warn, which is expected here.
    warnings.simplefilter("ignore")
    gc.disable()
    for name, (wrap, depth) in PULL.items():
        if state != "as it was built" and (name in TASKS or depth == 100):
            # Tasks are dropped by their loop, one by one. Branches of `tee` nest, also where they wait.
            continue
        print(f"pull: {name}", flush=True)
        drop(
            state,
            SourceIterObj(never()) if state == "cancelled" else SourceIterObj(range(3)),
            wrap,
            depth,
        )
    for name, wrap in PUSH.items() if state != "cancelled" else ():
        print(f"push: {name}", flush=True)
        drop(state, SinkCollectObj(), wrap, DEPTH)
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
