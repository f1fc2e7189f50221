"""`ProcessExecutor`: runs tasks in worker processes of its own.

**Why our own pool.** A pool for paid or long work must do all of this, and none of the known pools does (tried with CPython 3.11, loky
3.7.0, Pebble 5.2.3 and anyio 4.16.0: seven calls on two workers, one of which ends its process):

| | one worker dies | a task is cancelled | yields values | the caller |
|---|---|---|---|---|
| `concurrent.futures` | the pool breaks; all unfinished tasks are lost | only before it begins | no | a future and two threads a pool |
| loky | the same; `reuse=True` makes another pool | the same | no | the same |
| pebble | its task is lost, the worker is replaced | the worker is killed | no | a future and three threads a pool |
| anyio.to_process | its task is lost, the worker is replaced | the worker is killed | no | a worker is one await; nothing is sent ahead |
| this one | its begun task is lost, the others run elsewhere | killed with its children, confirmed | yes | no thread |

**The path of a task.** `submit` pickles it and gives it to a worker (`placement.py`). The socket is read and written on the event loop,
without a thread. A handshake in shared memory decides whether a task has begun (`rust/core/src/worker/mod.rs`), so that

- a task that waits behind a long one is taken back and given to an idle worker;
- a task that is cancelled before it began never begins;
- when a worker dies, exactly the tasks that had begun are lost (`WorkerLost`), and the others are given to other workers.

**Cancellation is confirmed.** A plain function cannot be asked to stop, so its worker is killed, with its process group. The outcome is
reported when the process has ended and no process of its group can run any more. Until then the task holds its capacity.

**The end of the driver** ends the workers: each has a thread without the GIL that waits for it (`rust/py/src/worker/lifeline.rs`). This
needs no cooperation of the driver, so it holds for `kill -9` too.

**Slots.** Only a worker that is ready adds slots. So no task holds capacity while the workers start, and when one is being replaced the
others get no more than their share.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextvars import Context
from typing import TYPE_CHECKING, Any

from headrace._core import WorkerCells
from headrace._internal.reprs import pluralize
from headrace._internal.validate import check_flag, check_int, check_seconds, check_size
from headrace.errors import WorkerLost, WrongLoopError
from headrace.pool.executor.process.exit_watch import driver_fd
from headrace.pool.executor.process.placement import ProcessPlacement
from headrace.pool.executor.process.setup import Setup, is_preparing, preparation
from headrace.pool.executor.process.worker_executor import WorkerExecutor
from headrace.pool.executor.process.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextvars import ContextVar

    from headrace.pool.executor.process.work import Work

_MAX_FAILED_STARTS = 3
"""The number of workers in a row that may crash before the first one is ready. A crash may be an accident; three are not."""

_LONGEST_PAUSE = 5.0
"""The maximum seconds before the next start, after starts that have failed."""


class ProcessExecutor(WorkerExecutor[ProcessPlacement]):
    """An executor whose tasks run in worker processes, on all processors of this machine.

    Open it with `async with ProcessExecutor() as executor:`, and pass it as `executor=` of a runner or of `map_pool`.

    A function and its arguments are pickled: define the function at the top of a module. The program needs the usual
    `if __name__ == "__main__":`, since each worker imports it. Results and errors are pickled on their way back; an error has the
    traceback of the worker as a note.

    - *A worker that dies* loses the tasks that had begun: they end with `WorkerLost`, and a `Retry` calls them again. It alone is replaced.
    - *Cancellation and timeouts* kill the worker of a plain function, with all processes that it has started. An async function is
      cancelled as usual, and killed if it has not stopped after `grace`. Capacity is freed when the work has stopped.
    - *Async generators* yield values to the driver, at most `window` ahead of it.
    - `current_lease().settle()` works in a task. `suspended()` is refused there.

    *Order*: tasks begin in the order of their submission, but for those that are sent again. *Bound*: `workers * (tasks_per_worker +
    prefetch)` tasks are pickled at a time, and `window` values of each; runs that share the executor may add the tasks that have waited
    for their capacity. *Cost*: about 60 us of the driver a task; each worker takes about 0.25 s to start and 30 MB of memory.
    Arguments and results are pickled on the event loop, so that 10 MB take it about 10 ms.
    *Cancel safety*: cancelling `start` or `aclose` leaves the executor as it is; call it again.

    Linux and macOS; on Windows its construction raises `OSError`.

    Args:
        workers: The number of processes; None for one for each processor that this process may use.
        prefetch: The number of tasks that wait at a worker behind those that run there. 0 for long tasks under a tight limit, since a
            waiting task holds its capacity.
        window: The maximum number of values that a task has yielded and that were not read.
        tasks_per_worker: The number of tasks that run side by side in a worker: async functions on its event loop, plain functions in
            threads. Above 1, cancellation is only a request.
        grace: The seconds for which a cancelled async function may clean up before its worker is killed; None never kills it.
        kill: Whether the worker is killed after `grace` also if other tasks run there. They end with `WorkerLost`.
        carry: The context variables whose values travel with each task. Each must be a global of a module.

    Raises:
        ValueError: A number is out of its range, or a context variable is not a global.
        TypeError: An argument has the wrong type.
        OSError: This platform has no process groups.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        prefetch: int = 1,
        window: int = 8,
        tasks_per_worker: int = 1,
        grace: float | None = 5.0,
        kill: bool = False,
        carry: Iterable[ContextVar[Any]] = (),
    ) -> None:
        if not hasattr(os, "killpg"):
            raise OSError(
                "a ProcessExecutor needs process groups, which this platform does not have: use ThreadExecutor, or Linux or macOS"
            )
        self._count = count_processors() if workers is None else check_size("workers", workers)
        self.tasks_per_worker: int = check_size("tasks_per_worker", tasks_per_worker)
        self.grace: float | None = None if grace is None else check_seconds("grace", grace)
        self.kill: bool = check_flag("kill", kill)
        super().__init__(
            ProcessPlacement(tasks_per_worker, check_int("prefetch", 0, prefetch)),
            window=check_size("window", window),
            can_force=tasks_per_worker == 1 or kill,
            carry=carry,
        )
        # The number of workers in a row that have ended before they were ready.
        self._failed_starts = 0
        self._has_started = False
        # Done when a worker has ended; replaced at each.
        self._ended: asyncio.Future[None] | None = None

    def _repr_parts(self) -> Iterator[str]:
        yield f"{self._placement.ready} of {pluralize(self._count, 'worker')} ready"
        if self._is_closing:
            yield "closed"

    @property
    def workers(self) -> tuple[int, ...]:
        """The ids of the worker processes that have not ended."""
        return tuple(process.pid for process in self._placement.workers)

    async def start(self) -> None:
        """Start the workers, without waiting until they are ready. Idempotent.

        Raises:
            ClosedError: The executor was closed.
            WrongLoopError: The executor runs on another event loop.
            RuntimeError: A worker imports the main module of the program, which calls this unguarded.
        """
        if is_preparing.is_set():
            raise RuntimeError(
                "a worker imports this module, which starts a ProcessExecutor on import: move that under "
                'if __name__ == "__main__":'
            )
        if not self._enter_loop():
            return
        try:
            self._open()
        except OSError:
            self._loop = None
            raise
        # The callbacks of the event loop do not run in the context of the run that happens to start the executor.
        Context().run(self._start_workers)

    def _open(self) -> None:
        """Open the files that the workers share."""
        ring = self._placement.ring
        self.cells_fd: int = _shared_file(WorkerCells.size(self._count, ring))
        self.cells: WorkerCells = WorkerCells(self.cells_fd, self._count, ring)
        self.lifelines: tuple[int, ...] = (driver_fd(),)

    async def aclose(self, grace: float | None = None) -> None:
        """End all workers, and wait for them. Idempotent. Tasks that still run are killed, and end with `CancelledError`.

        Args:
            grace: The seconds in which an idle worker may end by itself, for its `atexit` functions; None for those of the constructor.
        """
        self._check_process()
        self._is_closing = True
        workers = self._placement.workers
        if self._loop is None or not workers:
            self._release()
            return
        if self._loop is not asyncio.get_running_loop():
            raise WrongLoopError(f"{self!r} runs on another event loop")
        self._placement.refuse(asyncio.CancelledError())
        for process in list(workers):
            for work in list(process.works.values()):
                work.is_cancelled = True
            if process.works or not process.is_ready:
                process.kill()
            else:
                process.stop()
        longest = self.grace if grace is None else grace
        deadline = None if longest is None else self.loop.time() + longest
        while workers:
            self._ended = self.loop.create_future()
            wait = None if deadline is None else max(0.0, deadline - self.loop.time())
            done, _ = await asyncio.wait([self._ended], timeout=wait)
            if not done:
                deadline = None
                for process in list(workers):
                    process.kill()
        self._release()

    # The workers call these, and `place`.

    def on_ready(self, process: WorkerProcess) -> None:
        """Note that a worker can take tasks."""
        del process
        self._capabilities = None
        self._failed_starts = 0
        self._has_started = True
        self._placement.fill()
        self._changed()
        self._steal_soon()

    def on_dying(self) -> None:
        """Note that a worker takes no more tasks. `on_end` follows."""
        self._capabilities = None

    def on_space(self, process: WorkerProcess) -> None:
        """Note that a task of a worker has ended."""
        self._placement.fill()
        # Without prefetch no task waits behind another one.
        if not process.works and self._placement.tasks_each > self.tasks_per_worker:
            self._steal_soon()

    def on_end(
        self, process: WorkerProcess, left: list[Work], failure: BaseException | None
    ) -> None:
        """Note that a worker has ended."""
        self._placement.workers.remove(process)
        self._capabilities = None
        begun = self.cells.begun(process.cell)
        again: list[Work] = []
        for work in left:
            if work.is_cancelled:
                work.end_with_error(asyncio.CancelledError())
            elif work.position > begun:
                work.worker = None
                again.append(work)
            else:
                work.end_with_error(
                    WorkerLost(
                        f"{process.where} has ended ({process.exit_text}) while it ran {work.name}",
                        started=True,
                        confirmed="exit",
                        where=process.where,
                    )
                )
        self._placement.put_back(again)
        if not self._is_closing and self._broken is None:
            self._replace(process, failure)
            self._placement.fill()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self._changed()

    def _replace(self, process: WorkerProcess, failure: BaseException | None) -> None:
        """Start another worker for one that has ended: at once, or after a pause if it could not start."""
        if process.is_ready:
            self._start_workers()
            return
        self._failed_starts += 1
        is_ready = any(other.is_ready for other in self._placement.workers)
        # The same program has started before, so a crash says nothing about the next start.
        has_started = self._has_started and failure is None
        is_certain = failure is not None or self._failed_starts >= _MAX_FAILED_STARTS
        if is_certain and not is_ready and not has_started:
            reason = (
                process.exit_text if failure is None else str(failure) or type(failure).__name__
            )
            self._break(f"its workers cannot start: {reason}", failure)
            return
        pause = min(0.01 * 2.0 ** min(self._failed_starts, 16), _LONGEST_PAUSE)
        self.loop.call_later(pause, self._start_workers)

    def _start_workers(self) -> None:
        """Start as many workers as are missing."""
        if self._is_closing or self._broken is not None or self._loop is None:
            return
        workers = self._placement.workers
        used = {process.cell for process in workers}
        for cell in sorted(set(range(self._count)) - used):
            setup = Setup(
                main=self._preparation(cell),
                cell=cell,
                cells=self._count,
                ring=self._placement.ring,
                window=self._window,
                tasks_per_worker=self.tasks_per_worker,
                carry=self._carried,
            )
            workers.append(self._start_worker(setup))

    def _start_worker(self, setup: Setup) -> WorkerProcess:
        return WorkerProcess(self, setup)

    def _preparation(self, cell: int) -> dict[str, Any]:
        """Return the data with which a worker prepares itself, and imports the main module."""
        return preparation(cell)

    def _steal_soon(self) -> None:
        # In the next iteration: the pool may have new tasks for the idle worker, and a task that is taken back is sent twice.
        self.loop.call_soon(self._placement.steal)

    def _abandon(self) -> None:
        """Kill all workers of an event loop that was closed."""
        for process in self._placement.workers:
            process.kill()
            process.wait()
        self._placement.workers.clear()
        self._release()

    def _release(self) -> None:
        """Close the descriptors."""
        if self._loop is not None:
            self._loop = None
            for fd in (self.cells_fd, *self.lifelines):
                os.close(fd)


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shared_file(size: int) -> int:
    """Return the descriptor of a file of zeros in memory, without a name."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("headrace workers")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
