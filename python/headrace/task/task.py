"""`Task`: a callable for a pool, with its cost, priority, time limits and retries.

`HierarchicalTaskPoolRunner` runs it, and `DependencyGraph` orders it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from copy import deepcopy
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    SupportsIndex,
    TypedDict,
    TypeVar,
    TypeVarTuple,
    cast,
    overload,
)

from headrace._core import TaskBase, set_lease_variable
from headrace._internal.reprs import ReprMixin, callable_name, describe_value, short_repr
from headrace._internal.typevars import R_co
from headrace._internal.validate import check_callable_or_none, check_flag, check_time_limit
from headrace.task._current_lease import variable as lease_variable
from headrace.task.retry import as_retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
    from contextvars import Context
    from typing import Self, Unpack

    from headrace.capacity.limits import Cost
    from headrace.task.retry import Retry

    class _Options(TypedDict, total=False):
        """The keyword arguments of `Task`."""

        key: Hashable
        cost: Cost
        priority: int
        thread: bool
        timeout: float | None
        queue_timeout: float | None
        retry: Retry | int | None
        on_complete: Callable[[Any], object] | None
        on_error: Callable[[BaseException], object] | None


R = TypeVar("R")
Arguments = TypeVarTuple("Arguments")

set_lease_variable(lease_variable)


class Task(TaskBase, ReprMixin, Generic[R_co]):
    """A callable with its arguments and options, for a pool to run.

    Every call runs in its own copy of the context in which this object was created. The same object may be passed to a
    pool more than once, and runs each time.

    Args:
        fn: An async function, an async generator function, or a plain function that is called on the event loop. The
            result of a plain function is awaited or iterated if possible, otherwise it is the final value. With
            `thread=True`, a plain function.
        *args: The arguments of `fn`.
        key: The name of the task in its envelopes and in the name of its asyncio task; None for no name. A key must be
            unique among the unfinished tasks of a run: a second task with the same key yields an `ERROR`.
        cost: The amount of the pool's capacity that the task holds while it runs: a positive number, 1 by default, or a
            mapping of resource names to such numbers. With a mapping, `current_lease()` returns the lease in the task.
        priority: Among the tasks that wait for the same capacity, a higher priority is granted first. Within one runner
            it needs `lookahead`.
        thread: Whether the function blocks and must run in a thread. A thread cannot be cancelled: closing the pool waits
            for it, and a thread that exceeds its timeout yields its `ERROR` when it ends.
        timeout: The maximum time of each call in seconds, without time in any queue. A call that takes longer is
            cancelled and yields a `TimeoutError`. None for the timeout of the runner, `math.inf` for no limit.
        queue_timeout: The maximum time in seconds from the moment the runner accepts the task to its first call. After
            that, the task yields a `TimeoutError` and is not called. None for no limit.
        retry: Whether and when the task is called again after an error. A number `n` is short for `Retry(retries=n)`: n
            calls after the first. None for the policy of the runner, 0 for no retries.
        on_complete: Called on the event loop with the final value, before the `FINAL` envelope is put.
        on_error: Called on the event loop with the error, before the `ERROR` envelope is put. Exceptions of these two
            callbacks, including `CancelledError`, are passed to the loop's exception handler. `KeyboardInterrupt` and
            `SystemExit` end the run.

    Raises:
        TypeError: A parameter is of the wrong type, `key` is not hashable, or `fn` is an async function and `thread`
            is true.
        ValueError: A number is out of range.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Task[Any],
            fn: Callable[[*Arguments], AsyncIterator[Any]],
            /,
            *args: *Arguments,
            **options: Unpack[_Options],
        ) -> None: ...
        @overload
        def __init__(
            self: Task[R],
            fn: Callable[[*Arguments], Awaitable[R]],
            /,
            *args: *Arguments,
            **options: Unpack[_Options],
        ) -> None: ...
        @overload
        def __init__(
            self: Task[R],
            fn: Callable[[*Arguments], R],
            /,
            *args: *Arguments,
            **options: Unpack[_Options],
        ) -> None: ...
        # The reference shows this signature. mypy does not match `*args` with `*Arguments`.
        def __init__(  # type: ignore[misc]
            self,
            fn: Callable[..., Any],
            /,
            *args: Any,
            key: Hashable = None,
            cost: Cost = 1,
            priority: int = 0,
            thread: bool = False,
            timeout: float | None = None,
            queue_timeout: float | None = None,
            retry: Retry | int | None = None,
            on_complete: Callable[[Any], object] | None = None,
            on_error: Callable[[BaseException], object] | None = None,
        ) -> None: ...

    @staticmethod
    def _check_options(fn: object, **options: Any) -> dict[str, Any]:
        """Check all options, and return them. The native constructor calls this for those that it does not know to be valid."""
        _check_fn(fn)
        if "cost" in options:
            _check_cost(options["cost"])
        _check_thread(fn, options.get("thread", False))
        key = options.get("key")
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(f"Task: key must be hashable, not {describe_value(key)}") from error
        priority: object = options.get("priority", 0)
        if not isinstance(priority, int):
            raise TypeError(f"Task: priority must be an integer, not {describe_value(priority)}")
        options["retry"] = as_retry("Task: retry", options.get("retry"))
        for hook in ("on_complete", "on_error"):
            _check_hook(hook, options.get(hook))
        for limit in ("timeout", "queue_timeout"):
            check_time_limit(f"Task: {limit}", options.get(limit))
        return options

    def in_context(self, context: Context) -> Self:
        """Return the same task in another context."""
        task = type(self).__new__(type(self))
        task._restore(self.fn, self.args, {name: getattr(self, name) for name in _OPTIONS}, context)
        return task

    def __copy__(self) -> Self:
        """Return a task with the same options and arguments, in the same context."""
        return self.in_context(self.context)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a task with deep copies of the arguments and options. The context cannot be copied and is shared."""
        task = type(self).__new__(type(self))
        memo[id(self)] = task
        state = deepcopy(self.__getstate__(), memo)
        task._restore(state.pop("fn"), state.pop("args"), state, self.context)
        return task

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Return the parts for `pickle`. Protocols before 2 would call the constructor of the native base."""
        return super().__reduce_ex__(max(int(protocol), 2))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for `pickle`, without the context, which is local to its process."""
        return {name: getattr(self, name) for name in ("fn", "args", *_OPTIONS)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the options, in a copy of the context in which the task is unpickled."""
        self._restore(state.pop("fn"), state.pop("args"), state, None)

    def _repr_parts(self) -> Iterator[str]:
        if self.key is not None:
            yield short_repr(self.key)
        yield f"calls {callable_name(self.fn)}"


_OPTIONS = (
    "key",
    "cost",
    "priority",
    "thread",
    "timeout",
    "queue_timeout",
    "retry",
    "on_complete",
    "on_error",
)


def _check_fn(fn: object) -> None:
    """Check at run time for an error that a type checker reports, for users without one."""
    if not callable(fn):
        from headrace._internal.hints import uncalled

        raise TypeError(f"Task: fn must be callable, not {describe_value(fn)}{uncalled(fn)}")


def _check_thread(fn: object, thread: object) -> None:
    if check_flag("Task: thread", thread) and (
        inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
    ):
        raise TypeError(f"Task: thread=True takes a plain function, not the async function {fn!r}")


def _check_hook(name: str, hook: Callable[..., object] | None) -> None:
    check_callable_or_none(f"Task: {name}", hook)
    if inspect.iscoroutinefunction(hook):
        raise TypeError(f"Task: {name} must be a plain function, not the async function {hook!r}")


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
    # The builtin type first: a check against an abstract class costs more than the rest of this function.
    if isinstance(cost, (dict, Mapping)):
        return tuple(cast("Mapping[object, object]", cost).values())
    return (cost,)
