"""`Policy`: the methods by which the engine of a run calls Python code, for errors, retries, hooks and executors. `Run` creates one."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from headrace._internal.error_notes import add_note_once, name_item, wrap_iteration_error
from headrace._internal.reprs import describe_value, short_repr
from headrace.errors import ClosedError, HeadraceError, ThrottledError, WorkerLost
from headrace.pool.executor._slow_callbacks import watched
from headrace.pool.executor.loop import call, drive
from headrace.task._current_lease import leased
from headrace.task.failure import classify
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable
    from contextvars import Context

    from headrace._core import Engine, Lease, TaskProgressEnvelope
    from headrace.capacity.node import CapacitySource
    from headrace.pool.cache_policy import CachePolicy
    from headrace.pool.config import Config
    from headrace.pool.event_queue import EventQueue
    from headrace.pool.executor.handle import Handle, Listener
    from headrace.pool.executor.loop import Yields
    from headrace.pool.executor.use import RunExecutors
    from headrace.pool.failure_limits import FailureLimits
    from headrace.pool.shutdown import End
    from headrace.task.failure import Verdict
    from headrace.task.retry import Retry


_LEAST_DELAY = 0.5
"""The seconds that a throttled answer without a delay counts at least, so that a task that is always throttled ends."""


class PolicyOwner(Protocol):
    """The run whose engine has this policy."""

    config: Config[Any]
    loop: asyncio.AbstractEventLoop
    events: EventQueue
    executors: RunExecutors
    context: Context
    end: End
    limits: FailureLimits
    ending: bool
    cache_policy: CachePolicy | None

    @property
    def engine(self) -> Engine:
        """The engine."""
        ...

    def idle(self) -> None:
        """Note that the number of tasks has fallen to the one given to `Engine.watch`."""
        ...

    def keep(self, task_id: int, item: object) -> None:
        """Keep an item whose task was not called for the next run."""
        ...

    def failed(self, error: BaseException) -> None:
        """Note that a task ended with an error."""
        ...

    def report(self, message: str, error: BaseException) -> None:
        """Report an error that no consumer can receive."""
        ...

    def interrupt(self, error: BaseException) -> None:
        """End the run with an error that ends the program."""
        ...


class Policy:
    """The part of a run that is written in Python. The engine calls the methods by their names.

    Args:
        run: The run of the engine.
    """

    def __init__(self, run: PolicyOwner) -> None:
        self._run = run
        self.name_of: Callable[[int, Hashable], str] = run.config.name_of
        self.idle: Callable[[], None] = run.idle
        # The last error that was judged and is about to end its task, with the verdict; None as the verdict if `classify` raised.
        self._judged: tuple[BaseException, Verdict | None] | None = None
        self.interrupt: Callable[[BaseException], None] = run.interrupt
        self.keep: Callable[[int, object], None] = run.keep
        # The end of the last delay of the server that was above `max_cooldown`.
        self._refused_until = -math.inf
        self.requests: set[asyncio.Task[None]] = set()
        """The asyncio tasks that wait for capacity; the event loop holds only weak references to them."""

    # Items that cannot be called.

    def not_a_task(self, item: object) -> TypeError:
        """Return the error of an item that is not a task."""
        from headrace._internal.hints import for_task

        return TypeError(
            f"a task must be callable or a Task, not {describe_value(item)}{for_task(item)}"
        )

    def key_error(self, key: object, owner_id: int) -> ValueError:
        """Return the error of a task whose key is the key of another task."""
        return ValueError(
            f"{self._run.config.name}: key {short_repr(key)} is that of task {owner_id}, which has not ended"
        )

    # Errors and hooks.

    def after_error(
        self,
        task_id: int,
        key: Hashable,
        retry: Retry | None,
        error: BaseException,
        attempt: int,
        throttled: float,
        has_emitted: bool,
    ) -> tuple[bool, float] | None:
        """Return what follows the error of a task that still holds its capacity.

        Args:
            task_id: The id of the task.
            key: The key of the task.
            retry: The retry policy of the task, or None.
            error: The error.
            attempt: The number of calls, without those that were throttled.
            throttled: The sum of the delays of the task after throttled answers.
            has_emitted: Whether the task has yielded a value.

        Returns:
            None if the task ends. Otherwise, `(True, throttled)` if its capacity was cooled down and it is to be queued again in its
            place, with the new sum; or `(False, seconds)` if another attempt follows after that delay.

        Raises:
            ThrottledError: The delay is above `max_cooldown`.
        """
        decision = self._decide(task_id, key, retry, error, attempt, throttled, has_emitted)
        if decision is not None:
            # It goes on, so `failed` is not called.
            self._judged = None
        return decision

    def _decide(
        self,
        task_id: int,
        key: Hashable,
        retry: Retry | None,
        error: BaseException,
        attempt: int,
        throttled: float,
        has_emitted: bool,
    ) -> tuple[bool, float] | None:
        """See `after_error`."""
        if not isinstance(error, Exception):
            return None
        config = self._run.config
        longest = config.max_cooldown
        if longest is None and (retry is None or attempt > retry.retries):
            return None
        self._judged = error, None
        verdict = classify(error) if retry is None else retry.verdict(error)
        self._judged = error, verdict
        if longest is not None and verdict.kind == "throttled":
            name = config.describe_task(task_id, key)
            throttled = self._cool_down(name, verdict.delay, throttled, longest)
            if not has_emitted:
                return True, throttled
        if retry is None or not retry.applies(error, attempt, verdict=verdict):
            return None
        if not self._run.limits.allows_retry():
            name, share = config.name, config.retry_budget
            add_note_once(
                error,
                f"not called again: the retry budget of {name} ({share:.0%} of the calls) is used up",
            )
            return None
        return False, retry.delay(error, attempt, verdict=verdict)

    def _cool_down(self, name: str, delay: float | None, throttled: float, longest: float) -> float:
        """Cool the capacity down, and return the sum of the delays of a task."""
        capacity = self._run.config.capacity
        node = capacity.cooldown_node
        if delay is not None and delay > longest:
            self._cool_down_in_part(node, delay, longest)
            raise ThrottledError(
                f"{name}: the server requires a delay of {delay:g} s, above max_cooldown={longest:g}"
            )
        try:
            # A delay of 0 would be no delay, and the server has just refused a call.
            throttled += (
                node.cool_down(delay) if delay else max(node._back_off(capacity), _LEAST_DELAY)
            )
        except ClosedError:
            # The next request of the task raises it.
            return throttled
        if throttled > longest:
            raise ThrottledError(
                f"{name}: throttled for {throttled:g} s in sum, above max_cooldown={longest:g}"
            )
        return throttled

    def _cool_down_in_part(self, node: CapacitySource, delay: float, longest: float) -> None:
        """Cool a node down for the maximum time, once for each delay of the server that is longer.

        If the server still refuses calls afterwards, the rest of the tasks would spend that time one by one.
        """
        now = self._run.loop.time()
        if now < self._refused_until:
            return
        self._refused_until = now + delay
        with suppress(ClosedError):
            node.cool_down(longest)

    def describe_error(
        self,
        task_id: int,
        key: Hashable,
        error: BaseException,
        is_disturbed: bool,
        item: object,
    ) -> BaseException:
        """Return the error for the event of a task; report it if no event can be read any more."""
        name = self.name_of(task_id, key)
        error = wrap_iteration_error(error, name)
        config = self._run.config
        if config.names_items and isinstance(item, Task):
            name_item(error, config.name, task_id - 1, item.args[0])
        if (
            self._run.events.closed
            and is_disturbed
            and not isinstance(error, asyncio.CancelledError)
        ):
            self._run.report(f"{name} raised while its run was being closed", error)
        return error

    def failed(
        self, task_id: int, key: Hashable, error: BaseException, retry: Retry | None
    ) -> None:
        """Note that a task has ended with an error, which may stop the run."""
        judged, self._judged = self._judged, None
        run = self._run
        run.failed(error)
        if run.ending:
            return
        verdict = None
        # An error that replaces another one, such as a `ThrottledError`, has that as its cause.
        if judged is not None and (judged[0] is error or judged[0] is error.__cause__):
            verdict = judged[1]
        elif run.limits.stops_if_fatal:
            try:
                verdict = classify(error) if retry is None else retry.verdict(error)
            except BaseException as raised:
                run.report(
                    f"classify raised for {self._run.config.describe_task(task_id, key)}", raised
                )
        run.limits.note_failure(self.name_of(task_id, key), key, error, verdict)

    def failed_before(self, error: BaseException) -> None:
        """Note the error of a task that has failed in an earlier run, and was not called."""
        self._run.failed(error)

    def hook_raised(self, task_id: int, key: Hashable, error: BaseException) -> None:
        """Report the error of `on_complete` or `on_error`."""
        self._run.report(
            f"a callback of {self._run.config.describe_task(task_id, key)} raised", error
        )

    def listener_raised(self, task_id: int, key: Hashable, error: BaseException) -> None:
        """Report the error of an `OutcomeListener`."""
        name = self._run.config.name
        self._run.report(
            f"the source of {name} raised when notified of {self.name_of(task_id, key)}", error
        )

    # Results that are not values, and yielded values.

    def rest(self, result: object, emitter: Yields) -> Coroutine[Any, Any, object]:
        """Return a coroutine that drives the result of a task function, if that is not a coroutine itself."""
        return drive(result, emitter)

    def watch(
        self, fn: Callable[..., object], args: tuple[object, ...], emitter: Yields
    ) -> Coroutine[Any, Any, object]:
        """Return a coroutine that calls a task function, and warns of each step that blocks the event loop."""
        limit = getattr(self._run.loop, "slow_callback_duration", 0.1)
        return watched(partial(call, fn, args, emitter), emitter.name, limit)

    def emit(
        self, event: TaskProgressEnvelope[Any], slot: int | None, is_stopping: bool
    ) -> Awaitable[None]:
        """Return an awaitable that puts an event when there is room, or raises `CancelledError` in a task that must stop."""
        return self._run.events.put_when_room(self._run.loop, event, slot, stopping=is_stopping)

    # Executors.

    def can_cancel(self, is_given: bool) -> bool:
        """Return whether an executor can cancel work: that of the user, or the threads of the run."""
        return self._run.executors.use(is_given).can_cancel

    def take_slot(self) -> bool:
        """Take a slot of the user's executor. If none is free, the engine is notified when one may be."""
        return self._run.executors.use(True).take_slot()

    def return_slot(self) -> None:
        """Return a slot to the user's executor."""
        self._run.executors.use(True).return_slot()

    def lend_slot(self) -> None:
        """Lend the slot of a task that waits for its capacity to other runs."""
        self._run.executors.use(True).lend_slot()

    def reclaim_slot(self) -> None:
        """Use a lent slot again."""
        self._run.executors.use(True).reclaim_slot()

    def slot_returner(self) -> Callable[[], None]:
        """Return a function that returns a slot, from any thread and also after the end of the run."""
        return self._run.executors.use(True).slot_returner()

    def submit(
        self, is_given: bool, task_id: int, item: Any, lease: Lease | None, listener: Listener
    ) -> Handle:
        """Submit a task to an executor."""
        executor = self._run.executors.use(is_given).executor
        task: Task = cast("Any", item) if isinstance(item, Task) else Task(item)
        is_remote = executor.capabilities.remote
        if is_remote and task is item:
            return executor.submit(task, listener)
        context = task.context if task is item else self._run.context
        if not is_remote:
            # A copy: the mark and the lease are those of this attempt.
            context = context.copy() if lease is None else leased(context, lease)
            self._run.end.inside.mark(context, task_id)
            if self._run.cache_policy is not None:
                self._run.cache_policy.mark(task_id, context)
        return executor.submit(task.in_context(context), listener)

    def never_began(self, error: BaseException) -> bool:
        """Return whether work was lost before it began."""
        return isinstance(error, WorkerLost) and not error.started

    def left_running(self, name: str) -> HeadraceError:
        """Return the error of a task that was detached."""
        return HeadraceError(
            f"{name} cannot be cancelled and was left running; it holds its capacity until it ends"
        )

    # A capacity whose class has its own `acquire`.

    def acquire(self, task_id: int, cost: Any, priority: int | None) -> asyncio.Task[None]:
        """Return an asyncio task that acquires the capacity of a task."""
        # Not by the task factory of the event loop, which may start the task before the engine has stored it.
        task = asyncio.Task(
            self._acquire(task_id, 1 if cost is None else cost, priority),
            loop=self._run.loop,
            name=f"{self._run.config.name}: capacity for task {task_id}",
        )
        self.requests.add(task)
        task.add_done_callback(self.requests.discard)
        return task

    async def _acquire(self, task_id: int, cost: Any, priority: int | None) -> None:
        engine, task = self._run.engine, asyncio.current_task()
        # The `acquire` of a subclass may have no `priority` parameter.
        options = {} if priority is None else {"priority": priority}
        try:
            lease = await self._run.config.capacity.acquire(cost, owner=None, **options)
        except GeneratorExit:
            raise
        except BaseException as error:
            if not engine.denied(task_id, task, error) and not isinstance(error, Exception):
                raise
            return
        if not engine.granted(task_id, task, lease):
            lease.release()
