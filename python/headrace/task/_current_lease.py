"""The lease that a task of a pool holds while it runs, for the task itself.

It stands in a context variable, set in the copy of its context in which an attempt runs. So what the task awaits finds it,
and so do the asyncio tasks that it starts and the threads that get a copy of its context; and what is to run elsewhere,
under another lease or none, is built in a context without it.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace._core import Lease

_lease: ContextVar[Lease | None] = ContextVar("headrace.current_lease", default=None)


def current_lease() -> Lease:
    """What the task of a pool that calls this holds of its capacity: to settle an estimate, or to give it back for a while.

        async def ask(prompt: str) -> str:
            answer = await model(prompt)
            current_lease().settle(tokens=answer.tokens)
            return answer.text

        answers = prompts.map_pool(ask, capacity, cost={"slots": 1, "tokens": 1_500})

    It can be had by tasks whose cost names its resources, `{"slots": 1}` in place of 1: a bare number has nothing to settle,
    and pays nothing for this. Whatever such a task calls may ask, in asyncio tasks that it starts and in threads that run
    in its context too. Each attempt has a lease of its own. The pool releases it when the attempt has stopped.

    Raises:
        RuntimeError: no task of a pool runs here, or one whose cost is a bare number.
    """
    lease = _lease.get()
    if lease is None:
        raise RuntimeError(
            "there is no lease here: only a task of a pool has one, and can ask for it if its cost names the resources, "
            'as in cost={"slots": 1}'
        )
    return lease


def leased(context: Context, lease: Lease) -> Context:
    """A copy of the context, with this as its lease."""
    copy = context.copy()
    copy.run(_lease.set, lease)
    return copy


def unleased() -> Context:
    """A copy of the context of now, for work that will have a lease of its own."""
    context = copy_context()
    if _lease.get() is not None:
        context.run(_lease.set, None)
    return context
