"""Work for a pool, with what the pool must know about it before it is called."""

from __future__ import annotations

import inspect
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Task"]

Arguments = TypeVarTuple("Arguments")


class Task:
    """A callable with its arguments, a key and a cost, for a pool to run.

    It runs in a copy of the context in which this object was built, each run in a copy of its own. One object may be
    given to a pool more than once; it is then run each time.

    Args:
        fn: an async function, an async generator function, or a plain function that is called on the loop and whose
            result is awaited or iterated if it can be, and else is the final value. With `thread=True` a plain
            function.
        *args: what it is called with.
        key: names the task in its envelopes and in the name of its asyncio task; None for none.
        cost: how much of the pool's capacity it needs while it runs, a positive integer, 1 by default.
        thread: whether it blocks, and so runs in a thread. A thread cannot be cancelled: closing the pool waits for it.

    Raises:
        TypeError: if `fn` is not callable, if `cost` is no int, if `thread` is no bool, or if `fn` is an async function
            and `thread` is true.
        ValueError: if `cost` is not positive.
    """

    __slots__ = ("args", "context", "cost", "fn", "key", "thread")

    fn: Callable[..., object]
    args: tuple[object, ...]
    key: Hashable
    cost: int
    thread: bool
    context: Context

    def __init__(
        self,
        fn: Callable[[*Arguments], object],
        /,
        *args: *Arguments,
        key: Hashable = None,
        cost: int = 1,
        thread: bool = False,
    ) -> None:
        _check(fn, cost, thread)
        self.fn = fn
        self.args = args
        self.key = key
        self.cost = cost
        self.thread = thread
        self.context = copy_context()

    def __repr__(self) -> str:
        key = "" if self.key is None else f" {self.key!r}"
        return f"<Task{key}: {getattr(self.fn, '__qualname__', self.fn)}>"


def _check(fn: object, cost: object, thread: object) -> None:
    """Refuses what a type checker would have, for those who run none."""
    if not callable(fn):
        raise TypeError(f"Task: fn must be callable, not {fn!r} ({type(fn).__name__})")
    if not isinstance(cost, int) or isinstance(cost, bool):
        raise TypeError(
            f"Task: cost must be a positive integer, not {cost!r} ({type(cost).__name__})"
        )
    if cost < 1:
        raise ValueError(f"Task: cost must be a positive integer, got {cost}")
    if not isinstance(thread, bool):
        raise TypeError(
            f"Task: thread must be True or False, not {thread!r} ({type(thread).__name__})"
        )
    if thread and (inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)):
        raise TypeError(f"Task: thread=True takes a plain function, not the async function {fn!r}")
