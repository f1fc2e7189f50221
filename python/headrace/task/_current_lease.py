"""`current_lease`: gives a pool task access to the lease that it holds while it runs.

The lease is stored in a context variable, in the copy of the context in which an attempt runs. It is therefore available
in all coroutines that the task awaits, in the asyncio tasks that it starts, and in threads that get a copy of its context.
Work that is meant to run under another lease, or without one, gets a context without the variable.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace._core import Lease

_lease: ContextVar[Lease | None] = ContextVar("headrace.current_lease", default=None)


def current_lease() -> Lease:
    """Return the lease of the current pool task, to settle an estimate or to release capacity for a while.

        async def ask(prompt: str) -> str:
            answer = await model(prompt)
            current_lease().settle(tokens=answer.tokens)
            return answer.text

        answers = prompts.map_pool(ask, capacity, cost={"slots": 1, "tokens": 1_500})

    It is available to tasks whose cost names its resources: `{"slots": 1}` in place of 1. A bare number has nothing to
    settle, and has no overhead for this. Call it anywhere in such a task, including asyncio tasks that it starts and
    threads that run in its context. Each attempt has its own lease. The pool releases it when the attempt has stopped.

    Raises:
        RuntimeError: The caller is not in a pool task, or the cost of the task is a bare number.
    """
    lease = _lease.get()
    if lease is None:
        raise RuntimeError(
            "there is no lease here: only a task of a pool has one, and can get it if its cost names the resources, "
            'as in cost={"slots": 1}'
        )
    return lease


def leased(context: Context, lease: Lease) -> Context:
    """Return a copy of the context with this lease in it."""
    copy = context.copy()
    copy.run(_lease.set, lease)
    return copy


def unleased() -> Context:
    """Return a copy of the current context without a lease, for work that gets its own."""
    context = copy_context()
    if _lease.get() is not None:
        context.run(_lease.set, None)
    return context
