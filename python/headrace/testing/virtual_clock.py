"""`VirtualClock`: an event loop with virtual time. `shuffle` builds on it.

An idle asyncio event loop makes its selector wait until the next timer is due. The selector of a virtual loop does not
wait: it polls input and output once and, if nothing is ready, moves the loop's clock to that timer. So every
`asyncio.sleep`, `asyncio.timeout` and `loop.call_later` takes exactly its time on the loop's clock, and no real time.
Callbacks run in the order of their timers, the same in every run.

Five things are outside the virtual clock:

- **Jobs in threads** (`asyncio.to_thread`, `loop.run_in_executor`, a pool's tasks with `thread=True`) take real time. The
  clock is stopped while a task waits for such a job, so a timeout around the job does not expire early. It is stopped for
  at most `patience` real seconds, because the job itself may wait for a timer of this loop. If no timer is set, the loop
  waits for the job for a minute, or `patience` if that is more; after that, `DeadlockError` names the job.
- **Threads of your own** (`threading.Thread`) are unknown to the loop, even if they push into a buffer: the clock does not stop
  for them. A timeout on their results expires at once. Without any timer, the loop waits for them for `patience` seconds.
- **Capacities by the real clock.** A tree of capacities uses real time unless its root was created with `clock=loop.time`. A
  wait for a rate of such a tree takes real time, and stops the clock like a job.
- **Files** (`SourceLinesObj`, `SinkWriterObj`) are read and written by Rust threads, which are unknown to the loop: the
  clock does not stop for them, and a timer that is set in the meantime expires at once.
- **Silence.** When nothing is ready and no timer is set, only a thread, a socket or a signal can wake the loop. The loop
  waits `patience` real seconds for them, then raises `DeadlockError` where an ordinary loop would hang.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin, callable_name, pluralize
from headrace._internal.validate import check_finite, check_seconds
from headrace.errors import HeadraceError

MOST_IDLE_STOPS = 5
"""The number of times in succession that a virtual clock stops at timers that only watch the program."""

LONGEST: Final = 60.0
"""The least real seconds to wait for a job that blocks everything else; a longer `patience` extends it."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from typing import Self, TypeVarTuple

    Arguments = TypeVarTuple("Arguments")


class DeadlockError(HeadraceError, RuntimeError):
    """Nothing is ready, no timer is set, and no outside event woke the loop: it would wait forever."""


class VirtualClock(ReprMixin, Uncopied):
    """A loop factory with virtual time: its loops jump to the next timer instead of waiting.

    Pass it wherever a loop factory is accepted:

        with asyncio.Runner(loop_factory=VirtualClock()) as runner:
            runner.run(main())

    The clock can be read at any time, also without a loop: `clock.time` is a function like `time.monotonic`. Loops created
    by the same clock share its time, and must not run in two threads at once.

    Args:
        start: The initial time of the clock, in seconds.
        patience: The real seconds for which a loop waits for threads, sockets and signals before it moves on to the next
            timer, or reports a deadlock. If a timeout is set around a job in a thread, use more than the longest job takes.

    Raises:
        TypeError: `start` or `patience` is not a number.
        ValueError: `start` or `patience` is not finite, or `patience` is less than 0.
    """

    def __init__(self, start: float = 0.0, *, patience: float = 1.0) -> None:
        self._now = check_finite("VirtualClock: start", start)
        self.patience: float = check_seconds("VirtualClock: patience", patience)

    def _repr_parts(self) -> Iterator[str]:
        yield f"at {self._now:.6f} s"

    def __call__(self) -> asyncio.AbstractEventLoop:
        """Create an event loop on this clock."""
        return VirtualLoop(self)

    def time(self) -> float:
        """Return the current time of the clock in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock, as if the loop had been busy for that long; timers that are due run next.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is less than 0, or not finite.
        """
        self._now += check_seconds("VirtualClock.advance: seconds", seconds)

    def jump(self, when: float) -> None:
        """Advance the clock to a time, unless it has passed.

        Raises:
            TypeError: `when` is not a number.
            ValueError: `when` is not finite.
        """
        self._now = max(self._now, check_finite("VirtualClock.jump: when", when))


class VirtualLoop(ReprMixin, asyncio.SelectorEventLoop):
    """An asyncio event loop that uses a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._outside = selector = _JumpingSelector(self, clock)
        super().__init__(selector)

    def _repr_parts(self) -> Iterator[str]:
        yield f"at {self._clock.time():.6f} s"
        yield "closed" if self.is_closed() else "running" if self.is_running() else "not running"
        if jobs := self._outside.jobs:
            yield f"{pluralize(len(jobs), 'job')} in threads"
        if timers := self._outside.real_timers:
            yield f"{pluralize(len(timers), 'timer')} of the real clock"

    def time(self) -> float:
        """Return the time of the clock in seconds."""
        return self._clock.time()

    @property
    def _clock_resolution(self) -> float:
        # asyncio runs the timers due before the current time plus this. It must be representable at that time: otherwise
        # no timer would ever be due, and the loop would iterate for ever.
        return max(1e-9, 4 * math.ulp(self._clock.time()))

    @_clock_resolution.setter
    def _clock_resolution(self, _: float) -> None:
        """Ignore the resolution of the real clock, which asyncio sets."""

    def next_timer(self) -> float:
        """Return the time at which the next timer is due."""
        # Not from the selector's timeout: asyncio rounds it and limits it to a day.
        scheduled: list[asyncio.TimerHandle] = cast("Any", self)._scheduled
        return scheduled[0].when()

    def hold_clock(self, job: str, *, left: bool = False) -> Callable[[], None]:
        """Stop the clock for a job that takes real time. Executors call it on loops that have this method.

        Args:
            job: The name of the job, for messages.
            left: Whether no task waits for the job. Timers then run on, but without timers the loop waits for its end.

        Returns:
            A function to call, in any thread, when the loop was notified of the end of the job, or no longer needs it.
        """
        jobs = self._outside.left if left else self._outside.jobs
        key = object()
        jobs[key] = job

        def release() -> None:
            jobs.pop(key, None)

        return release

    def call_later_real(self, seconds: float, callback: Callable[[], object]) -> _RealTimer:
        """Schedule a callback after some real seconds, and stop the clock until then, as for a job.

        A tree of capacities that was created without a `clock` calls it on loops that have this method.

        Args:
            seconds: The delay in real seconds.
            callback: The function to call.

        Returns:
            A timer with a `cancel()` method.
        """
        timer = _RealTimer(time.monotonic() + seconds, callback, self._outside.real_timers)
        self._outside.real_timers.append(timer)
        return timer

    def call_later_idle(self, seconds: float, callback: Callable[[], object]) -> _IdleTimer:
        """Schedule a callback that watches the program, and that the program does not wait for.

        Pools call it on loops that have this method. The clock stops at such a timer, but a few of them in succession, without
        any other timer or event, no longer count: then nothing can happen any more.

        Args:
            seconds: The delay on the virtual clock.
            callback: The function to call.

        Returns:
            A timer with a `cancel()` method.
        """
        timer = _IdleTimer(self.time() + seconds, callback, self._outside.idle_timers)
        self._outside.idle_timers.append(timer)
        return timer

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Any],
        *args: *Arguments,
    ) -> asyncio.Future[Any]:
        """Run a job in a thread, and stop the clock until it ends."""
        # Until its future is done; cancelling the wait completes it immediately: a job that is no longer awaited does not
        # stop the clock.
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        release = self.hold_clock(_job(func))
        future.add_done_callback(lambda _: release())
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Join the threads, in real time."""
        # From 3.12 on, asyncio limits the join, which takes real time, by a timeout on the loop's clock.
        self._outside.joining = True
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._outside.joining = False


def _job(func: object) -> str:
    """Return the name of a job. `asyncio.to_thread` passes the function as an argument of `Context.run`."""
    while isinstance(func, partial):
        made = cast("partial[Any]", cast("object", func))
        runs = isinstance(getattr(made.func, "__self__", None), Context) and made.args
        func = made.args[0] if runs else made.func
    return callable_name(func)


def _when(timer: _ListedTimer) -> float:
    return timer.when


class _ListedTimer:
    """A callback at a time, in a list of a selector."""

    def __init__(self, when: float, callback: Callable[[], object], timers: list[Self]) -> None:
        self.when = when
        self.callback = callback
        self._timers = timers

    def cancel(self) -> None:
        if self in self._timers:
            self._timers.remove(self)


class _RealTimer(_ListedTimer):
    """A timer on the real clock."""


class _IdleTimer(_ListedTimer):
    """A timer on the virtual clock that the program does not wait for."""


class _JumpingSelector(selectors.DefaultSelector):
    """The selector of a virtual loop: instead of waiting for a timer, it moves the clock to that timer."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock) -> None:
        super().__init__()
        self._loop = loop
        self._clock = clock
        self._patience = clock.patience
        # Running jobs with their names: awaited ones, and ones that no task waits for.
        self.jobs: dict[object, str] = {}
        self.left: dict[object, str] = {}
        self.real_timers: list[_RealTimer] = []
        self.idle_timers: list[_IdleTimer] = []
        # The number of times that the clock stopped at idle timers alone, since anything else happened.
        self._idle_stops = 0
        self.joining = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        has_run_timers = self._run_real_timers()
        events = super().select(0)
        # Ready events come before any timer. A timeout of 0 means that the loop has callbacks to run.
        if events or has_run_timers or (timeout is not None and timeout <= 0):
            return events
        if self._run_idle_timers(self._clock.time()):
            return events
        # An infinite timer counts as none.
        when = math.inf if timeout is None else self._loop.next_timer()
        is_silent = when == math.inf
        is_held = bool(self.jobs or self.real_timers or self.joining)
        idle = min(map(_when, self.idle_timers), default=math.inf)
        if idle < when and self._idle_stops < MOST_IDLE_STOPS and (is_silent or not is_held):
            self._idle_stops += 1
            # A silent loop may be about to fail, at this time.
            if not is_silent:
                self._clock.jump(idle)
            self._run_idle_timers(idle)
            return []
        if is_silent or is_held:
            most = math.inf if self.joining else self._max_wait(is_silent=is_silent)
            left = min(map(_when, self.real_timers), default=math.inf) - time.monotonic()
            bound = max(0.0, min(most, left))
            events = super().select(None if bound == math.inf else bound)
            if events or self._run_real_timers() or left < most:
                self._idle_stops = 0
                return events
        if is_silent:
            raise DeadlockError(self._describe_deadlock())
        self._idle_stops = 0
        self._clock.jump(when)
        return []

    def _run_idle_timers(self, now: float) -> bool:
        """Schedule the callbacks of idle timers that are due; return whether there are any."""
        due = [timer for timer in self.idle_timers if timer.when <= now]
        for timer in due:
            timer.cancel()
            self._loop.call_soon(timer.callback, context=Context())
        return bool(due)

    def _run_real_timers(self) -> bool:
        """Schedule the callbacks of real timers that are due; return whether there are any."""
        now = time.monotonic()
        due = sorted((timer for timer in self.real_timers if timer.when <= now), key=_when)
        for timer in due:
            timer.cancel()
            self._loop.call_soon(timer.callback)
        return bool(due)

    def _max_wait(self, *, is_silent: bool) -> float:
        """Return the maximum number of real seconds to wait for outside events."""
        runs = self.jobs or self.left or self.real_timers
        return max(self._patience, LONGEST) if is_silent and runs else self._patience

    def _describe_deadlock(self) -> str:
        waiting: list[str] = []
        for task in asyncio.all_tasks(self._loop):
            frames = task.get_stack(limit=1)
            where = f" at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else ""
            waiting.append(f"{task.get_name()} ({task.get_coro()!r}){where}")
        tasks = ", ".join(sorted(waiting)) or "no task"
        running = [*self.jobs.values(), *self.left.values()]
        if self.real_timers:
            running.append("a capacity by the real clock, whose root needs clock=loop.time")
        if running:
            return (
                f"no timer is set at {self._clock.time():.6f} s on the virtual clock, and what takes real time has not ended in "
                f"{self._max_wait(is_silent=True):g} real seconds: {', '.join(sorted(running))}; if it takes longer, raise "
                f"patience; waiting: {tasks}"
            )
        return (
            f"nothing is ready and no timer is set at {self._clock.time():.6f} s on the virtual clock; "
            f"waiting for ever: {tasks}"
        )
