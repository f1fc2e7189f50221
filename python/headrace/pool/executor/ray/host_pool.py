"""`HostPool`: the worker processes of a host. It is a `ProcessExecutor` whose workers also end with the watchdog of the host."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace._core import end_with_driver, open_lease_timer
from headrace.pool.executor.process.executor import ProcessExecutor
from headrace.pool.executor.process.setup import preparation
from headrace.pool.executor.ray.config import START_UP
from headrace.pool.executor.ray.watchdog import start_watchdog

if TYPE_CHECKING:
    import socket
    import subprocess

    from headrace.errors import BrokenError
    from headrace.pool.executor.process.setup import Setup
    from headrace.pool.executor.process.work import Work
    from headrace.pool.executor.process.worker_process import WorkerProcess
    from headrace.pool.executor.ray.config import HostConfig


class HostPool(ProcessExecutor):
    """The worker processes of a host.

    Args:
        config: The options of the host.
        listener: The socket of the watchdog, which the pool closes.
        token: The secret that the driver sends to the watchdog.
    """

    def __init__(self, config: HostConfig, listener: socket.socket, token: bytes) -> None:
        super().__init__(
            config.workers,
            prefetch=config.prefetch,
            window=config.window,
            tasks_per_worker=config.tasks_per_worker,
            grace=config.grace,
            kill=config.kill,
        )
        self._watchdog: subprocess.Popen[bytes] | None = None
        # By name: the host itself does not import the modules of the program.
        self._carried = config.carry
        self._fence = config.fence
        self._listener = listener
        self._token = token

    @property
    def failure(self) -> BrokenError | None:
        """The reason why no worker can start, if that is so."""
        return self._broken

    def kill_workers(self) -> None:
        """Kill all workers at once, without waiting."""
        for process in self._placement.workers:
            process.kill()

    async def detach_watchdog(self) -> None:
        """Wait for the process that has started the watchdog."""
        if self._watchdog is not None:
            await asyncio.to_thread(self._watchdog.wait)

    def on_end(
        self, process: WorkerProcess, left: list[Work], failure: BaseException | None
    ) -> None:
        """Note that a worker has ended, with its process group."""
        self.cells.clear_group(process.cell)
        super().on_end(process, left, failure)

    def _open(self) -> None:
        super()._open()
        (host,) = self.lifelines
        lease = open_lease_timer()
        watchdog, lifeline = os.pipe()
        self.lifelines: tuple[int, ...] = (host, watchdog, lease)
        try:
            self._watchdog = start_watchdog(
                self._listener,
                host_pid_fd=host,
                cells_fd=self.cells_fd,
                cells=self._count,
                ring=self._placement.ring,
                token=self._token,
                fence=self._fence,
                start_up=START_UP,
                lease_fd=lease,
                lifeline_fd=lifeline,
            )
        finally:
            # From now on, only the watchdog has them.
            os.close(lifeline)
            self._listener.close()
        # The group of an actor is that of Ray.
        end_with_driver(os.dup(watchdog), os.dup(lease), group=False)

    def _start_worker(self, setup: Setup) -> WorkerProcess:
        process = super()._start_worker(setup)
        # Before its first task. The time tells the process from a later one with its number.
        self.cells.set_group(process.cell, process.pid, _start_time(process.pid))
        return process

    def _preparation(self, cell: int) -> dict[str, Any]:
        """Return the data with which a worker prepares itself: it imports no main module, which is that of Ray."""
        data = preparation(cell)
        return {
            key: value
            for key, value in data.items()
            if key not in ("init_main_from_name", "init_main_from_path")
        }


def _start_time(pid: int) -> int:
    """Return the time at which a process was started, in clock ticks since the boot."""
    text = Path(f"/proc/{pid}/stat").read_text()
    # The name of the program, in parentheses, may contain anything. The time is field 22 of the line.
    return int(text.rpartition(")")[2].split()[19])
