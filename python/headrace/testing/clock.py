"""A clock that costs no time.

An asyncio loop with nothing to run asks its selector to wait until the next timer is due. Here the
selector does not wait: it looks once for input and output that is ready, and, if there is none, moves
the loop's clock to that timer. So every `asyncio.sleep`, `asyncio.timeout` and `loop.call_later` takes
exactly as long as it says on the loop's clock, and no time at all on the wall's. Things happen in the
order of their timers, the same in every run.

Three things live outside the clock:

- **Work in threads** (`asyncio.to_thread`, `loop.run_in_executor`) takes real time. The clock stands
  still while somebody waits for such a job, so that a timeout around it does not strike before it had
  its chance; but for `patience` real seconds at most, since the job may itself wait for a timer of this
  loop.
- **Files** (`SourceLinesObj`, `SinkWriterObj`) are read and written by threads of Rust, which the loop does not know of: it
  does not stand still for them, so that a timer which runs meanwhile strikes at once.
- **Silence.** When nothing is ready and no timer is set, only a thread, a socket or a signal could go
  on. The loop waits `patience` real seconds for them, then raises `DeadlockError` where an ordinary loop
  would hang.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError
from headrace.telling import told

__all__ = ["DeadlockError", "VirtualClock", "VirtualLoop"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor
    from typing import TypeVarTuple

    from _typeshed import FileDescriptorLike

    Arguments = TypeVarTuple("Arguments")


class DeadlockError(HeadraceError, RuntimeError):
    """Nothing is ready, no timer is set, and nobody outside woke the loop: it would wait for ever."""


class VirtualClock:
    """A loop factory: the loops it makes live on this clock, which jumps to the next timer instead of waiting.

    Give it to whatever takes a loop factory:

        with asyncio.Runner(loop_factory=VirtualClock()) as runner:
            runner.run(main())

    The clock itself may be read at any time, also by what has no loop: `clock.time` is a function like
    `time.monotonic`. Two loops made by one clock share its time, and must not run in two threads at once.

    Args:
        start: what the clock shows at first, in seconds.
        patience: how many real seconds a loop waits for threads, sockets and signals before it lets timers pass them,
            or takes the silence for a deadlock.
    """

    def __init__(self, start: float = 0.0, *, patience: float = 1.0) -> None:
        if not patience >= 0:
            msg = f"VirtualClock: patience must be a number of seconds >= 0, got {patience!r}"
            raise ValueError(msg)
        self._now = float(start)
        self.patience = patience

    def __repr__(self) -> str:
        return told(type(self).__name__, self._facts())

    def _facts(self) -> Iterator[str]:
        yield f"at {self._now:.6f} s"

    def __call__(self) -> asyncio.AbstractEventLoop:
        """A new event loop on this clock."""
        return VirtualLoop(self)

    def time(self) -> float:
        """The seconds that this clock shows."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves the clock on, as if something had kept the loop busy for that long; timers that are due run next."""
        if not seconds >= 0:
            msg = f"VirtualClock.advance: seconds must be a number >= 0, got {seconds!r}"
            raise ValueError(msg)
        self._now += seconds


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that takes its time from a clock, and does not wait for it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._outside = selector = _JumpingSelector(self, clock, clock.patience)
        super().__init__(selector)

    def time(self) -> float:
        """The seconds of the clock."""
        return self._clock.time()

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Any],
        *args: *Arguments,
    ) -> asyncio.Future[Any]:
        """Runs a job in a thread, and holds the clock meanwhile."""
        # Counted until its future is done, which a cancelled wait makes it at once: a job that nobody waits for any
        # more does not hold the clock.
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._outside.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._outside.jobs -= 1

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Joins the threads, in real time."""
        # From 3.12 on this puts minutes of timeout, on the loop's clock, around a join in real time.
        self._outside.joining = True
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._outside.joining = False


class _JumpingSelector(selectors.BaseSelector):
    """The selector of such a loop: where another would wait for a timer, it moves the clock to it."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock, patience: float) -> None:
        self._real = selectors.DefaultSelector()
        self._loop = loop
        self._clock = clock
        self._patience = patience
        self.jobs = 0
        self.joining = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        # What is ready comes before any timer. A timeout of 0 means that the loop has callbacks to run.
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or self.jobs or self.joining:
            events = self._real.select(None if self.joining else self._patience)
            if events:
                return events
        if timeout is None:
            raise DeadlockError(self._who_waits())
        self._clock.advance(timeout)
        return []

    def _who_waits(self) -> str:
        waiting: list[str] = []
        for task in asyncio.all_tasks(self._loop):
            frames = task.get_stack(limit=1)
            where = f" at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else ""
            waiting.append(f"{task.get_name()} ({task.get_coro()!r}){where}")
        return (
            f"nothing is ready and no timer is set at {self._clock.time():.6f} s on the virtual clock; "
            f"waiting for ever: {', '.join(sorted(waiting)) or 'no task'}"
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
