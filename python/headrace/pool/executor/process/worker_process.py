"""`WorkerProcess`: a worker as its driver sees it: starts it, sends it tasks, receives their outcomes, and notes its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast

from headrace._core import FrameChannel
from headrace.pool.executor.process.exit_watch import ExitWatch, is_group_alive
from headrace.pool.executor.process.messages import (
    Kind,
    Parts,
    dumps,
    load_error,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace._core import WorkerCells
    from headrace.pool.executor.process.messages import Buffer
    from headrace.pool.executor.process.setup import Setup
    from headrace.pool.executor.process.work import Work

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from headrace.pool.executor.process.worker import start
start()
"""
"""The program of a worker. It gets the import path first, since its own need not lead to headrace."""

_LONGEST_POLL = 0.1
"""The maximum seconds between two looks at a process group whose leader has ended."""


class Owner(Protocol):
    """The executor of a worker."""

    cells: WorkerCells
    cells_fd: int
    lifelines: tuple[int, ...]
    tasks_per_worker: int
    grace: float | None
    kill: bool

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        ...

    def on_ready(self, process: WorkerProcess) -> None:
        """Note that a worker can take tasks."""
        ...

    def on_dying(self) -> None:
        """Note that a worker takes no more tasks."""
        ...

    def on_space(self, process: WorkerProcess) -> None:
        """Note that a task of a worker has ended."""
        ...

    def place(self, work: Work) -> None:
        """Give a task that has not begun to a worker."""
        ...

    def on_end(
        self, process: WorkerProcess, left: list[Work], failure: BaseException | None
    ) -> None:
        """Note that a worker has ended, with the tasks that it had and its error if it could not start."""
        ...


class WorkerProcess:
    """A worker process and the tasks that it has.

    Args:
        owner: The executor.
        setup: The setup of the worker.
    """

    def __init__(self, owner: Owner, setup: Setup) -> None:
        self._owner = owner
        self.cell: int = setup.cell
        self.works: dict[int, Work] = {}
        """The tasks without an outcome, by their positions and in this order. The first `tasks_per_worker` run."""
        self.vetoed: set[int] = set()
        """The positions that were taken back and that the worker has not answered."""
        self.is_ready: bool = False
        self.is_dying: bool = False
        """Whether the worker was killed or ended, so that it gets no more tasks."""
        self._was_killed = False
        self._failure: BaseException | None = None
        self._last_position = 0
        self._is_writing = False
        owner.cells.clear(setup.cell)
        ours, theirs = socket.socketpair()
        try:
            self._process = self._start(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid: int = self._process.pid
        self._channel = FrameChannel(ours.detach())
        self._watch = ExitWatch(owner.loop, self.pid, self._on_exit)
        owner.loop.add_reader(self._channel.fileno(), self._on_readable)
        self._send(Kind.SETUP, 0, dumps(setup))

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        owner = self._owner
        descriptors = (theirs.fileno(), owner.cells_fd, *owner.lifelines)
        command = [sys.executable, *_interpreter_options(), "-c", _PROGRAM, json.dumps(sys.path)]
        return subprocess.Popen(  # noqa: S603 (this interpreter)
            [*command, *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            # The worker leads a process group of its own, with which it is ended.
            start_new_session=True,
        )

    @property
    def can_run(self) -> bool:
        """Whether the worker can run tasks."""
        return self.is_ready and not self.is_dying

    @property
    def where(self) -> str:
        """The name of the worker, for messages."""
        return f"process {self.pid}"

    # Tasks.

    def give(self, work: Work) -> None:
        """Send a task. The caller has checked that the worker takes it."""
        self._last_position += 1
        work.position = self._last_position
        work.worker = self
        self.works[work.position] = work
        self._send(Kind.RUN, work.position, work.message)
        if len(self.works) <= self._owner.tasks_per_worker:
            work.begin()

    def credit(self, work: Work, values: int) -> None:
        """Allow a task to send more values."""
        self._send(Kind.CREDIT, work.position, dumps(values))

    @property
    def answers(self) -> bool:
        """True: the end of a process is noticed at once."""
        return True

    def refuse(self, work: Work) -> None:
        """Cancel a task that has its outcome already."""
        self._send(Kind.CANCEL, work.position, ())

    def take_back(self, work: Work) -> bool:
        """Take a task back. Return False if it has begun, or may have."""
        if not self._owner.cells.veto(self.cell, work.position):
            return False
        del self.works[work.position]
        self.vetoed.add(work.position)
        work.worker = None
        return True

    def cancel(self, work: Work) -> None:
        """Cancel a task of this worker."""
        owner = self._owner
        if self.is_dying:
            return
        if work.position > owner.cells.begun(self.cell) and self.take_back(work):
            work.end_with_error(asyncio.CancelledError())
            return
        if owner.tasks_per_worker == 1 and owner.cells.blocking(self.cell) == work.position:
            self.kill()
            return
        self._send(Kind.CANCEL, work.position, ())
        can_kill = owner.tasks_per_worker == 1 or owner.kill
        if can_kill and owner.grace is not None and work.force_timer is None:
            work.force_timer = owner.loop.call_later(owner.grace, self._force, work)

    def _force(self, work: Work) -> None:
        if work.worker is self:
            self.kill()

    def _begin_next(self) -> None:
        """Note that the worker calls the next task, after the end of another one: it begins them in their order."""
        last = self._owner.tasks_per_worker - 1
        if (work := next(islice(self.works.values(), last, None), None)) is not None:
            work.begin()

    # The process.

    def stop(self) -> None:
        """Ask the worker to end when it is idle."""
        self._die()
        self._send(Kind.STOP, 0, ())

    def kill(self) -> None:
        """End the worker and all processes of its group."""
        if not self._was_killed:
            self._was_killed = True
            self._die()
            self._kill_group()

    def wait(self) -> None:
        """Wait until a killed worker has ended, without an event loop."""
        self._watch.close()
        self._process.wait()
        self._channel.close()

    def _kill_group(self) -> None:
        # The process was not waited for, so no other group can have this number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _send(self, kind: Kind, position: int, parts: Parts) -> None:
        try:
            is_written = self._channel.send(kind, position, parts)
        except OSError:
            # It has ended; its exit is noticed soon.
            return
        if not is_written and not self._is_writing:
            self._is_writing = True
            self._owner.loop.add_writer(self._channel.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        try:
            is_written = self._channel.flush()
        except OSError:
            is_written = True
        if is_written:
            self._is_writing = False
            self._owner.loop.remove_writer(self._channel.fileno())

    def _on_readable(self) -> None:
        if self._receive() is None:
            # The process has closed its end, which an exit does too. A worker without a channel is of no use.
            self._owner.loop.remove_reader(self._channel.fileno())
            self.kill()

    def _receive(self) -> int | None:
        """Process the messages that have arrived; return their number, or None at the end of the stream."""
        try:
            frames = self._channel.receive()
        except OSError:
            return None
        for kind, position, parts in frames or ():
            self._on_frame(kind, position, parts)
        return None if frames is None else len(frames)

    def _on_frame(self, kind: int, position: int, parts: Sequence[Buffer]) -> None:
        if kind == Kind.HELLO:
            self.is_ready = True
            self._owner.on_ready(self)
            return
        if kind == Kind.FAILED:
            self._failure = load_error(parts, self.where)
            return
        if kind == Kind.VETOED:
            self.vetoed.discard(position)
        work = self.works.get(position)
        if work is None:
            return
        if kind in (Kind.EMIT, Kind.SETTLE):
            work.receive(kind, parts, self.where)
            return
        del self.works[position]
        if kind != Kind.VETOED:
            work.receive(kind, parts, self.where)
        elif work.is_cancelled:
            work.end_with_error(asyncio.CancelledError())
        else:
            work.worker = None
            self._owner.place(work)
        # Afterwards: a notified pool may have submitted the next task, which this worker takes first.
        self._begin_next()
        self._owner.on_space(self)

    def _die(self) -> None:
        self.is_dying = True
        self._owner.on_dying()

    def _on_exit(self) -> None:
        self._die()
        # Processes that the worker has started. It is not waited for yet, so the number of its group is its own.
        self._kill_group()
        loop = self._owner.loop
        loop.remove_reader(self._channel.fileno())
        loop.remove_writer(self._channel.fileno())
        # All that it has sent is here by now.
        while self._receive():
            pass
        self._process.wait()
        self._wait_for_group(0.001)

    def _wait_for_group(self, delay: float) -> None:
        """Wait until no process of the group can run any more; only then is the end of its tasks reported."""
        loop = self._owner.loop
        if is_group_alive(self.pid):
            loop.call_later(delay, self._wait_for_group, min(2 * delay, _LONGEST_POLL))
            return
        self._channel.close()
        left = list(self.works.values())
        self.works.clear()
        self._owner.on_end(self, left, self._failure)

    @property
    def exit_text(self) -> str:
        """How the process has ended."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"


def _interpreter_options() -> list[str]:
    """Return the options of this interpreter, such as `-X dev` and `-W error`, for another one."""
    return cast("list[str]", cast("Any", subprocess)._args_from_interpreter_flags())
