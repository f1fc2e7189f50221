"""A host with one worker, its watchdog and a network, as real processes and sockets."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from headrace._core import HostLease, WorkerCells, open_lease_timer
from headrace.pool.executor.process.exit_watch import is_group_alive
from headrace.pool.executor.ray.watchdog import start_watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = os.urandom(32)
RING = 4
PATIENCE = 60.0
"""The maximum seconds until a condition must hold."""

# Notes the time, 1,000 times a second.
_BEATING = """\
import mmap, sys, time
beats = memoryview(mmap.mmap(int(sys.argv[1]), 16)).cast("Q")
while True:
    beats[INDEX] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    time.sleep(0.001)
"""

# A worker, and a process that its task has started.
_WORKER = f"""\
import subprocess, sys
from headrace._core import end_with_driver
end_with_driver(*map(int, sys.argv[2:]))
program = {_BEATING.replace("INDEX", "1")!r}
subprocess.Popen([sys.executable, "-c", program, sys.argv[1]], pass_fds=[int(sys.argv[1])])
{_BEATING.replace("INDEX", "0")}"""


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never holds"
        time.sleep(0.002)


def wait_for_state(lease: HostLease, *states: str) -> int:
    """Wait until a lease has one of these states, by its descriptor; return the time after that."""
    end = time.monotonic() + PATIENCE
    while lease.state not in states:
        readable, _, _ = select.select([lease], [], [], max(end - time.monotonic(), 0))
        assert readable, f"it stays {lease.state}"
    return now()


def now() -> int:
    """Return the time on the clock of the heartbeats."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def start_time(pid: int) -> int:
    """Return the time at which a process was started, in ticks."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has ended, without waiting for it: its number stays in use."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Host:
    """A host with a worker and a watchdog. Nothing of it is left at the end.

    Args:
        fence: The seconds of the fence.
        start_up: The maximum seconds until the driver connects.
    """

    def __init__(self, fence: float, start_up: float = 60.0) -> None:
        self.fence = fence
        self.start_up = start_up
        self.processes: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            stack.callback(self._kill)
            cells_fd = self._file("cells", WorkerCells.size(2, RING))
            self._beats_fd = self._file("beats", 16)
            self.cells = WorkerCells(cells_fd, 2, RING)
            self.host = self.start("sleep", "1000")
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.address: tuple[str, int] = listener.getsockname()
            host_fd = self._own(os.pidfd_open(self.host.pid))
            self._lease_fd = lease_fd = self._own(open_lease_timer())
            self.watchdog = start_watchdog(
                listener,
                host_pid_fd=host_fd,
                cells_fd=cells_fd,
                cells=2,
                ring=RING,
                token=TOKEN,
                fence=self.fence,
                start_up=self.start_up,
                lease_fd=lease_fd,
            )
            self.processes.append(self.watchdog)
            listener.close()
            self._lifelines = (host_fd, self._own(os.pidfd_open(self.watchdog.pid)), lease_fd)
            self.worker = self._start_worker()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _file(self, name: str, size: int) -> int:
        fd = self._own(os.memfd_create(name))
        os.ftruncate(fd, size)
        return fd

    def _own(self, fd: int) -> int:
        self._stack.callback(os.close, fd)
        return fd

    def start(self, *command: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a process that leads a group."""
        process = subprocess.Popen(command, pass_fds=fds, start_new_session=True)
        self.processes.append(process)
        return process

    def _start_worker(self) -> subprocess.Popen[bytes]:
        fds = (self._beats_fd, *self._lifelines)
        worker = self.start(sys.executable, "-c", _WORKER, *map(str, fds), fds=fds)
        self.cells.set_group(0, worker.pid, start_time(worker.pid))
        wait_until(lambda: all(self.beats()))
        return worker

    def _kill(self) -> None:
        for process in self.processes:
            # Its number was not given to another group: either it was not waited for, or its group is alive.
            if process.returncode is None or is_group_alive(process.pid):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def connect(self, address: tuple[str, int] | None = None) -> HostLease:
        """Connect a driver, and wait until the host answers."""
        lease = HostLease(self.connected(TOKEN, address).detach(), self.fence, self.start_up)
        wait_for_state(lease, "answering")
        return lease

    def connected(self, token: bytes, address: tuple[str, int] | None = None) -> socket.socket:
        """Return a connection through which a token was sent."""
        connection = socket.create_connection(address or self.address)
        connection.sendall(token)
        return connection

    def beats(self) -> tuple[int, int]:
        """Return the times of the last heartbeats of the worker and of the process that it has started."""
        data = os.pread(self._beats_fd, 16, 0)
        return int.from_bytes(data[:8], sys.byteorder), int.from_bytes(data[8:], sys.byteorder)

    def time_left(self) -> float:
        """Return the seconds until the timer of the lease ends the work."""
        text = Path(f"/proc/self/fdinfo/{self._lease_fd}").read_text()
        (value,) = re.findall(r"^it_value: \((\d+), (\d+)\)$", text, re.MULTILINE)
        return int(value[0]) + int(value[1]) / 1e9

    def wait_for_beats(self) -> None:
        """Wait until worker and process have made another heartbeat."""
        time = now()
        wait_until(lambda: min(self.beats()) > time)

    def assert_ended(self, moment: int) -> None:
        """Check that nothing of the work runs, and that it had ended before this time."""
        assert not is_group_alive(self.worker.pid)
        assert max(self.beats()) <= moment


class Network:
    """A proxy for one connection that can hold bytes back. The end of a connection is held back, too.

    Args:
        address: Where it leads to.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._target = address
        # By direction, "down" to the driver and "up" to the watchdog. A held one is not set.
        self._flows = {"down": threading.Event(), "up": threading.Event()}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.release()
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        for connection in (self._listener, *self._sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for connection in (self._listener, *self._sockets):
            connection.close()

    def hold(self, *directions: str) -> None:
        """Hold bytes of these directions back."""
        for direction in directions:
            self._flows[direction].clear()

    def release(self) -> None:
        """Deliver what was held back, and all that follows."""
        for flow in self._flows.values():
            flow.set()

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        driver, _ = self._listener.accept()
        watchdog = socket.create_connection(self._target)
        self._sockets += [driver, watchdog]
        self._run(self._forward, driver, watchdog, self._flows["up"])
        self._run(self._forward, watchdog, driver, self._flows["down"])

    def _forward(self, source: socket.socket, target: socket.socket, flow: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(1024):
                flow.wait()
                target.sendall(data)
        flow.wait()
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
