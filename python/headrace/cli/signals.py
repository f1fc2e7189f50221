"""SIGINT, SIGTERM and SIGHUP, which stop the command, from the start of the command to the end of its process.

`start` and `main` call `install`, `map` calls `listen`.

| phase | effect of a signal |
|---|---|
| imports, checks, opening a pipe | the first raises `Interrupted`; the second ends the process at once |
| opening files (`deferred`) | is deferred to the next phase |
| the run (`listen`) | calls the listener |
| finishing: files are synced | calls the listener, which ignores it: nothing is left to stop |
| after `set_exit_code` | the second one ends the process at once, with the exit code of the run |
| the last steps of the interpreter | ignored |

An exception is raised only where no step is half done. The process ends early only where every file is either whole
or not begun. This module imports little, so that its handlers are installed before any slow import.
"""

from __future__ import annotations

import atexit
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from headrace.cli import explain_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal was received while no step was half done. `code` is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code: int = 128 + number


class _Signals:
    """The state of the signal handlers, which a process has once."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.raises = True
        self.listener: Callable[[int], object] | None = None
        self.code: int | None = None

    def handle(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        if self.code is not None:
            if len(self.received) > 1:
                exit_now(self.code)
        elif self.listener is not None:
            self.listener(number)
        elif self.raises:
            # A bare `except` in the user's module may have swallowed the first.
            if len(self.received) > 1:
                exit_now(128 + number)
            raise Interrupted(number)


_state = _Signals()


def install() -> None:
    """Install the handlers for the rest of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _state.handle)
    # `nohup` ignores SIGHUP on purpose.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _state.handle)
    explain_signal.install()
    # Registered first, so that it runs after the user's exit functions. At exit the interpreter keeps `SIG_IGN`
    # but replaces other handlers with the default, which would change the exit code.
    atexit.unregister(_ignore)
    atexit.register(_ignore)


def _ignore() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *explain_signal.NUMBERS):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred() -> Generator[None]:
    """Defer signals in this block until `interruptible()` or `listen()`."""
    _state.raises = False
    try:
        yield
    finally:
        _state.raises = True


@contextmanager
def interruptible() -> Generator[None]:
    """Raise `Interrupted` in this part of a deferred block. The part may block for ever and leaves no step half done.

    Raises:
        Interrupted: a signal is received, or was deferred before.
    """
    before = _state.raises
    _state.raises = True
    try:
        if _state.received:
            raise Interrupted(_state.received[0])
        yield
    finally:
        _state.raises = before


def listen(listener: Callable[[int], object]) -> None:
    """Call `listener` with each signal, deferred ones included. It runs between any two bytecodes."""
    _state.listener = listener
    for number in tuple(_state.received):
        listener(number)


def set_exit_code(code: int) -> None:
    """Set the exit code once all files are on disk. Later, a second signal ends the process with this code."""
    _state.code = code
    _state.listener = None


def exit_now(code: int) -> NoReturn:
    """End the process immediately, without waiting for threads and without flushing: a flush may be what blocks."""
    os._exit(code)
