"""Work for a pool, with what the pool must know about it before it is called."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from headrace._internal.reprs import callable_name, describe_value, format_repr, short_repr
from headrace._internal.validate import check_flag, check_time_limit
from headrace.task._current_lease import unleased
from headrace.task.retry import Retry, as_retry

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from contextvars import Context

    from headrace.capacity.limits import Cost

Arguments = TypeVarTuple("Arguments")


class Task:
    """A callable with its arguments and its terms, for a pool to run.

    It runs in a copy of the context in which this object was built, each call in a copy of its own. One object may be
    given to a pool more than once; it is then run each time.

    Args:
        fn: an async function, an async generator function, or a plain function that is called on the loop and whose
            result is awaited or iterated if it can be, and else is the final value. With `thread=True` a plain
            function.
        *args: what it is called with.
        key: names the task in its envelopes and in the name of its asyncio task; None for none. Among the tasks that
            are alive in a run, a key stands for one: the second gives an `ERROR`.
        cost: how much of the pool's capacity it needs while it runs: a positive number, 1 by default, or a mapping of
            the names of resources to such numbers; of a mapping `current_lease()` gives the lease while it runs.
        priority: among the tasks that wait for the same capacity, a higher one goes first. Within one runner it needs
            `lookahead`.
        thread: whether it blocks, and so runs in a thread. A thread cannot be cancelled: closing the pool waits for it,
            and one that overran its timeout gives its `ERROR` when it has ended.
        timeout: how many seconds each call may run, not counting any queue; then it is cancelled and gives a
            `TimeoutError`. None for that of the runner, `math.inf` for none.
        queue_timeout: how many seconds it may wait for its first call, from when the runner took it up; then it gives a
            `TimeoutError` and is not called. None for as long as it takes.
        retry: whether and when it is called again after an error; a number `n` stands for `Retry(retries=n)`: n calls
            after the first. None for that of the runner, 0 for never.
        on_complete: called on the loop with the final value, before the `FINAL` envelope is put.
        on_error: called on the loop with the error, before the `ERROR` envelope is put. What these two raise goes to
            the loop's exception handler, a `CancelledError` too; `KeyboardInterrupt` and `SystemExit` end the run.

    Raises:
        TypeError: a parameter is of the wrong type, `key` is not hashable, or `fn` is an async function and `thread`
            is true.
        ValueError: a number is out of its range.
    """

    __slots__ = (
        "args",
        "context",
        "cost",
        "fn",
        "is_plain",
        "key",
        "on_complete",
        "on_error",
        "priority",
        "queue_timeout",
        "retry",
        "thread",
        "timeout",
    )

    fn: Callable[..., object]
    args: tuple[object, ...]
    key: Hashable
    cost: Cost
    priority: int
    thread: bool
    timeout: float | None
    queue_timeout: float | None
    retry: Retry | None
    on_complete: Callable[[Any], object] | None
    on_error: Callable[[BaseException], object] | None
    context: Context
    is_plain: bool
    """Whether it asks for nothing but a cost and a key, so that it may be run the short way."""

    def __init__(
        self,
        fn: Callable[[*Arguments], object],
        /,
        *args: *Arguments,
        key: Hashable = None,
        cost: Cost = 1,
        priority: int = 0,
        thread: bool = False,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        retry: Retry | int | None = None,
        on_complete: Callable[[Any], object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        _check(fn, cost, thread)
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(f"Task: key must be hashable, not {describe_value(key)}") from error
        if not isinstance(cast("object", priority), int):
            raise TypeError(f"Task: priority must be an integer, not {describe_value(priority)}")
        retry = as_retry("Task: retry", retry)
        for name, callback in (("on_complete", on_complete), ("on_error", on_error)):
            if callback is not None and not callable(callback):
                raise TypeError(
                    f"Task: {name} must be callable or None, not {describe_value(callback)}"
                )
            if inspect.iscoroutinefunction(callback):
                raise TypeError(
                    f"Task: {name} must be a plain function, not the async function {callback!r}"
                )
        self.fn = fn
        self.args = args
        self.key = key
        self.cost = cost
        self.priority = priority
        self.thread = thread
        self.timeout = check_time_limit("Task: timeout", timeout)
        self.queue_timeout = check_time_limit("Task: queue_timeout", queue_timeout)
        self.retry = retry
        self.on_complete = on_complete
        self.on_error = on_error
        self.context = unleased()
        self.is_plain = not (thread or priority) and all(
            term is None for term in (timeout, queue_timeout, retry, on_complete, on_error)
        )

    def anew(self, *args: object) -> Task:
        """The same with other arguments, in a copy of the context of now. Nothing is checked again, so that it costs little."""
        task = object.__new__(Task)
        task.fn = self.fn
        task.args = args
        task.key = self.key
        task.cost = self.cost
        task.priority = self.priority
        task.thread = self.thread
        task.timeout = self.timeout
        task.queue_timeout = self.queue_timeout
        task.retry = self.retry
        task.on_complete = self.on_complete
        task.on_error = self.on_error
        task.context = unleased()
        task.is_plain = self.is_plain
        return task

    def __copy__(self) -> Task:
        """The same terms and arguments, in the same context."""
        task = object.__new__(type(self))
        for name in Task.__slots__:
            setattr(task, name, getattr(self, name))
        return task

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        """The same with copies of its arguments and terms. A context cannot be copied deeply: it is shared."""
        memo[id(self.context)] = self.context
        task = copy(self)
        memo[id(self)] = task
        for name in Task.__slots__:
            setattr(task, name, deepcopy(getattr(self, name), memo))
        return task

    def __getstate__(self) -> dict[str, object]:
        """For `pickle`: all but the context, which stays in its process."""
        return {name: getattr(self, name) for name in Task.__slots__ if name != "context"}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Take the terms over, in a copy of the context in which it is unpickled."""
        for name, value in state.items():
            setattr(self, name, value)
        self.context = unleased()

    def __repr__(self) -> str:
        return format_repr(type(self).__name__, self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        if self.key is not None:
            yield short_repr(self.key)
        yield f"calls {callable_name(self.fn)}"


def _check(fn: object, cost: object, thread: object) -> None:
    """Refuses what a type checker would have, for those who run none."""
    if not callable(fn):
        from headrace._internal.hints import uncalled

        raise TypeError(f"Task: fn must be callable, not {describe_value(fn)}{uncalled(fn)}")
    _check_cost(cost)
    if check_flag("Task: thread", thread) and (
        inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
    ):
        raise TypeError(f"Task: thread=True takes a plain function, not the async function {fn!r}")


def _check_cost(cost: object) -> None:
    amounts = _amounts(cost)
    for amount in amounts:
        if not isinstance(amount, (int, float)) or isinstance(amount, bool):
            raise TypeError(
                f"Task: cost must be a positive number, or a mapping of resources to such, not {describe_value(cost)}"
            )
        if not 0 < amount < math.inf:
            raise ValueError(f"Task: cost must be positive and finite, got {describe_value(cost)}")
    if not amounts:
        raise ValueError(f"Task: cost must name a resource at least, got {describe_value(cost)}")


def _amounts(cost: object) -> tuple[object, ...]:
    if isinstance(cost, Mapping):
        return tuple(cast("Mapping[object, object]", cost).values())
    return (cost,)
