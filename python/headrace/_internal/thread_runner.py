"""`run_in_thread_loop`: runs a coroutine on the event loop of the current thread, which stays open for the next call.

`headrace.map` uses it. A client that a program creates at its module level is bound to the loop of its first use, so a loop for
each call would break it at the second one. The loop is closed when its thread ends, and that of the main thread when the interpreter
exits. A child after `fork` gets a loop of its own: it must not touch that of the parent, whose selector both processes share.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Closable(Protocol):
    """An object that lives on an event loop, such as an executor."""

    async def aclose(self) -> None:
        """Close the object."""
        ...


def run_in_thread_loop(coroutine: Coroutine[Any, Any, T], used: Closable | None = None) -> T:
    """Run a coroutine to its end in a copy of the current context, and return its result.

    In the main thread the first Ctrl-C cancels the coroutine, as in `asyncio.run`. `used` is an object that the coroutine starts on the
    event loop. It is closed before the loop.
    """
    runner = _local.runner
    if runner is None or runner.is_stale():
        runner = _local.runner = _ThreadRunner()
    if used is not None:
        runner.used[id(used)] = used
    return runner.run(coroutine)


class _ThreadRunner:
    """The event loop of one thread."""

    def __init__(self) -> None:
        # With a factory, the runner does not set the event loop of the thread, which is the program's own choice.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._pid = os.getpid()
        # The objects to close, by identity: they need not be hashable.
        self.used: dict[int, Closable] = {}

    def is_stale(self) -> bool:
        """Return whether the loop is that of the parent process, or was closed by code that ran on it."""
        return self._pid != os.getpid() or self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine."""
        return self._runner.run(coroutine, context=contextvars.copy_context())

    def close(self) -> None:
        """Cancel what is left on the loop, and close it. Idempotent."""
        loop = self._loop
        if self._pid != os.getpid():
            # Closing would remove the parent's descriptors from the shared selector, so that no thread could wake the
            # parent's loop any more. The finaliser of the loop does nothing to a closed one.
            with suppress(TypeError):
                held = vars(loop)
                held["is_closed"] = lambda: True
                # The child's own descriptors: otherwise they warn when they are dropped.
                for one in tuple(held.values()):
                    if isinstance(one, socket.socket):
                        one.close()
            return
        if loop.is_closed():
            return
        # Not `Runner.close`: it starts a thread, which is not possible while the interpreter exits.
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            for used in self.used.values():
                loop.run_until_complete(used.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def __del__(self) -> None:
        # The thread has ended; `_loop` is missing if `__init__` raised.
        if hasattr(self, "_pid"):
            self.close()


class _Local(threading.local):
    runner: _ThreadRunner | None = None


_local = _Local()


@atexit.register
def _close() -> None:
    """Close the loop of the main thread; threads close theirs when they end."""
    if _local.runner is not None:
        _local.runner.close()
