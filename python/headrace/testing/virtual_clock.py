"""`VirtualClock`: an event loop with virtual time.

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
from headrace._internal.reprs import callable_name, format_repr, pluralize
from headrace._internal.validate import check_finite, check_seconds
from headrace.errors import HeadraceError

LONGEST: Final = 60.0
"""The least real seconds to wait for a job that blocks everything else; a longer `patience` extends it."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor
    from typing import TypeVarTuple

    from _typeshed import FileDescriptorLike

    Arguments = TypeVarTuple("Arguments")


class DeadlockError(HeadraceError, RuntimeError):
    """Nothing is ready, no timer is set, and no outside event woke the loop: it would wait forever."""


class VirtualClock(Uncopied):
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
        if check_finite("VirtualClock: patience", patience) < 0:
            msg = f"VirtualClock: patience must be a number of seconds >= 0, got {patience!r}"
            raise ValueError(msg)
        self.patience = patience

    def __repr__(self) -> str:
        return format_repr(type(self).__name__, self._repr_parts())

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


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that uses a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._outside = selector = _JumpingSelector(self, clock)
        super().__init__(selector)

    def __repr__(self) -> str:
        return format_repr(type(self).__name__, self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield f"at {self._clock.time():.6f} s"
        yield "closed" if self.is_closed() else "running" if self.is_running() else "not running"
        if jobs := self._outside.jobs:
            yield f"{pluralize(len(jobs), 'job')} in threads"
        if alarms := self._outside.alarms:
            yield f"{pluralize(len(alarms), 'timer')} of the real clock"

    def time(self) -> float:
        """Return the time of the clock in seconds."""
        return self._clock.time()

    @property
    def _clock_resolution(self) -> float:
        # asyncio runs what is due before now and this. Where it is less than what a float can tell from now, nothing would
        # ever be due, and the loop would turn for ever.
        return max(1e-9, 4 * math.ulp(self._clock.time()))

    @_clock_resolution.setter
    def _clock_resolution(self, _: float) -> None:
        """That of the real clock, which asyncio notes, is not this one's."""

    def next_timer(self) -> float:
        """Return the time at which the next timer is due."""
        # What asyncio tells the selector is how long until then: rounded, and a day at most.
        scheduled: list[asyncio.TimerHandle] = cast("Any", self)._scheduled
        return scheduled[0].when()

    def hold_clock(self, job: str, *, left: bool = False) -> Callable[[], None]:
        """Tells of a job that is done elsewhere, in real time: the clock stands still for it.

        For whoever runs such jobs, and asks a loop whether it has this method.

        Args:
            job: What to call it.
            left: Nobody waits for what it gives, so that no timer is held up; but where none is set, its end may help.

        Returns:
            To be called, in any thread, when it has ended and the loop was told, or when its end is of no use any more.
        """
        jobs = self._outside.left if left else self._outside.jobs
        key = object()
        jobs[key] = job

        def release() -> None:
            jobs.pop(key, None)

        return release

    def call_later_real(self, seconds: float, callback: Callable[[], object]) -> _RealTimer:
        """Calls back after so many real seconds; the clock stands still until then, as it does for a job.

        For what goes by the real clock, and asks a loop whether it has this method: a tree of capacities that was made
        without a `clock`.

        Args:
            seconds: How long from now.
            callback: What to call.

        Returns:
            What has a `cancel()`, as a timer of asyncio.
        """
        timer = _RealTimer(time.monotonic() + seconds, callback, self._outside.alarms)
        self._outside.alarms.append(timer)
        return timer

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Any],
        *args: *Arguments,
    ) -> asyncio.Future[Any]:
        """Run a job in a thread, and stop the clock until it ends."""
        # Counted until its future is done, which a cancelled wait makes it at once: a job that nobody waits for any
        # more does not hold the clock.
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        release = self.hold_clock(_job(func))
        future.add_done_callback(lambda _: release())
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Join the threads, in real time."""
        # From 3.12 on this puts minutes of timeout, on the loop's clock, around a join in real time.
        self._outside.joining = True
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._outside.joining = False


def _job(func: object) -> str:
    """What a job is called; `asyncio.to_thread` hands over a context that is to run it."""
    while isinstance(func, partial):
        made = cast("partial[Any]", cast("object", func))
        runs = isinstance(getattr(made.func, "__self__", None), Context) and made.args
        func = made.args[0] if runs else made.func
    return callable_name(func)


def _when(timer: _RealTimer) -> float:
    return timer.when


class _RealTimer:
    def __init__(
        self, when: float, callback: Callable[[], object], among: list[_RealTimer]
    ) -> None:
        self.when = when
        self.callback = callback
        self._among = among

    def cancel(self) -> None:
        if self in self._among:
            self._among.remove(self)


class _JumpingSelector(selectors.BaseSelector):
    """The selector of such a loop: where another would wait for a timer, it moves the clock to it."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock) -> None:
        self._real = selectors.DefaultSelector()
        self._loop = loop
        self._clock = clock
        self._patience = clock.patience
        # What they are called.
        self.jobs: dict[object, str] = {}
        self.left: dict[object, str] = {}
        # By the real clock.
        self.alarms: list[_RealTimer] = []
        self.joining = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        rang = self._ring()
        events = self._real.select(0)
        # What is ready comes before any timer. A timeout of 0 means that the loop has callbacks to run.
        if events or rang or (timeout is not None and timeout <= 0):
            return events
        # One that is set for the end of time is as good as none.
        when = math.inf if timeout is None else self._loop.next_timer()
        is_silent = when == math.inf
        if is_silent or self.jobs or self.alarms or self.joining:
            most = math.inf if self.joining else self._most(is_silent=is_silent)
            left = min((alarm.when for alarm in self.alarms), default=math.inf) - time.monotonic()
            bound = max(0.0, min(most, left))
            events = self._real.select(None if bound == math.inf else bound)
            if events or self._ring() or left < most:
                return events
        if is_silent:
            raise DeadlockError(self._who_waits())
        self._clock.jump(when)
        return []

    def _ring(self) -> bool:
        """Has those timers of the real clock called that are due, and says whether there are any."""
        now = time.monotonic()
        due = sorted((alarm for alarm in self.alarms if alarm.when <= now), key=_when)
        for alarm in due:
            alarm.cancel()
            self._loop.call_soon(alarm.callback)
        return bool(due)

    def _most(self, *, is_silent: bool) -> float:
        """For how many real seconds to wait for what is outside."""
        runs = self.jobs or self.left or self.alarms
        return max(self._patience, LONGEST) if is_silent and runs else self._patience

    def _who_waits(self) -> str:
        waiting: list[str] = []
        for task in asyncio.all_tasks(self._loop):
            frames = task.get_stack(limit=1)
            where = f" at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else ""
            waiting.append(f"{task.get_name()} ({task.get_coro()!r}){where}")
        who = ", ".join(sorted(waiting)) or "no task"
        running = [*self.jobs.values(), *self.left.values()]
        if self.alarms:
            running.append("a capacity by the real clock, whose root needs clock=loop.time")
        if running:
            return (
                f"no timer is set at {self._clock.time():.6f} s on the virtual clock, and what takes real time has not ended in "
                f"{self._most(is_silent=True):g} real seconds: {', '.join(sorted(running))}; if it takes longer, raise "
                f"patience; waiting: {who}"
            )
        return (
            f"nothing is ready and no timer is set at {self._clock.time():.6f} s on the virtual clock; "
            f"waiting for ever: {who}"
        )

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
