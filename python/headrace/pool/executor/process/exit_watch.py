"""`ExitWatch`: calls a function on the event loop when a process has ended, and `is_group_alive`.

On Linux a descriptor of the process (pidfd) becomes readable, on macOS a kqueue. Neither needs a thread or SIGCHLD, which belong to the
program.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class ExitWatch:
    """Watches for the end of a child process that was not waited for.

    Args:
        loop: The event loop.
        pid: The process.
        ended: Called once, on the event loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pid: int, ended: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._fd, self._close = _open(pid)
        loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._fd >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            self._fd = -1
            self._close()

    def _on_readable(self) -> None:
        self.close()
        self._ended()


def _open(pid: int) -> tuple[int, Callable[[], object]]:
    """Return a descriptor that is readable when a process has ended, and the function that closes it."""
    if sys.platform == "darwin":
        queue = select.kqueue()
        event = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
        )
        queue.control([event], 0)
        return queue.fileno(), queue.close
    fd = os.pidfd_open(pid)
    return fd, lambda: os.close(fd)


def driver_fd() -> int:
    """Return a descriptor that is readable, in a child that inherits it, when this process has died.

    On macOS it is a pipe whose other end stays open here. There, a process that this one has forked keeps it open too.
    """
    if sys.platform == "darwin":
        end, _driver = os.pipe()
        return end
    return os.pidfd_open(os.getpid())


def is_group_alive(group: int) -> bool:
    """Return whether a process group, whose leader was waited for, still has a process that can run.

    A process that has ended and that its parent has not waited for counts as gone.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if sys.platform != "linux":
        return True
    return any(
        _is_member(entry, group) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    )


def _is_member(entry: Path, group: int) -> bool:
    try:
        text = (entry / "stat").read_text()
    except OSError:
        return False
    # The name of the program, in parentheses, may contain anything.
    state, _parent, its_group = text.rpartition(")")[2].split()[:3]
    return int(its_group) == group and state not in "ZX"
