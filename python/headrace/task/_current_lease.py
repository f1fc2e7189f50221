"""`current_lease()`: returns the lease of the pool task that calls it.

The pool runs each attempt in a copy of its task's context in which a context variable holds the lease (`leased`). So the
lease is available in all coroutines that the task awaits, in the asyncio tasks that it starts, and in threads that get a
copy of its context. A new `Task` or pool run holds no lease yet: it copies the context without the lease (`unleased`).
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace._core import Lease

variable: ContextVar[Lease | None] = ContextVar("headrace.current_lease", default=None)


def current_lease() -> Lease:
    """Return the lease of the current pool task, to settle an estimate or to release capacity for a while.

        async def ask(prompt: str) -> str:
            answer = await model(prompt)
            current_lease().settle(tokens=answer.tokens)
            return answer.text

        answers = prompts.map_pool(ask, capacity, cost={"slots": 1, "tokens": 1_500})

    The cost of the task must name its resources: `{"slots": 1}`, not `1`. A bare number has nothing to settle, so its task
    has no current lease, and no overhead for one. Call it anywhere in the task, including asyncio tasks that it starts
    and threads that run in its context. Each attempt has its own lease. The pool releases it when the attempt has stopped.

    Raises:
        RuntimeError: The caller is not in a pool task, or the cost of the task is a bare number.
    """
    lease = variable.get()
    if lease is None:
        raise RuntimeError(
            "there is no lease here: only a task of a pool has one, and can get it if its cost names the resources, "
            'as in cost={"slots": 1}'
        )
    return lease


def leased(context: Context, lease: Lease) -> Context:
    """Return a copy of the context with this lease in it."""
    copy = context.copy()
    copy.run(variable.set, lease)
    return copy


def unleased() -> Context:
    """Return a copy of the current context without a lease, for work that gets its own."""
    context = copy_context()
    if variable.get() is not None:
        context.run(variable.set, None)
    return context
