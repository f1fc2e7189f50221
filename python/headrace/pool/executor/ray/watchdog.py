"""`start_watchdog`: starts the process that ends the work of a host when its driver is not heard. For Linux.

The process waits in `run_watchdog`, without the GIL; `rust/py/src/worker/watchdog.rs` describes it. It is in a session of its own, so that
it is not ended with the host. It gets the token through its standard input, since other users can read the arguments of a process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from headrace._core import run_watchdog

if TYPE_CHECKING:
    import socket

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from headrace.pool.executor.ray.watchdog import main
main(json.loads(sys.argv[2]))
"""
"""The program. It gets the import path first, since its own need not lead to headrace."""


def start_watchdog(
    listener: socket.socket,
    *,
    host_pid_fd: int,
    cells_fd: int,
    cells: int,
    ring: int,
    token: bytes,
    fence: float,
    start_up: float = 60.0,
    lease_fd: int,
    lifeline_fd: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a watchdog. The caller keeps its own descriptors and closes them.

    Args:
        listener: The TCP socket to which the driver connects. It listens already.
        host_pid_fd: The host (`os.pidfd_open`), which is killed at the end.
        cells_fd: The file of the cells.
        cells: The number of cells.
        ring: The number of slots of a cell.
        token: The bytes that the driver sends first.
        fence: The seconds after which the work of a silent driver ends.
        start_up: The maximum seconds until the driver connects.
        lease_fd: The timer of the lease (`open_lease_timer`), for which the workers wait too.
        lifeline_fd: The writing end of a pipe, which the watchdog keeps open until it ends. With it, the watchdog is no child of this
            process, and the process that is returned ends at once: Ray kills the children of an actor that it ends.
    """
    descriptors = (listener.fileno(), host_pid_fd, cells_fd, lease_fd)
    arguments = json.dumps([*descriptors, cells, ring, fence, start_up, lifeline_fd is not None])
    process = subprocess.Popen(  # noqa: S603 (this interpreter)
        [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), arguments],
        pass_fds=descriptors if lifeline_fd is None else (*descriptors, lifeline_fd),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    if process.stdin is not None:
        with process.stdin as stdin:
            stdin.write(token)
    return process


def main(arguments: tuple[int, int, int, int, int, int, float, float, bool]) -> None:
    """Guard the work of a host until it has ended."""
    listener_fd, host_pid_fd, cells_fd, lease_fd, cells, ring, fence, start_up, leaves = arguments
    # Ctrl-C is for the driver. A terminal does not signal this process, but a container may.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    token = sys.stdin.buffer.read()
    if leaves and os.fork():
        os._exit(0)
    run_watchdog(listener_fd, host_pid_fd, cells_fd, cells, ring, token, fence, start_up, lease_fd)
    # Nothing is left to clean up.
    os._exit(0)
